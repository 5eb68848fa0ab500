//! What an analysis reads: the sums and counts that recording keeps up to date.

use sqlx::PgConnection;

use super::decision::Metric;
use super::statistics::{Arm, Cell, PerArm, Sampling, Units};
use super::{Experiment, Phase};

/// Keeps recording from committing until the transaction ends, so that all that is read of an experiment is of one moment. A
/// batch takes the sums before the counts of units: none that has begun to write them is cut in two, and none waits for this
/// transaction while it holds what is read here.
pub async fn hold_still(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("LOCK TABLE experiment_sums IN SHARE MODE").execute(conn).await?;
    Ok(())
}

/// The sums of one metric: one cell per epoch and arm where outcomes are independent, else one per cluster as well.
pub(super) async fn cells(
    conn: &mut PgConnection,
    experiment: &Experiment,
    metric: Metric,
    phase: Phase,
    sampling: Sampling,
) -> sqlx::Result<Vec<Cell>> {
    let rows = sqlx::query!(
        r#"WITH promoted AS (SELECT min(revision) AS revision FROM traffic_revisions
                              WHERE experiment_id = $1 AND kind = 'promotion'),
           metric AS (
               SELECT epoch, candidate, CASE WHEN $4 THEN cluster ELSE '' END AS cluster,
                      CASE $2 WHEN 'engagement' THEN engagement_n WHEN 'cost_per_engagement' THEN cost_n
                              WHEN 'quality' THEN quality_n WHEN 'error_rate' THEN failed_n
                              WHEN 'latency' THEN latency_n END AS n,
                      CASE $2 WHEN 'engagement' THEN engagement_s WHEN 'cost_per_engagement' THEN cost_s
                              WHEN 'quality' THEN quality_s WHEN 'error_rate' THEN failed_s
                              WHEN 'latency' THEN latency_s END AS s,
                      CASE $2 WHEN 'engagement' THEN engagement_ss WHEN 'cost_per_engagement' THEN cost_ss
                              WHEN 'quality' THEN quality_ss WHEN 'error_rate' THEN failed_s
                              WHEN 'latency' THEN latency_ss END AS ss,
                      CASE WHEN $2 = 'cost_per_engagement' THEN cost_d END AS d,
                      CASE WHEN $2 = 'cost_per_engagement' THEN cost_sd END AS sd,
                      CASE WHEN $2 = 'cost_per_engagement' THEN cost_dd END AS dd
                 FROM experiment_sums CROSS JOIN promoted p
                WHERE experiment_id = $1
                  AND CASE WHEN $3 THEN p.revision IS NULL OR epoch < p.revision ELSE epoch >= p.revision END)
           SELECT epoch AS "epoch!", candidate AS "candidate!", cluster AS "cluster!",
                  sum(n)::bigint AS "n!", sum(s)::float8 AS "s!", coalesce(sum(d), sum(n))::float8 AS "d!",
                  sum(ss)::float8 AS "ss!", coalesce(sum(sd), sum(s))::float8 AS "sd!",
                  coalesce(sum(dd), sum(n))::float8 AS "dd!"
             FROM metric WHERE n > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"#,
        experiment.id,
        metric_word(metric),
        phase == Phase::Test,
        sampling == Sampling::Clustered,
    )
    .fetch_all(conn)
    .await?;
    let cells = rows.into_iter().map(|row| Cell {
        epoch: row.epoch,
        arm: if row.candidate { Arm::Candidate } else { Arm::Baseline },
        cluster: row.cluster,
        n: row.n.unsigned_abs(),
        numerator: row.s,
        denominator: row.d,
        numerator_sq: row.ss,
        cross: row.sd,
        denominator_sq: row.dd,
    });
    Ok(cells.collect())
}

/// Whether outcomes depend on each other: there are personas, or a unit was observed twice.
pub(super) async fn sampling(
    conn: &mut PgConnection,
    experiment: &Experiment,
    phase: Phase,
) -> sqlx::Result<Sampling> {
    let row = sqlx::query!(
        r#"SELECT coalesce(sum(s.personas), 0) > 0 AS "personas!",
                  coalesce(sum(s.outcomes), 0) > count(DISTINCT s.cluster) AS "repeated!"
             FROM experiment_sums s
            CROSS JOIN (SELECT min(revision) AS revision FROM traffic_revisions
                         WHERE experiment_id = $1 AND kind = 'promotion') p
            WHERE s.experiment_id = $1
              AND CASE WHEN $2 THEN p.revision IS NULL OR s.epoch < p.revision ELSE s.epoch >= p.revision END"#,
        experiment.id,
        phase == Phase::Test,
    )
    .fetch_one(conn)
    .await?;
    Ok(if row.personas || row.repeated { Sampling::Clustered } else { Sampling::Independent })
}

pub(super) fn metric_word(metric: Metric) -> &'static str {
    match metric {
        Metric::Engagement => "engagement",
        Metric::CostPerEngagement => "cost_per_engagement",
        Metric::Quality => "quality",
        Metric::ErrorRate => "error_rate",
        Metric::Latency => "latency",
    }
}

/// Distinct units per epoch of the test, each counted once, in the epoch of its first outcome.
pub(super) async fn units(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<Vec<Units>> {
    let rows = sqlx::query!(
        r#"WITH promoted AS (SELECT min(revision) AS revision FROM traffic_revisions
                              WHERE experiment_id = $1 AND kind = 'promotion'),
           weights AS (
               SELECT r.revision,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $2), 0) AS baseline,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $3), 0) AS candidate
                 FROM traffic_revisions r JOIN traffic_weights w USING (pipeline, revision)
                WHERE r.experiment_id = $1 AND NOT r.kill_switch GROUP BY r.revision)
           SELECT w.revision AS "epoch!", w.baseline AS "baseline_weight!", w.candidate AS "candidate_weight!",
                  coalesce(sum(c.units) FILTER (WHERE NOT c.candidate), 0)::bigint AS "baseline!",
                  coalesce(sum(c.units) FILTER (WHERE c.candidate), 0)::bigint AS "candidate!"
             FROM weights w CROSS JOIN promoted p
             LEFT JOIN experiment_unit_counts c ON c.experiment_id = $1 AND c.epoch = w.revision
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
