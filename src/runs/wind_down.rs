//! Ending a run's test or watch before its time.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::transition::Verdict;
use super::{JOB_KIND, Run, RunStatus, Step, finish, places};
use crate::audit::By;
use crate::experiments;
use crate::jobs;
use crate::models::VersionStatus;
use crate::traffic::{self, TestArms, TrafficError};

/// Ends the run's test unless its version was promoted: traffic goes back to the baseline, the candidate gets
/// `status`. A test that was decided still has its traffic until the promotion. The caller holds the
/// pipeline's lock.
pub(super) async fn end_test(
    conn: &mut PgConnection,
    run: &Run,
    status: VersionStatus,
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    let Some(id) = run.experiment_id else { return Ok(()) };
    let Some(experiment) = experiments::by_id(&mut *conn, id).await? else { return Ok(()) };
    experiments::abort(conn, id, reason, by).await?;
    let in_force = traffic::current(conn, &run.pipeline).await?;
    let on_test = in_force.is_some_and(|revision| {
        revision.experiment_id == Some(id) && revision.live_version_id == experiment.baseline_id
    });
    if !on_test {
        return Ok(());
    }
    let arms =
        TestArms { experiment_id: id, baseline: experiment.baseline_id, candidate: experiment.candidate_id };
    match traffic::end_test(conn, &run.pipeline, arms, status, None, reason, by).await {
        Ok(_) => Ok(()),
        Err(TrafficError::Database(error)) => Err(error),
        Err(other) => Err(sqlx::Error::Protocol(other.to_string())),
    }
}

/// Takes the proving place from its run because an operator moves the live version: a rollback or a promotion
/// is never blocked by a run. Its test is aborted, or its watch ends; what it built stays. With `harmful`, a
/// run whose promoted version is taken back becomes `rolled_back`.
///
/// Returns the run that gave way. The caller holds the pipeline's lock and moves the traffic afterwards.
pub async fn yield_to_operator(
    conn: &mut PgConnection,
    pipeline: &str,
    harmful: bool,
    reason: &str,
    by: &By,
) -> sqlx::Result<Option<Uuid>> {
    let Some(run) = places::proving(conn, pipeline).await? else { return Ok(None) };
    let verdict = match (run.step, harmful) {
        (Step::Watch, true) => Verdict {
            status: RunStatus::RolledBack,
            code: "rolled_back_by_operator".into(),
            reason: format!("an operator rolled the version back: {reason}"),
        },
        (Step::Watch, false) => Verdict {
            status: RunStatus::Succeeded,
            code: "watch_superseded".into(),
            reason: format!("the watch ended because an operator promoted another version: {reason}"),
        },
        _ => Verdict {
            status: RunStatus::Cancelled,
            code: "test_aborted".into(),
            reason: format!("the test was aborted because an operator moved the live version: {reason}"),
        },
    };
    if let Some(experiment) = run.experiment_id {
        experiments::abort(conn, experiment, &verdict.reason, by).await?;
    }
    finish::finish(conn, &run, &verdict, &json!({}), by).await?;
    jobs::wake(conn, JOB_KIND, &run.id.to_string()).await?;
    Ok(Some(run.id))
}
