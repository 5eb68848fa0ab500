//! From recorded outcomes to the evidence of a decision: sums per epoch, arm and cluster.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::Experiment;
use super::decision::{Evidence, HarmReport, Metric, Observed};
use super::sums::{cells, units};

/// The part of an experiment's life that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ExperimentPhase)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Phase {
    /// From the start of the test to its decision.
    Test,
    /// From the promotion on: the hold-back is the concurrent baseline.
    Watch,
}

/// The evidence of the test at `now`: every metric that its rules look at.
pub async fn evidence(
    conn: &mut PgConnection,
    experiment: &Experiment,
    now: DateTime<Utc>,
) -> sqlx::Result<Evidence> {
    let until = experiment.ended_at.unwrap_or(now);
    let hours = |time: DateTime<Utc>| (time - experiment.started_at).as_seconds_f64() / 3600.0;
    let extended = experiment.extended_at.is_some();
    Ok(Evidence {
        hours_elapsed: hours(until),
        horizon_hours: (!extended).then(|| hours(experiment.horizon_at)),
        horizon_reached: until >= experiment.horizon_at,
        extended,
        metrics: observed(conn, experiment, Phase::Test).await?,
        units: units(conn, experiment).await?,
        early_looks: experiment.early_looks.clone(),
    })
}

/// A look for harm in the watch, at every watched metric.
pub async fn harm_look(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<HarmReport> {
    let metrics = observed(conn, experiment, Phase::Watch).await?;
    Ok(HarmReport::of(&metrics, &experiment.rules))
}

/// What was observed of the metrics that a phase asks for.
async fn observed(
    conn: &mut PgConnection,
    experiment: &Experiment,
    phase: Phase,
) -> sqlx::Result<BTreeMap<Metric, Observed>> {
    let rules = &experiment.rules;
    let (metrics, planned) = match phase {
        Phase::Test => (rules.metrics(), &experiment.planned_errors_test),
        Phase::Watch => {
            let watched = rules.watched_metrics().into_iter().map(|(metric, _)| metric).collect();
            (watched, &experiment.planned_errors_watch)
        }
    };
    let mut observed = BTreeMap::new();
    for metric in metrics {
        let (cells, sampling) = cells(conn, experiment, metric, phase).await?;
        let planned_standard_error = planned.get(&metric).copied();
        observed.insert(metric, Observed { sampling, cells, planned_standard_error });
    }
    Ok(observed)
}
