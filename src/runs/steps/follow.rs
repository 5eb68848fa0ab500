//! Following the provider's job to its end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::super::cleanup;
use super::super::machine::StepContext;
use super::super::progress;
use super::super::trainings::{self, Training};
use super::super::transition::Transition;
use super::{seconds, settle_time, trials};
use crate::halt;
use crate::jobs::JobError;
use crate::trainers::{
    self, AnyTrainer, Checkpoint, JobStatus, ProviderJob, Trainer, TrainerError, TrainingEvent,
};

/// What each look that finds nothing new adds to the time until the next one.
const GROWTH: f64 = 1.5;

pub(super) async fn follow(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
    job_id: &str,
) -> Result<Transition, JobError> {
    let mut job = trainer.poll(job_id).await?;
    halt::point("train", "polled");
    let limit = seconds(context.config.training.time_limit_seconds);
    let too_long = !job.status.is_terminal() && worked(context, training, &job) > limit;
    if too_long {
        job = trainer.cancel(job_id).await?;
    }
    let report = Report::read(context, training, trainer, &job).await?;

    let mut tx = context.begin().await?;
    let changed =
        training.provider_status.as_deref() != Some(job.status.as_str()) || !report.events.is_empty();
    trainings::set_job(&mut tx, training.id, &job).await?;
    trainings::note_look(&mut tx, training.id, &job.status, changed).await?;
    progress::keep_events(&mut tx, training.id, &report.events).await?;
    progress::keep_checkpoints(&mut tx, training.id, &report.checkpoints).await?;
    let data = json!({
        "job_id": job.id, "status": job.status.as_str(), "trained_tokens": job.trained_tokens,
        "step": report.point().map(|(step, _)| step), "loss": report.point().map(|(_, loss)| loss),
    });
    let words = report.words();
    let transition = match (&job.status, &job.fine_tuned_model) {
        (JobStatus::Succeeded, Some(model)) if report.unread.is_some() && settles(context, &job) => {
            let reason = format!("{job_id} made {model}{words}");
            Transition::wait(tx, seconds(context.config.training.poll_seconds), "training", reason)
        }
        (JobStatus::Succeeded, Some(model)) => {
            if report.unread.is_some() {
                // Its losses and checkpoints may still come to be known, and the run does not end for want of them.
                trainings::owe_reports(&mut tx, training.id, true).await?;
                cleanup::enqueue(&mut tx, context.run).await?;
            }
            trials::ended(context, tx, format!("{job_id} made {model}{words}")).await?
        }
        (JobStatus::Succeeded, None) => missing_model(context, tx, &job).await?,
        _ if too_long => {
            let reason = format!("{job_id} took longer than {} s and was cancelled", limit.as_secs());
            trials::failed(context, tx, "training_time_limit".into(), reason).await?
        }
        (JobStatus::Failed, _) => {
            let (code, reason) = failure(&job);
            trials::failed(context, tx, code, reason).await?
        }
        (JobStatus::Cancelled, _) => {
            let reason = format!("{job_id} was cancelled at the provider; retry to train again");
            trials::failed(context, tx, "training_cancelled".into(), reason).await?
        }
        (JobStatus::Paused, _) => {
            let reason = format!(
                "{job_id} is paused at the provider; it goes on when the provider or a person resumes it"
            );
            Transition::wait(tx, until_next_look(context, training, changed), "training_paused", reason)
        }
        (status, _) => {
            let reason = format!("{job_id} is {status}{words}");
            Transition::wait(tx, until_next_look(context, training, changed), "training", reason)
        }
    };
    Ok(transition.with(data))
}

/// How long the provider has had the job, without the time in which it was paused.
fn worked(context: &StepContext<'_>, training: &Training, job: &ProviderJob) -> Duration {
    let since = |time: DateTime<Utc>| (context.now - time).to_std().unwrap_or_default();
    let paused = seconds(training.paused_seconds) + training.paused_since.map(since).unwrap_or_default();
    since(job.created_at).saturating_sub(paused)
}

/// The time between two looks grows while nothing changes, and differs by a fifth either way, so that many runs
/// do not ask at the same moment.
fn until_next_look(context: &StepContext<'_>, training: &Training, changed: bool) -> Duration {
    let settings = &context.config.training;
    let unchanged = if changed { 0 } else { training.unchanged_looks + 1 };
    let grown = settings.poll_seconds * GROWTH.powi(unchanged.min(100));
    let longest = settings.maximum_poll_seconds.max(settings.poll_seconds);
    seconds(grown.min(longest) * (0.8 + 0.4 * context.services.clock.fraction()))
}

/// Whether what belongs to a job that has ended may be told a moment later.
fn settles(context: &StepContext<'_>, job: &ProviderJob) -> bool {
    context.now < job.finished_at.unwrap_or(job.created_at) + settle_time(context)
}

/// A model may be told a moment after the job's end, but not for ever.
async fn missing_model(
    context: &StepContext<'_>,
    tx: Transaction<'static, Postgres>,
    job: &ProviderJob,
) -> Result<Transition, JobError> {
    if settles(context, job) {
        let reason = format!("{} has succeeded and does not name its model yet", job.id);
        return Ok(Transition::wait(tx, seconds(context.config.training.poll_seconds), "training", reason));
    }
    let reason =
        format!("{} has succeeded without naming a model; ask the provider, then retry the run", job.id);
    trials::failed(context, tx, "model_missing".into(), reason).await
}

fn failure(job: &ProviderJob) -> (String, String) {
    let failure = job.error.as_ref();
    let code = failure.map_or("training_failed", |failure| failure.reason.as_str());
    let code = if code == "rejected" { "training_failed" } else { code };
    let words = failure.and_then(|failure| failure.message.as_deref()).unwrap_or("no reason given");
    (code.to_owned(), format!("the provider failed {}: {words}", job.id))
}

/// What the provider reported since the last look.
struct Report {
    events: Vec<TrainingEvent>,
    checkpoints: Vec<Checkpoint>,
    /// Why some of it could not be read at this look.
    unread: Option<String>,
}

impl Report {
    async fn read(
        context: &StepContext<'_>,
        training: &Training,
        trainer: &AnyTrainer,
        job: &ProviderJob,
    ) -> Result<Self, JobError> {
        let newest = progress::newest_event(&context.services.db, training.id).await?;
        let mut unread = None;
        let events = offered(trainer.events(&job.id, newest.as_deref()).await, &mut unread);
        let checkpoints = match job.status {
            JobStatus::Succeeded => offered(trainer.checkpoints(&job.id).await, &mut unread),
            _ => Vec::new(),
        };
        Ok(Self { events, checkpoints, unread })
    }

    /// The last step with a training loss.
    fn point(&self) -> Option<(i64, f64)> {
        let measured = self.events.iter().filter_map(|event| event.metrics);
        measured.filter_map(|metrics| Some((metrics.step, metrics.train_loss?))).max_by_key(|(step, _)| *step)
    }

    fn words(&self) -> String {
        let point = self.point().map(|(step, loss)| format!(", step {step}, loss {loss:.3}"));
        let unread = self.unread.as_ref().map(|why| format!("; its reports could not be read: {why}"));
        point.into_iter().chain(unread).collect()
    }
}

/// Services that speak the protocol need not have every list of it, and no training ends for want of a curve: what cannot be
/// read now is noted, and read later.
fn offered<T>(answer: trainers::Result<Vec<T>>, unread: &mut Option<String>) -> Vec<T> {
    match answer {
        Ok(list) => return list,
        Err(error @ TrainerError::Rejected { .. }) => {
            tracing::warn!(%error, "the provider does not report on its job");
        }
        Err(error @ TrainerError::Retryable { .. }) => {
            tracing::warn!(%error, "the provider's reports are to be read later");
            unread.get_or_insert(error.to_string());
        }
    }
    Vec::new()
}
