//! From recorded outcomes to the evidence of a decision: sums per epoch, arm and cluster.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Experiment;
use super::decision::{Evidence, HarmLook, Metric, look_for_harm};
use super::statistics::{Arm, Cell, PerArm, Sampling, Units};

/// The part of an experiment's life that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the start of the test to its decision.
    Test,
    /// From the promotion on: the hold-back is the concurrent baseline.
    Watch,
}

/// The evidence of the test at `now`.
pub async fn evidence(
    conn: &mut PgConnection,
    experiment: &Experiment,
    now: DateTime<Utc>,
) -> sqlx::Result<Evidence> {
    let (cells, sampling) = cells(conn, experiment, experiment.rules.primary, Phase::Test).await?;
    let cost = match experiment.rules.policy {
        Some(_) => self::cells(conn, experiment, Metric::CostPerEngagement, Phase::Test).await?.0,
        None => Vec::new(),
    };
    let until = experiment.ended_at.unwrap_or(now);
    Ok(Evidence {
        hours_elapsed: (until - experiment.started_at).as_seconds_f64() / 3600.0,
        horizon_reached: until >= experiment.horizon_at,
        sampling,
        cells,
        units: units(conn, experiment).await?,
        cost,
        planned_standard_error: experiment.planned_se_test,
    })
}

/// A look for harm in the watch.
pub async fn harm_look(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<HarmLook> {
    let (cells, sampling) = cells(conn, experiment, experiment.rules.primary, Phase::Watch).await?;
    Ok(look_for_harm(&cells, sampling, &experiment.rules, experiment.planned_se_watch))
}

/// The sums of one metric, and whether outcomes depend on each other.
async fn cells(
    conn: &mut PgConnection,
    experiment: &Experiment,
    metric: Metric,
    phase: Phase,
) -> sqlx::Result<(Vec<Cell>, Sampling)> {
    let rows = sqlx::query!(
        r#"WITH observed AS (
               SELECT revision, model_version_id, persona, coalesce(persona, unit) AS cluster,
                      CASE $4 WHEN 'engagement' THEN engagement_rate WHEN 'cost_per_engagement' THEN cost
                              WHEN 'quality' THEN quality WHEN 'error_rate' THEN failed::int::float8
                              WHEN 'latency' THEN latency_ms END AS s,
                      CASE $4 WHEN 'cost_per_engagement' THEN engagements::float8 ELSE 1.0 END AS n
                 FROM outcomes WHERE experiment_id = $1 AND model_version_id IN ($2, $3)),
           promoted AS (SELECT min(revision) AS revision FROM traffic_revisions
                         WHERE experiment_id = $1 AND kind = 'promotion')
           SELECT o.revision AS "epoch!", o.model_version_id = $3 AS "candidate!", o.cluster AS "cluster!",
                  bool_or(o.persona IS NOT NULL) AS "persona!", count(*) AS "n!", sum(s) AS "s!",
                  sum(n) AS "d!", sum(s * s) AS "ss!", sum(s * n) AS "sd!", sum(n * n) AS "dd!"
             FROM observed o CROSS JOIN promoted p
            WHERE s IS NOT NULL AND n IS NOT NULL
              AND CASE WHEN $5 THEN p.revision IS NULL OR o.revision < p.revision
                       ELSE o.revision >= p.revision END
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"#,
        experiment.id,
        experiment.baseline_id,
        experiment.candidate_id,
        metric_word(metric),
        phase == Phase::Test,
    )
    .fetch_all(conn)
    .await?;
    let personas = rows.iter().any(|row| row.persona);
    let cells: Vec<Cell> = rows
        .into_iter()
        .map(|row| Cell {
            epoch: row.epoch,
            arm: if row.candidate { Arm::Candidate } else { Arm::Baseline },
            cluster: row.cluster,
            n: row.n.unsigned_abs(),
            numerator: row.s,
            denominator: row.d,
            numerator_sq: row.ss,
            cross: row.sd,
            denominator_sq: row.dd,
        })
        .collect();
    let sampling = Sampling::of(&cells, personas);
    Ok((cells, sampling))
}

fn metric_word(metric: Metric) -> &'static str {
    match metric {
        Metric::Engagement => "engagement",
        Metric::CostPerEngagement => "cost_per_engagement",
        Metric::Quality => "quality",
        Metric::ErrorRate => "error_rate",
        Metric::Latency => "latency",
    }
}

/// Distinct units per epoch of the test, each counted once, in the epoch of its first outcome.
async fn units(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<Vec<Units>> {
    let rows = sqlx::query!(
        r#"WITH first AS (
               SELECT DISTINCT ON (unit) unit, revision, model_version_id FROM outcomes
                WHERE experiment_id = $1 AND model_version_id IN ($2, $3)
                ORDER BY unit, served_at, id),
           promoted AS (SELECT min(revision) AS revision FROM traffic_revisions
                         WHERE experiment_id = $1 AND kind = 'promotion'),
           weights AS (
               SELECT r.revision,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $2), 0) AS baseline,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $3), 0) AS candidate
                 FROM traffic_revisions r JOIN traffic_weights w USING (pipeline, revision)
                WHERE r.experiment_id = $1 AND NOT r.kill_switch GROUP BY r.revision)
           SELECT w.revision AS "epoch!", w.baseline AS "baseline_weight!", w.candidate AS "candidate_weight!",
                  count(*) FILTER (WHERE f.model_version_id = $2) AS "baseline!",
                  count(*) FILTER (WHERE f.model_version_id = $3) AS "candidate!"
             FROM weights w CROSS JOIN promoted p LEFT JOIN first f ON f.revision = w.revision
            WHERE p.revision IS NULL OR w.revision < p.revision
            GROUP BY 1, 2, 3 ORDER BY 1"#,
        experiment.id,
        experiment.baseline_id,
        experiment.candidate_id,
    )
    .fetch_all(conn)
    .await?;
    let weight = |basis_points: i64| u32::try_from(basis_points).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| Units {
            epoch: row.epoch,
            weights: PerArm {
                baseline: weight(row.baseline_weight),
                candidate: weight(row.candidate_weight),
            },
            counts: PerArm { baseline: row.baseline.unsigned_abs(), candidate: row.candidate.unsigned_abs() },
        })
        .collect())
}
