//! Train: one job at the provider, created once and followed to its end.

use serde_json::json;

use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::super::{RunStatus, Step};
use super::{broken, once, seconds, training_of};
use crate::halt;
use crate::jobs::JobError;
use crate::trainers::{
    AnyTrainer, FileId, Hyperparameters, JobStatus, ProviderJob, Trainer, TrainingMetrics, TrainingRequest,
};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let training = training_of(context).await?;
    let trainer = context.services.trainers.get(&training.provider)?;
    match &training.provider_job_id {
        Some(job) => follow(context, &training, trainer, job).await,
        None => start(context, &training, trainer).await,
    }
}

/// Adopts the job that an earlier attempt created, or creates it.
async fn start(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
) -> Result<Transition, JobError> {
    // Also where the last create was refused: an earlier one may have come through.
    if training.creates > 0
        && let Some(job) = trainer.find_jobs(training.id).await?.into_iter().next()
    {
        return adopt(context, training, &job, "found the job that was created before").await;
    }
    if let Some(instead) = once::hold_back(context, training, Call::Create).await? {
        return Ok(instead);
    }
    let request = request(context, training)?;
    once::announce(context, training, Call::Create).await?;
    halt::point("train", "creating");
    context.lease.check_deadline()?;
    let answer = trainer.create(&request).await;
    halt::point("train", "created");
    match answer {
        Ok(job) => adopt(context, training, &job, "the provider accepted the job").await,
        Err(error) => Err(once::failed(context, training, Call::Create, error).await?),
    }
}

fn request(context: &StepContext<'_>, training: &Training) -> Result<TrainingRequest, JobError> {
    let settings = &context.config.training;
    Ok(TrainingRequest {
        training_id: training.id,
        run_id: context.run.id,
        base_model: training.base_model.clone(),
        training_file: FileId::new(
            training.provider_file_id.clone().ok_or_else(|| broken("its uploaded file"))?,
        ),
        validation_file: training.validation_file_id.clone().map(FileId::new),
        suffix: settings.suffix.clone(),
        hyperparameters: Hyperparameters {
            n_epochs: settings.n_epochs,
            batch_size: settings.batch_size,
            learning_rate_multiplier: settings.learning_rate_multiplier,
            beta: settings.beta,
        },
        seed: settings.seed.map(i64::from),
        method: settings.method,
        training_type: settings.training_type.clone(),
        integrations: settings.integrations.clone(),
    })
}

async fn adopt(
    context: &StepContext<'_>,
    training: &Training,
    job: &ProviderJob,
    how: &str,
) -> Result<Transition, JobError> {
    let mut tx = context.begin().await?;
    trainings::set_job(&mut tx, training.id, job).await?;
    let wait = seconds(context.config.training.poll_seconds);
    Ok(Transition::wait(tx, wait, "training", format!("{how}: {} is {}", job.id, job.status))
        .with(json!({"job_id": job.id, "status": job.status.as_str()})))
}

async fn follow(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
    job_id: &str,
) -> Result<Transition, JobError> {
    if training.creates > 1 {
        cancel_duplicates(context, training, trainer, job_id).await?;
    }
    let job = trainer.poll(job_id).await?;
    halt::point("train", "polled");
    let limit = seconds(context.config.training.time_limit_seconds);
    let age = (context.now - job.created_at).to_std().unwrap_or_default();
    if !job.status.is_terminal() && age > limit {
        let job = trainer.cancel(job_id).await?;
        let mut tx = context.begin().await?;
        trainings::set_job(&mut tx, training.id, &job).await?;
        let reason = format!("{job_id} took longer than {} s and was cancelled", limit.as_secs());
        return Ok(Transition::finish(tx, RunStatus::Failed, "training_time_limit", reason));
    }
    let latest = match job.status {
        JobStatus::Running | JobStatus::Succeeded => latest_metrics(trainer, job_id).await?,
        _ => None,
    };
    let mut tx = context.begin().await?;
    trainings::set_job(&mut tx, training.id, &job).await?;
    if let Some(loss) = latest.and_then(|metrics| metrics.train_loss) {
        trainings::set_loss(&mut tx, training.id, loss).await?;
    }
    let data = json!({
        "job_id": job.id, "status": job.status.as_str(), "trained_tokens": job.trained_tokens,
        "step": latest.map(|metrics| metrics.step), "loss": latest.and_then(|metrics| metrics.train_loss),
    });
    Ok(match (&job.status, &job.fine_tuned_model) {
        (JobStatus::Succeeded, Some(model)) => {
            Transition::next(tx, Step::Register, format!("{job_id} made {model}{}", progress(latest)))
        }
        (JobStatus::Failed, _) => {
            let failure = job.error.as_ref();
            let code = failure.map_or("training_failed", |failure| failure.reason.as_str());
            let code = if code == "rejected" { "training_failed" } else { code };
            let words = failure.and_then(|failure| failure.message.as_deref()).unwrap_or("no reason given");
            Transition::finish(tx, RunStatus::Failed, code, format!("the provider failed {job_id}: {words}"))
        }
        (JobStatus::Cancelled, _) => {
            let reason = format!("{job_id} was cancelled at the provider; retry to train again");
            Transition::finish(tx, RunStatus::Failed, "training_cancelled", reason)
        }
        (status, _) => {
            let reason = format!("{job_id} is {status}{}", progress(latest));
            Transition::wait(tx, seconds(context.config.training.poll_seconds), "training", reason)
        }
    }
    .with(data))
}

fn progress(latest: Option<TrainingMetrics>) -> String {
    match latest {
        Some(TrainingMetrics { step, train_loss: Some(loss), .. }) => {
            format!(", step {step}, loss {loss:.3}")
        }
        _ => String::new(),
    }
}

async fn latest_metrics(trainer: &AnyTrainer, job_id: &str) -> Result<Option<TrainingMetrics>, JobError> {
    let events = trainer.events(job_id, None).await?;
    let measured = events.into_iter().filter_map(|event| event.metrics);
    Ok(measured.filter(|metrics| metrics.train_loss.is_some()).max_by_key(|metrics| metrics.step))
}

/// A create that was never answered was sent again, and now both jobs are there: the other is cancelled.
async fn cancel_duplicates(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
    keep: &str,
) -> Result<(), JobError> {
    for job in trainer.find_jobs(training.id).await? {
        if job.id == keep || job.status.is_terminal() {
            continue;
        }
        tracing::warn!(duplicate = job.id, kept = keep, "cancelling a duplicate training");
        trainer.cancel(&job.id).await?;
        let mut tx = context.fenced().await?;
        trainings::add_duplicates(&mut tx, training.id, 1).await?;
        tx.commit().await?;
        context.services.metrics.duplicate_training(&training.provider);
    }
    Ok(())
}
