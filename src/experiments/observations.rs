//! From recorded outcomes to the evidence of a decision: sums per epoch, arm and cluster.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::Experiment;
use super::decision::{Evidence, HarmReport, Metric, Observed};
use super::statistics::{Arm, Cell, Sampling};
use super::sums::{cells, sampling, units};

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

/// A look for harm in the watch, at every watched metric. With a hold-back it is compared with what serves beside it.
pub async fn harm_look(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<HarmReport> {
    let metrics = observed(conn, experiment, Phase::Watch).await?;
    Ok(HarmReport::of(&metrics, &experiment.rules))
}

/// A look for harm in a watch without a hold-back: before and after. The candidate since its promotion is compared with
/// what the test observed of the baseline.
pub async fn harm_look_before_after(
    conn: &mut PgConnection,
    experiment: &Experiment,
) -> sqlx::Result<HarmReport> {
    let before = sampling(conn, experiment, Phase::Test).await?;
    let after = sampling(conn, experiment, Phase::Watch).await?;
    let either = if before == after { before } else { Sampling::Clustered };
    let mut metrics = BTreeMap::new();
    for (metric, _) in experiment.rules.watched_metrics() {
        let mut sums = cells(conn, experiment, metric, Phase::Test, either).await?;
        sums.retain(|cell| cell.arm == Arm::Baseline);
        let after = cells(conn, experiment, metric, Phase::Watch, either).await?;
        sums.extend(after.into_iter().filter(|cell| cell.arm == Arm::Candidate));
        // No epoch has both arms, so that one is made of all.
        let cells = sums.into_iter().map(|cell| Cell { epoch: 0, ..cell }).collect();
        let planned_standard_error = experiment.planned_errors_watch.get(&metric).copied();
        metrics.insert(metric, Observed { sampling: either, cells, planned_standard_error });
    }
    Ok(HarmReport::of(&metrics, &experiment.rules).before_after())
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
    let sampling = sampling(conn, experiment, phase).await?;
    let mut observed = BTreeMap::new();
    for metric in metrics {
        let cells = cells(conn, experiment, metric, phase, sampling).await?;
        let planned_standard_error = planned.get(&metric).copied();
        observed.insert(metric, Observed { sampling, cells, planned_standard_error });
    }
    Ok(observed)
}
