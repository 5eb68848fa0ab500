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
             SELECT experiment, epoch, candidate, cluster, sum(sign * outcomes), sum(sign * personas),
                    sum(sign * engagement_n), sum(sign * engagement_s), sum(sign * engagement_ss),
                    sum(sign * cost_n), sum(sign * cost_s), sum(sign * cost_d), sum(sign * cost_ss),
                    sum(sign * cost_sd), sum(sign * cost_dd),
                    sum(sign * quality_n), sum(sign * quality_s), sum(sign * quality_ss),
                    sum(sign * failed_n), sum(sign * failed_s),
                    sum(sign * latency_n), sum(sign * latency_s), sum(sign * latency_ss)
               -- What goes in and what goes out are summed apart: one multiplication less for each number of each outcome.
               FROM (SELECT sign, experiment, epoch, candidate, coalesce(persona, unit) AS cluster,
                            count(*) AS outcomes, count(persona) AS personas,
                            count(rate) AS engagement_n, coalesce(sum(rate), 0) AS engagement_s,
                            coalesce(sum(rate * rate), 0) AS engagement_ss,
                            count(cost) FILTER (WHERE engagements IS NOT NULL) AS cost_n,
                            coalesce(sum(cost) FILTER (WHERE engagements IS NOT NULL), 0) AS cost_s,
                            coalesce(sum(engagements) FILTER (WHERE cost IS NOT NULL), 0) AS cost_d,
                            coalesce(sum(cost * cost) FILTER (WHERE engagements IS NOT NULL), 0) AS cost_ss,
                            coalesce(sum(cost * engagements), 0) AS cost_sd,
                            coalesce(sum(engagements * engagements) FILTER (WHERE cost IS NOT NULL), 0) AS cost_dd,
                            count(quality) AS quality_n, coalesce(sum(quality), 0) AS quality_s,
                            coalesce(sum(quality * quality), 0) AS quality_ss,
                            count(failed) AS failed_n, count(*) FILTER (WHERE failed) AS failed_s,
                            count(latency) AS latency_n, coalesce(sum(latency), 0) AS latency_s,
                            coalesce(sum(latency * latency), 0) AS latency_ss
                       FROM (SELECT sign, experiment, epoch, candidate, unit, persona, rate::numeric,
                                    engagements::numeric, cost::numeric, quality::numeric, latency::numeric, failed
                               FROM unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::boolean[], $5::text[],
                                           $6::text[], $7::float8[], $8::bigint[], $9::float8[], $10::float8[],
                                           $11::float8[], $12::boolean[])
                                    AS sent (sign, experiment, epoch, candidate, unit, persona, rate, engagements,
                                             cost, quality, latency, failed)
                             -- Kept apart, so that a number is converted once and not wherever it is used.
                             OFFSET 0) term
                      GROUP BY 1, 2, 3, 4, 5) summed
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
