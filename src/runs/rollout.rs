//! Where the rollout of a promoted version stands: during its watch its share rises in steps.
//!
//! Which step stands is what the traffic in force says, and nothing else: a worker that takes over sees it there.

use sqlx::PgConnection;

use super::Run;
use crate::experiments::{self, Experiment};
use crate::pipelines::{self, PipelineConfig};
use crate::traffic::{self, Revision, RevisionKind};

/// What follows in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollout {
    /// Nothing: there is none, or it has come to its end.
    Finished,
    /// Nothing: a person has set the split, which stays as it is.
    Left,
    /// The promoted version is to get this share.
    Next(i32),
}

/// What follows in the rollout of this experiment's candidate under the traffic in force.
pub(super) async fn next(
    conn: &mut PgConnection,
    config: &PipelineConfig,
    experiment: &Experiment,
    live: &Revision,
) -> sqlx::Result<Rollout> {
    if live.experiment_id != Some(experiment.id) || live.live_version_id != experiment.candidate_id {
        return Ok(Rollout::Finished);
    }
    let Some(weight) =
        config.deployment.above(live.split_weight(experiment.candidate_id), config.watch.hold_back_weight)
    else {
        return Ok(Rollout::Finished);
    };
    let changed = traffic::last_change(conn, &live.pipeline, experiment.id).await?;
    Ok(if changed == Some(RevisionKind::Split) { Rollout::Left } else { Rollout::Next(weight) })
}

/// Whether the version that a run watches is still being rolled out.
pub(super) async fn is_under_way(conn: &mut PgConnection, run: &Run) -> sqlx::Result<bool> {
    let Some(id) = run.experiment_id else { return Ok(false) };
    let Some(experiment) = experiments::by_id(&mut *conn, id).await? else { return Ok(false) };
    let Some(live) = traffic::current(conn, &run.pipeline).await? else { return Ok(false) };
    let config = pipelines::config_version(&mut *conn, &run.pipeline, run.config_version).await?;
    Ok(matches!(next(conn, &config, &experiment, &live).await?, Rollout::Next(_)))
}
