//! Stopping a run because a person asked for it, wherever it is.

use std::time::Duration;

use serde_json::json;

use super::machine::StepContext;
use super::transition::Transition;
use super::{RunStatus, steps, trainings, wind_down};
use crate::audit::By;
use crate::halt;
use crate::jobs::JobError;
use crate::models::VersionStatus;
use crate::trainers::{JobStatus, Trainer};

/// Cancels the job at the provider, ends a running test, and finishes the run.
pub(super) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let mut refused = String::new();
    let cancelled = match cancel_training(context).await {
        Ok(Jobs::Cancelled(jobs)) => jobs,
        Ok(Jobs::MayTurnUp { after }) => {
            let reason = "a create was not answered; its job, if there is one, is cancelled when it turns up";
            return Ok(Transition::wait(context.begin().await?, after, "cancelling", reason));
        }
        // The run ends all the same, and says that its job may go on.
        Err(JobError::Fatal { message, .. }) => {
            refused = format!(". Its job at the provider could not be cancelled and may go on: {message}");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let run = context.run;
    let who = run.request_actor.as_deref().unwrap_or("somebody");
    let reason = match &run.request_reason {
        Some(reason) => format!("{who} cancelled the run: {reason}{refused}"),
        None => format!("{who} cancelled the run{refused}"),
    };
    let mut tx = context.begin_with_pipeline().await?;
    wind_down::end_test(&mut tx, run, VersionStatus::Candidate, &reason, &By::worker()).await?;
    Ok(Transition::finish(tx, RunStatus::Cancelled, "cancelled", reason)
        .with(json!({"cancelled_jobs": cancelled})))
}

/// What became of the jobs that were created for the run's training.
enum Jobs {
    /// These were cancelled, and no other can turn up.
    Cancelled(Vec<String>),
    /// A create was not answered and may still have been carried out.
    MayTurnUp { after: Duration },
}

async fn cancel_training(context: &StepContext<'_>) -> Result<Jobs, JobError> {
    let nothing = Jobs::Cancelled(Vec::new());
    let Some(id) = context.run.training_id else { return Ok(nothing) };
    let Some(training) = trainings::by_id(&context.services.db, id).await? else { return Ok(nothing) };
    if training.creates == 0 || training.fine_tuned_model.is_some() {
        return Ok(nothing);
    }
    let trainer = context.services.trainers.get(&training.provider)?;
    let found = trainer.find_jobs(id).await?;
    let mut cancelled = Vec::new();
    for job in &found {
        let mut status = job.status.clone();
        if !status.is_terminal() {
            halt::point("cancel", "sending");
            status = trainer.cancel(&job.id).await?.status;
            halt::point("cancel", "sent");
        }
        if !matches!(status, JobStatus::Succeeded | JobStatus::Failed) {
            cancelled.push(job.id.clone());
        }
    }
    // The provider's list may not tell of it yet.
    if let Some(known) = training.provider_job_id
        && !found.iter().any(|job| job.id == known)
    {
        cancelled.push(trainer.cancel(&known).await?.id);
    }
    let all_found = i32::try_from(found.len()).is_ok_and(|found| found >= training.creates);
    if let Some(sent_at) = training.create_sent_at
        && !all_found
        && context.now < sent_at + steps::settle_time(context)
    {
        return Ok(Jobs::MayTurnUp { after: steps::seconds(context.config.training.poll_seconds) });
    }
    Ok(Jobs::Cancelled(cancelled))
}
