//! What planning starts from: the history of a pipeline, and how far a running test has come.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::decision::{Evidence, Metric, Rules};
use super::epochs::{Epoch, epochs, outcomes_per_day};
use super::statistics::planning::{PlanInput, Progress, progress};
use super::statistics::{Arm, Cell, Method, Sampling, Variability};
use super::sums::{cells, metric_word, sampling};
use super::{Phase, by_id};

/// The relative effect that is planned for where none is named.
pub const DEFAULT_EFFECT: f64 = 0.05;
/// The power that is planned for where none is named.
pub const DEFAULT_POWER: f64 = 0.8;

/// Raw outcomes are looked at this far back.
const OUTCOME_DAYS: i64 = 28;
/// Of these the traffic is counted this far back.
const TRAFFIC_DAYS: i64 = 7;

/// Where the figures of a history come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistorySource {
    /// The newest experiment that has outcomes.
    Experiment,
    /// There was no experiment: the outcomes of the live version in the last 28 days.
    Outcomes,
}

/// What is known of a metric in a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Where it comes from.
    pub source: HistorySource,
    /// The experiment.
    pub experiment_id: Option<Uuid>,
    /// The outcomes that have the metric.
    pub outcomes: u64,
    /// How much the metric varies; `None` where there are too few outcomes that have it.
    pub variability: Option<Variability>,
    /// Whether outcomes depend on each other.
    pub sampling: Sampling,
    /// Outcomes a day that have the metric, at the traffic of the last 7 days.
    pub outcomes_per_day: Option<f64>,
}

/// The relative effect that tests by these rules are planned for: the smallest of interest, or 5 %.
#[must_use]
pub fn default_effect(rules: &Rules) -> f64 {
    if rules.minimum_effect > 0.0 { rules.minimum_effect } else { DEFAULT_EFFECT }
}

/// An experiment with fewer outcomes in an arm tells less than an older one that has them.
const ENOUGH: i64 = 100;

/// The history of `metric`: of the newest experiment with enough outcomes, else of the newest with any (both arms of its test as one sample), else of
/// the live version's outcomes. With `since`, experiments that began before are left out.
pub async fn history(
    conn: &mut PgConnection,
    pipeline: &str,
    metric: Metric,
    since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> sqlx::Result<History> {
    let newest = sqlx::query_scalar!(
        "SELECT e.id FROM experiments e
           JOIN LATERAL (SELECT coalesce(sum(outcomes) FILTER (WHERE candidate), 0) AS candidate,
                                coalesce(sum(outcomes) FILTER (WHERE NOT candidate), 0) AS baseline
                           FROM experiment_sums s WHERE s.experiment_id = e.id) n ON n.candidate + n.baseline > 0
          WHERE e.pipeline = $1 AND ($3::timestamptz IS NULL OR e.started_at >= $3)
          ORDER BY least(n.candidate, n.baseline) >= $2::bigint DESC, e.started_at DESC LIMIT 1",
        pipeline,
        ENOUGH,
        since,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = newest else { return of_outcomes(conn, pipeline, metric, now).await };
    let experiment = by_id(&mut *conn, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let sampling = sampling(conn, &experiment, Phase::Test).await?;
    let cells = cells(conn, &experiment, metric, Phase::Test, sampling).await?;
    let epochs = epochs(conn, &experiment).await?;
    Ok(History {
        source: HistorySource::Experiment,
        experiment_id: Some(id),
        outcomes: cells.iter().map(|cell| cell.n).sum(),
        variability: Variability::of(&cells),
        sampling,
        outcomes_per_day: outcomes_per_day(&epochs, now).map(|all| all * share_with_metric(&cells, &epochs)),
    })
}

/// Not every outcome has every metric: the share of those of the test that have this one.
fn share_with_metric(cells: &[Cell], epochs: &[Epoch]) -> f64 {
    let tested = epochs.iter().filter(|epoch| epoch.phase == Phase::Test);
    let all: u64 = tested.map(|epoch| epoch.outcomes.baseline + epoch.outcomes.candidate).sum();
    let with: u64 = cells.iter().map(|cell| cell.n).sum();
    if all > 0 { (with as f64 / all as f64).min(1.0) } else { 1.0 }
}

async fn of_outcomes(
    conn: &mut PgConnection,
    pipeline: &str,
    metric: Metric,
    now: DateTime<Utc>,
) -> sqlx::Result<History> {
    let from = now - TimeDelta::days(OUTCOME_DAYS);
    let seen = sqlx::query!(
        r#"SELECT count(o.persona) > 0 OR count(*) > count(DISTINCT o.unit) AS "clustered!"
             FROM outcomes o
            WHERE o.pipeline = $1 AND o.served_at >= $2 AND o.served_at <= $3
              AND o.model_version_id = (SELECT live_version_id FROM traffic_revisions
                                         WHERE pipeline = $1 ORDER BY revision DESC LIMIT 1)"#,
        pipeline,
        from,
        now,
    )
    .fetch_one(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"WITH metric AS (
               SELECT CASE WHEN $4 THEN coalesce(persona, unit) ELSE '' END AS cluster, served_at,
                      CASE $5 WHEN 'engagement' THEN engagement_rate WHEN 'cost_per_engagement' THEN cost
                              WHEN 'quality' THEN quality WHEN 'error_rate' THEN failed::int::float8
                              WHEN 'latency' THEN latency_ms END AS s,
                      CASE WHEN $5 = 'cost_per_engagement' THEN engagements::float8 ELSE 1 END AS d
                 FROM outcomes
                WHERE pipeline = $1 AND served_at >= $2 AND served_at <= $3
                  AND model_version_id = (SELECT live_version_id FROM traffic_revisions
                                           WHERE pipeline = $1 ORDER BY revision DESC LIMIT 1))
           SELECT cluster AS "cluster!", count(*) AS "n!", sum(s) AS "s!", sum(d) AS "d!", sum(s * s) AS "ss!",
                  sum(s * d) AS "sd!", sum(d * d) AS "dd!", count(*) FILTER (WHERE served_at >= $6) AS "recent!",
                  min(served_at) AS "first!"
             FROM metric WHERE s IS NOT NULL AND d IS NOT NULL GROUP BY 1 ORDER BY 1"#,
        pipeline,
        from,
        now,
        seen.clustered,
        metric_word(metric),
        now - TimeDelta::days(TRAFFIC_DAYS),
    )
    .fetch_all(conn)
    .await?;
    let first = rows.iter().map(|row| row.first).min();
    let recent: i64 = rows.iter().map(|row| row.recent).sum();
    let days = first.map_or(0.0, |first| (now - first).as_seconds_f64() / 86_400.0).min(TRAFFIC_DAYS as f64);
    let cells: Vec<Cell> = rows
        .into_iter()
        .map(|row| Cell {
            epoch: 0,
            arm: Arm::Baseline,
            cluster: row.cluster,
            n: row.n.unsigned_abs(),
            numerator: row.s,
            denominator: row.d,
            numerator_sq: row.ss,
            cross: row.sd,
            denominator_sq: row.dd,
        })
        .collect();
    Ok(History {
        source: HistorySource::Outcomes,
        experiment_id: None,
        outcomes: cells.iter().map(|cell| cell.n).sum(),
        variability: Variability::of(&cells),
        sampling: if seen.clustered { Sampling::Clustered } else { Sampling::Independent },
        outcomes_per_day: (days > 0.0 && recent > 0).then(|| recent as f64 / days),
    })
}

/// What a test was planned for and how far it has come, on its primary metric at the split in force. `None`
/// where there are no outcomes to tell it from.
#[must_use]
pub fn standing(
    evidence: &Evidence,
    rules: &Rules,
    epochs: &[Epoch],
    now: DateTime<Utc>,
) -> Option<(PlanInput, Progress)> {
    let observed = evidence.metrics.get(&rules.primary)?;
    let both = |epoch: &&Epoch| epoch.phase == Phase::Test && epoch.weights.both(|weight| *weight > 0);
    let weights = epochs.iter().rev().find(both)?.weights;
    let tested: Vec<Epoch> = epochs.iter().filter(|epoch| epoch.phase == Phase::Test).cloned().collect();
    let a_day = outcomes_per_day(&tested, now).unwrap_or_default();
    let input = PlanInput {
        variability: Variability::of(&observed.cells)?,
        method: Method::of(rules.assignment, observed.sampling),
        effect: default_effect(rules),
        alpha: rules.horizon_alpha(),
        power: DEFAULT_POWER,
        candidate_share: f64::from(weights.candidate) / f64::from(weights.baseline + weights.candidate),
        outcomes_per_day: a_day * share_with_metric(&observed.cells, epochs),
    };
    let candidate = observed.cells.iter().filter(|cell| cell.arm == Arm::Candidate).map(|cell| cell.n).sum();
    Some((input, progress(&input, candidate)))
}
