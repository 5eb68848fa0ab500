//! From recorded outcomes to the evidence of a decision: sums per epoch, arm and cluster.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Experiment;
use super::decision::{Evidence, HarmLook, Metric, look_for_harm};
use super::sums::{cells, units};

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
