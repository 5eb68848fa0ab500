//! SE*: the standard error that an experiment's looks are planned for, from what is known before it begins. A confidence
//! sequence is valid for any number fixed beforehand, and narrowest where the number is right.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::decision::{Metric, Rules};
use super::inputs::{DEFAULT_POWER, default_effect, history};
use super::statistics::Method;
use super::statistics::planning::{PlanInput, standard_error_after};

/// An older history says little of the traffic to come.
const HISTORY: TimeDelta = TimeDelta::days(28);
/// A history of fewer outcomes says little of how a metric varies; the first look then fixes the number.
const ENOUGH: u64 = 100;
/// Traffic that came in a burst is not believed to go on like that: no more is planned than so many times what was seen.
const MOST_AHEAD: f64 = 4.0;

/// What is planned of a test or a watch.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// The candidate's mean share of the traffic, between 0 and 1.
    pub candidate_share: f64,
    /// How long it lasts, in seconds.
    pub seconds: f64,
}

/// The standard error at the end of what is planned, for each metric that is looked at, from the pipeline's last 28 days.
/// Metrics that those days do not tell of are absent.
pub async fn planned_errors(
    conn: &mut PgConnection,
    pipeline: &str,
    rules: &Rules,
    planned: Planned,
    now: DateTime<Utc>,
) -> sqlx::Result<BTreeMap<Metric, f64>> {
    let watched = rules.watched_metrics().into_iter().map(|(metric, _)| metric);
    let metrics: BTreeSet<Metric> =
        [rules.primary].into_iter().chain(rules.success.iter().copied()).chain(watched).collect();
    let mut errors = BTreeMap::new();
    for metric in metrics {
        let known = history(&mut *conn, pipeline, metric, Some(now - HISTORY), now).await?;
        let (Some(variability), Some(outcomes_per_day)) = (known.variability, known.outcomes_per_day) else {
            continue;
        };
        if known.outcomes < ENOUGH {
            continue;
        }
        let input = PlanInput {
            variability,
            method: Method::of(rules.assignment, known.sampling),
            effect: default_effect(rules),
            alpha: rules.alpha,
            power: DEFAULT_POWER,
            candidate_share: planned.candidate_share,
            outcomes_per_day,
        };
        let expected = outcomes_per_day * planned.seconds / 86_400.0;
        let outcomes = planned.candidate_share * expected.min(MOST_AHEAD * known.outcomes as f64);
        if let Some(error) = standard_error_after(&input, outcomes) {
            errors.insert(metric, error);
        }
    }
    Ok(errors)
}
