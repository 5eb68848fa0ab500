//! The sufficient statistics: sums per experiment, epoch, arm and cluster.

use sqlx::PgConnection;
use uuid::Uuid;

use super::correct::Corrections;
use super::rows::{Rows, ValueColumns};

/// What is added to the sums or, with the sign −1, taken out of them.
#[derive(Debug, Default)]
pub(super) struct Terms {
    sign: Vec<i16>,
    experiment: Vec<Uuid>,
    epoch: Vec<i64>,
    candidate: Vec<bool>,
    /// The unit, which is the cluster where there is no persona.
    unit: Vec<String>,
    persona: Vec<Option<String>>,
    values: ValueColumns,
}

/// Adds new outcomes and puts the corrected values of others in place of the former ones.
pub(super) async fn add(conn: &mut PgConnection, fresh: Rows, corrections: Corrections) -> sqlx::Result<()> {
    let mut terms = Terms::default();
    terms.add_corrections(corrections);
    terms.add_rows(fresh);
    terms.fold(conn).await
}

impl Terms {
    fn add_rows(&mut self, rows: Rows) {
        let places = rows.experiment.into_iter().zip(rows.candidate).zip(rows.revision);
        let clusters = rows.unit.into_iter().zip(rows.persona);
        for (at, (((experiment, candidate), epoch), (unit, persona))) in places.zip(clusters).enumerate() {
            let (Some(experiment), Some(candidate)) = (experiment, candidate) else { continue };
            self.sign.push(1);
            self.experiment.push(experiment);
            self.epoch.push(epoch);
            self.candidate.push(candidate);
            self.unit.push(unit);
            self.persona.push(persona);
            self.values.push(&rows.values.at(at));
        }
    }

    fn add_corrections(&mut self, corrections: Corrections) {
        for correction in corrections.0 {
            let Some((experiment, candidate)) = correction.arm else { continue };
            for (sign, values) in [(-1, &correction.before), (1, &correction.after)] {
                self.sign.push(sign);
                self.experiment.push(experiment);
                self.epoch.push(correction.revision);
                self.candidate.push(candidate);
                self.unit.push(correction.unit.clone());
                self.persona.push(correction.persona.clone());
                self.values.push(values);
            }
        }
    }

    async fn fold(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if self.sign.is_empty() {
            return Ok(());
        }
        let values = &self.values;
        sqlx::query!(
            "INSERT INTO experiment_sums AS known
             SELECT experiment, epoch, candidate, cluster, sum(sign), coalesce(sum(sign) FILTER (WHERE persona), 0),
                    coalesce(sum(sign) FILTER (WHERE rate IS NOT NULL), 0), coalesce(sum(sign * rate), 0),
                    coalesce(sum(sign * rate * rate), 0),
                    coalesce(sum(sign) FILTER (WHERE cost IS NOT NULL AND engagements IS NOT NULL), 0),
                    coalesce(sum(sign * cost) FILTER (WHERE engagements IS NOT NULL), 0),
                    coalesce(sum(sign * engagements) FILTER (WHERE cost IS NOT NULL), 0),
                    coalesce(sum(sign * cost * cost) FILTER (WHERE engagements IS NOT NULL), 0),
                    coalesce(sum(sign * cost * engagements), 0),
                    coalesce(sum(sign * engagements * engagements) FILTER (WHERE cost IS NOT NULL), 0),
                    coalesce(sum(sign) FILTER (WHERE quality IS NOT NULL), 0), coalesce(sum(sign * quality), 0),
                    coalesce(sum(sign * quality * quality), 0),
                    coalesce(sum(sign) FILTER (WHERE failed IS NOT NULL), 0), coalesce(sum(sign) FILTER (WHERE failed), 0),
                    coalesce(sum(sign) FILTER (WHERE latency IS NOT NULL), 0), coalesce(sum(sign * latency), 0),
                    coalesce(sum(sign * latency * latency), 0)
               FROM (SELECT experiment, epoch, candidate, coalesce(persona, unit) AS cluster,
                            persona IS NOT NULL AS persona, sign, rate::numeric, engagements::numeric,
                            cost::numeric, quality::numeric, latency::numeric, failed
                       FROM unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::boolean[], $5::text[], $6::text[],
                                   $7::float8[], $8::bigint[], $9::float8[], $10::float8[], $11::float8[],
                                   $12::boolean[])
                            AS term (sign, experiment, epoch, candidate, unit, persona, rate, engagements, cost,
                                     quality, latency, failed)) term
              GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
             ON CONFLICT (experiment_id, epoch, candidate, cluster) DO UPDATE SET
                outcomes = known.outcomes + excluded.outcomes, personas = known.personas + excluded.personas,
                engagement_n = known.engagement_n + excluded.engagement_n,
                engagement_s = known.engagement_s + excluded.engagement_s,
                engagement_ss = known.engagement_ss + excluded.engagement_ss,
                cost_n = known.cost_n + excluded.cost_n, cost_s = known.cost_s + excluded.cost_s,
                cost_d = known.cost_d + excluded.cost_d, cost_ss = known.cost_ss + excluded.cost_ss,
                cost_sd = known.cost_sd + excluded.cost_sd, cost_dd = known.cost_dd + excluded.cost_dd,
                quality_n = known.quality_n + excluded.quality_n, quality_s = known.quality_s + excluded.quality_s,
                quality_ss = known.quality_ss + excluded.quality_ss,
                failed_n = known.failed_n + excluded.failed_n, failed_s = known.failed_s + excluded.failed_s,
                latency_n = known.latency_n + excluded.latency_n, latency_s = known.latency_s + excluded.latency_s,
                latency_ss = known.latency_ss + excluded.latency_ss",
            &self.sign,
            &self.experiment,
            &self.epoch,
            &self.candidate,
            &self.unit,
            &self.persona as &[Option<String>],
            &values.engagement_rate as &[Option<f64>],
            &values.engagements as &[Option<i64>],
            &values.cost as &[Option<f64>],
            &values.quality as &[Option<f64>],
            &values.latency_ms as &[Option<f64>],
            &values.failed as &[Option<bool>],
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}
