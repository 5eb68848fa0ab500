//! A run gives way because a model of its test is gone at the provider.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::transition::Verdict;
use super::{JOB_KIND, RunStatus, Step, finish, places, wind_down};
use crate::audit::By;
use crate::experiments;
use crate::jobs;
use crate::models::VersionStatus;

/// Which model is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The live version's: the caller moves the traffic.
    Live,
    /// The one under test: its traffic goes back to the live version here.
    Candidate,
}

/// Takes the proving place from its run because a model is gone. A test ends without a decision, and so does the watch of a
/// model that is lost; what the run built stays.
///
/// Returns the run that gave way. The caller holds the pipeline's lock.
pub async fn yield_to_loss(
    conn: &mut PgConnection,
    pipeline: &str,
    loss: Loss,
    reason: &str,
    by: &By,
) -> sqlx::Result<Option<Uuid>> {
    let Some(run) = places::proving(conn, pipeline).await? else { return Ok(None) };
    let status = match loss {
        Loss::Candidate if run.step == Step::Watch => return Ok(None),
        Loss::Candidate => RunStatus::Failed,
        Loss::Live if run.step == Step::Watch => RunStatus::RolledBack,
        Loss::Live => RunStatus::Cancelled,
    };
    match loss {
        Loss::Candidate => {
            wind_down::end_test(conn, &run, VersionStatus::Candidate, reason, by).await?;
        }
        Loss::Live => {
            if let Some(experiment) = run.experiment_id {
                experiments::abort(conn, experiment, reason, by).await?;
            }
        }
    }
    let what = if run.step == Step::Watch { "the watch" } else { "the test" };
    let verdict = Verdict {
        status,
        code: "model_unavailable".into(),
        reason: format!("{what} ended because {reason}"),
    };
    finish::finish(conn, &run, &verdict, &json!({}), by).await?;
    // Its job finds the run finished and ends.
    jobs::wake(conn, JOB_KIND, &run.id.to_string()).await?;
    Ok(Some(run.id))
}
