//! What people ask of runs: recorded on the run and carried out by its job; retries start the job anew.

use serde_json::{Value, json};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use super::transition::{enter_step, event};
use super::{JOB_KIND, Place, Request, Run, RunStatus, Step, places, steps, store, trainings};
use crate::audit::{self, AuditEvent, By};
use crate::experiments;
use crate::jobs;
use crate::models::{self, VersionStatus};
use crate::traffic;

/// Why a request was refused. Nothing was changed.
#[derive(Debug, Error)]
pub enum RequestError {
    /// There is no such run.
    #[error("there is no run {0}")]
    Unknown(Uuid),
    /// The run has ended.
    #[error("the run has ended: it is {0}")]
    Finished(RunStatus),
    /// Its model is live already.
    #[error("the run's model was promoted already; roll the pipeline back instead")]
    Promoted,
    /// It does not wait for a person.
    #[error("the run is {0}; only a run that is waiting_approval can be approved or rejected")]
    NotWaiting(RunStatus),
    /// Its test was inconclusive, and no reason was given for promoting its model all the same.
    #[error("must say why: the test was inconclusive, and the promotion will be marked as forced")]
    ReasonNeeded,
    /// Something else was asked before and is about to be carried out.
    #[error("the run has a request to {} already", .0.as_str())]
    Requested(Request),
    /// Only failed runs can be retried.
    #[error("the run is {0}; only a failed run can be retried")]
    NotFailed(RunStatus),
    /// Its evidence is no longer about what is live.
    #[error("another version went live since the run's test; trigger a new run")]
    Overtaken,
    /// Another run is in the place that this one needs.
    #[error("run {0} of this pipeline is in the way; wait for it, or cancel it")]
    RunActive(Uuid),
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Holds a run until the transaction ends, and its pipeline before it, and reads the run as it is.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Run, RequestError> {
    let unlocked = reread(conn, id).await?;
    traffic::lock(conn, &unlocked.pipeline).await?;
    sqlx::query!("SELECT id FROM runs WHERE id = $1 FOR UPDATE", id).fetch_one(&mut *conn).await?;
    reread(conn, id).await
}

/// Records a request on a run and wakes its job. The caller has locked the run. The run's version grows: a step
/// that is at work and does not know of the request is void.
pub async fn request(
    conn: &mut PgConnection,
    run: Run,
    request: Request,
    reason: Option<&str>,
    by: &By,
) -> Result<Run, RequestError> {
    let id = run.id;
    if run.status.finished() {
        return Err(RequestError::Finished(run.status));
    }
    match request {
        Request::Cancel if run.step == Step::Watch => return Err(RequestError::Promoted),
        Request::Approve | Request::Reject if run.status != RunStatus::WaitingApproval => {
            return Err(RequestError::NotWaiting(run.status));
        }
        Request::Approve if run.step == Step::Decide && reason.is_none() => {
            return Err(RequestError::ReasonNeeded);
        }
        _ => {}
    }
    match run.request {
        Some(earlier) if earlier == request => return Ok(run),
        Some(earlier) => return Err(RequestError::Requested(earlier)),
        None => {}
    }
    sqlx::query!(
        "UPDATE runs SET request = $2, request_actor = $3, request_reason = $4, version = version + 1 WHERE id = $1",
        id,
        request as Request,
        by.actor.to_string(),
        reason,
    )
    .execute(&mut *conn)
    .await?;
    let message = match reason {
        Some(reason) => format!("{} asked to {} the run: {reason}", by.actor, request.as_str()),
        None => format!("{} asked to {} the run", by.actor, request.as_str()),
    };
    event(conn, &run, run.step, "requested", &message, &json!({"request": request})).await?;
    let after = json!({"request": request});
    record(conn, &run, &format!("run.{}", request.as_str()), after, reason, by).await?;
    jobs::wake(conn, JOB_KIND, &id.to_string()).await?;
    reread(conn, id).await
}

/// Starts a failed run again at the step where it failed. Where the training can no longer lead to a model, the run goes
/// back to preflight: what is trained again is priced, held against the budget, and named anew; with `force` the budget is
/// the operator's affair. The caller has locked the run.
pub async fn retry(
    conn: &mut PgConnection,
    run: Run,
    force: bool,
    reason: Option<&str>,
    by: &By,
) -> Result<Run, RequestError> {
    let id = run.id;
    if run.status != RunStatus::Failed {
        return Err(RequestError::NotFailed(run.status));
    }
    let (step, place) = match run.step {
        Step::Promote | Step::Watch => (run.step, Place::Proving),
        // The test that failed was ended: the candidate is tested anew.
        Step::Test | Step::Decide => (Step::Test, Place::Building),
        building => (building, Place::Building),
    };
    if let Some(other) = places::in_place(conn, &run.pipeline, place).await? {
        return Err(RequestError::RunActive(other.id));
    }
    if overtaken(conn, &run, step).await? {
        return Err(RequestError::Overtaken);
    }
    let step = resumed_at(conn, &run, step).await?;
    let pays_again = step == Step::Preflight && run.step != Step::Preflight;
    // As if a person had approved what preflight is about to report.
    let forced = (force && step == Step::Preflight).then_some(Request::Approve);
    sqlx::query!(
        "UPDATE runs SET status = 'running', step = $2, place = $3, reason_code = NULL, reason = NULL,
                finished_at = NULL, version = version + 1,
                experiment_id = CASE WHEN $2 = 'test' THEN NULL ELSE experiment_id END,
                preflight = CASE WHEN $4 THEN NULL ELSE preflight END,
                request = $5, request_actor = CASE WHEN $5::text IS NOT NULL THEN $6 END,
                request_reason = CASE WHEN $5::text IS NOT NULL THEN $7 END
          WHERE id = $1",
        id,
        step as Step,
        place as Place,
        pays_again,
        forced as Option<Request>,
        by.actor.to_string(),
        reason,
    )
    .execute(&mut *conn)
    .await?;
    // A watch that failed is watched anew for its whole time.
    enter_step(conn, &run, step).await?;
    let message = format!("{} asked to retry the run at {step}", by.actor);
    event(conn, &run, step, "requested", &message, &json!({"request": "retry"})).await?;
    let after = json!({"status": RunStatus::Running, "step": step});
    record(conn, &run, "run.retry", after, reason, by).await?;
    // A worker may still hold the run's job, having found that there was nothing left to do.
    jobs::wake(conn, JOB_KIND, &id.to_string()).await?;
    reread(conn, id).await
}

/// Whether the pipeline has moved on, so that the step would act on a version that it was not about.
async fn overtaken(conn: &mut PgConnection, run: &Run, step: Step) -> sqlx::Result<bool> {
    if step < Step::Test {
        return Ok(false);
    }
    if step == Step::Test {
        let Some(id) = run.model_version_id else { return Ok(false) };
        let version = models::by_id(conn, id).await?;
        return Ok(version.is_none_or(|version| version.status != VersionStatus::Candidate));
    }
    let Some(id) = run.experiment_id else { return Ok(false) };
    let Some(experiment) = experiments::by_id(&mut *conn, id).await? else { return Ok(true) };
    let expected = if step == Step::Watch { experiment.candidate_id } else { experiment.baseline_id };
    let live = traffic::current(conn, &run.pipeline).await?;
    Ok(live.is_none_or(|live| live.live_version_id != expected))
}

/// Where a run that failed in this step goes on: at preflight, where its training can no longer lead to a model.
async fn resumed_at(conn: &mut PgConnection, run: &Run, step: Step) -> sqlx::Result<Step> {
    let Some(id) = run.training_id.filter(|_| matches!(step, Step::Upload | Step::Train)) else {
        return Ok(step);
    };
    if run.reason_code.as_deref() == Some("job_not_found") {
        trainings::give_up(conn, id).await?;
    }
    let Some(training) = trainings::by_id(&mut *conn, id).await? else { return Ok(step) };
    if training.is_spent() {
        return Ok(Step::Preflight);
    }
    trainings::allow_another_call(conn, id, steps::once::MAX_UNANSWERED).await?;
    Ok(step)
}

async fn reread(conn: &mut PgConnection, id: Uuid) -> Result<Run, RequestError> {
    store::by_id(conn, id).await?.ok_or(RequestError::Unknown(id))
}

async fn record(
    conn: &mut PgConnection,
    run: &Run,
    action: &str,
    after: Value,
    reason: Option<&str>,
    by: &By,
) -> sqlx::Result<()> {
    let event = AuditEvent {
        pipeline: Some(&run.pipeline),
        before: Some(json!({"status": run.status, "step": run.step, "request": run.request})),
        after: Some(after),
        reason,
        ..by.event(action, ("run", run.id))
    };
    audit::record(conn, event).await
}
