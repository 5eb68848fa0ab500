//! The looks at an experiment, kept for charts of the effect and its sequence.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::decision::{Decision, HarmLook, HarmReport, Metric, Rules};
use super::statistics::sequential::confidence_sequence;
use super::statistics::{Counts, Interval, PerArm};
use super::{Experiment, Phase};

/// Of a whole test about as many looks are kept: enough for a chart, and little to store.
const LOOKS_KEPT: i32 = 500;

/// What one look showed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ExperimentLook)]
pub struct Look {
    /// Its place in the series, from 1.
    pub number: i64,
    /// The part of the experiment.
    pub phase: Phase,
    /// When.
    pub looked_at: DateTime<Utc>,
    /// Each metric that was looked at: the primary, and those watched for harm.
    #[schema(max_items = 5)]
    pub metrics: Vec<MetricLook>,
}

/// One metric at one look. What could not be computed is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricLook {
    /// The metric.
    pub metric: Metric,
    /// Outcomes and clusters.
    pub counts: PerArm<Counts>,
    /// Candidate − baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// Candidate / baseline − 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// The standard error: of the difference or, where a loss is tolerated, of the contrast with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// The two-sided confidence sequence of the difference, at twice the level of the test. For a metric with a
    /// tolerance, whose standard error is not that of the difference, only where it is the primary of a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Interval>,
    /// The e-value against "not worse than tolerated".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e_value: Option<f64>,
    /// The e-value at which the candidate is taken back, where the metric is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

impl Look {
    /// The first metric in which the candidate did harm.
    #[must_use]
    pub fn harmed(&self) -> Option<Metric> {
        let harmed =
            |look: &&MetricLook| matches!((look.e_value, look.threshold), (Some(e), Some(at)) if e >= at);
        self.metrics.iter().find(harmed).map(|look| look.metric)
    }
}

/// What was found at a look of the test or of the watch.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// In the test.
    Test(&'a Decision),
    /// In the watch.
    Watch(&'a HarmReport),
}

impl<'a> From<&'a Decision> for Found<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self::Test(decision)
    }
}

impl<'a> From<&'a HarmReport> for Found<'a> {
    fn from(report: &'a HarmReport) -> Self {
        Self::Watch(report)
    }
}

impl Found<'_> {
    fn phase(self) -> Phase {
        match self {
            Self::Test(_) => Phase::Test,
            Self::Watch(_) => Phase::Watch,
        }
    }

    fn metrics(self, rules: &Rules) -> Vec<MetricLook> {
        match self {
            Self::Watch(report) => report.looks.iter().map(|look| of_harm(look, rules)).collect(),
            Self::Test(decision) => {
                let primary = of_primary(decision, rules);
                let others = decision.harm.iter().filter(|look| look.metric != rules.primary);
                std::iter::once(primary).chain(others.map(|look| of_harm(look, rules))).collect()
            }
        }
    }
}

/// The primary has an estimate of its own, whatever is tolerated.
fn of_primary(decision: &Decision, rules: &Rules) -> MetricLook {
    let watched = decision.harm.iter().find(|look| look.metric == rules.primary);
    let found = decision.estimate.as_ref();
    MetricLook {
        metric: rules.primary,
        counts: found.map(|found| found.counts).unwrap_or_default(),
        difference: found.map(|found| found.difference).and_then(finite),
        relative: found.and_then(|found| found.relative).and_then(finite),
        standard_error: found.map(|found| found.standard_error).and_then(finite),
        sequence: decision.sequence.map(|sequence| sequence.interval),
        e_value: watched.and_then(|look| look.e_value).and_then(finite),
        threshold: watched.map(|look| look.threshold).and_then(finite),
    }
}

fn of_harm(look: &HarmLook, rules: &Rules) -> MetricLook {
    let tolerated =
        rules.watched_metrics().into_iter().any(|(metric, loss)| metric == look.metric && loss > 0.0);
    let sequence = || {
        let (difference, error) = (look.difference?, look.standard_error?);
        confidence_sequence(difference, error, look.planned_standard_error?, 2.0 * rules.horizon_alpha())
    };
    MetricLook {
        metric: look.metric,
        counts: look.counts,
        difference: look.difference.and_then(finite),
        relative: look.relative.and_then(finite),
        standard_error: look.standard_error.and_then(finite),
        sequence: if tolerated { None } else { sequence().map(|sequence| sequence.interval) },
        e_value: look.e_value.and_then(finite),
        threshold: finite(look.threshold),
    }
}

/// JSON has no other numbers.
fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite())
}

/// Keeps what a look showed, in the look's own transaction. The kept rows of a phase are at least 1/500 of the
/// time from the start to the horizon apart, except for the newest, which is always there.
pub async fn record_look<'a>(
    conn: &mut PgConnection,
    experiment: &Experiment,
    now: DateTime<Utc>,
    found: impl Into<Found<'a>>,
) -> sqlx::Result<()> {
    let found = found.into();
    let newest = sqlx::query_as!(
        Kept,
        r#"SELECT number, phase AS "phase: Phase", looked_at FROM experiment_looks
            WHERE experiment_id = $1 ORDER BY number DESC LIMIT 2"#,
        experiment.id,
    )
    .fetch_all(&mut *conn)
    .await?;
    let gap = (experiment.horizon_at - experiment.started_at) / LOOKS_KEPT;
    let number = number(&newest, found.phase(), gap);
    let metrics = serde_json::to_value(found.metrics(&experiment.rules));
    sqlx::query!(
        "INSERT INTO experiment_looks (experiment_id, number, phase, looked_at, metrics) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (experiment_id, number) DO UPDATE
            SET phase = excluded.phase, looked_at = excluded.looked_at, metrics = excluded.metrics",
        experiment.id,
        number,
        found.phase() as Phase,
        now,
        metrics.map_err(|error| sqlx::Error::Encode(error.into()))?,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A row that is kept.
struct Kept {
    number: i64,
    phase: Phase,
    looked_at: DateTime<Utc>,
}

/// The number of a new row, given the newest two, newest first: that of the newest while it is too close to the
/// one before it.
fn number(newest: &[Kept], phase: Phase, gap: TimeDelta) -> i64 {
    match newest {
        [] => 1,
        [last, before, ..] if last.phase == phase && before.phase == phase => {
            let close = last.looked_at - before.looked_at < gap;
            if close { last.number } else { last.number + 1 }
        }
        [last, ..] => last.number + 1,
    }
}

/// The newest look at an experiment.
pub async fn newest_look(conn: &mut PgConnection, experiment: Uuid) -> sqlx::Result<Option<Look>> {
    let newest = sqlx::query_scalar!(
        r#"SELECT coalesce(max(number), 0) AS "newest!" FROM experiment_looks WHERE experiment_id = $1"#,
        experiment,
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(looks(conn, experiment, newest - 1, 1).await?.pop())
}

/// Up to `limit` looks of an experiment, oldest first, after the one with number `after`.
pub async fn looks(
    conn: &mut PgConnection,
    experiment: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<Look>> {
    let rows = sqlx::query!(
        r#"SELECT number, phase AS "phase: Phase", looked_at, metrics FROM experiment_looks
            WHERE experiment_id = $1 AND number > $2 ORDER BY number LIMIT $3"#,
        experiment,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let metrics =
                serde_json::from_value(row.metrics).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(Look { number: row.number, phase: row.phase, looked_at: row.looked_at, metrics })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of the rows that are left of looks at these seconds.
    fn kept(looks: impl IntoIterator<Item = (Phase, i64)>, gap: i64) -> Vec<i64> {
        let mut rows: Vec<Kept> = Vec::new();
        for (phase, second) in looks {
            let newest: Vec<Kept> = rows.iter().rev().take(2).map(|row| Kept { ..*row }).collect();
            let number = number(&newest, phase, TimeDelta::seconds(gap));
            rows.retain(|row| row.number != number);
            let looked_at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second);
            rows.push(Kept { number, phase, looked_at });
        }
        assert!(rows.iter().zip(1..).all(|(row, number)| row.number == number));
        rows.iter().map(|row| row.looked_at.timestamp()).collect()
    }

    #[test]
    fn looks_are_thinned_and_the_newest_of_each_phase_is_always_kept() {
        let test = |until: i64| (0..=until).map(|second| (Phase::Test, second));
        assert_eq!(kept(test(23), 10), [0, 10, 20, 23]);
        assert_eq!(kept(test(3), 1), [0, 1, 2, 3]);
        let watch = (24..=40).map(|second| (Phase::Watch, second));
        assert_eq!(kept(test(23).chain(watch), 10), [0, 10, 20, 23, 24, 34, 40]);
        // 168 hours with a look each five minutes.
        let week = (0..=2016).map(|look| (Phase::Test, look * 300));
        assert_eq!(kept(week, 604_800 / 500).len(), 405);
    }
}
