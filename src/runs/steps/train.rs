//! Train: one job at the provider, created once and followed to its end.

use std::time::Duration;

use serde_json::json;

use super::super::cleanup;
use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::follow::follow;
use super::{broken, once, seconds, training_of};
use crate::halt;
use crate::jobs::JobError;
use crate::trainers::{AnyTrainer, FileId, JobStatus, ProviderJob, Trainer, TrainingRequest};

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
    if training.creates > 0 {
        let found = trainer.find_jobs(training.id).await?;
        let discarded = trainings::discarded(&context.services.db, training.id).await?;
        if let Some(job) = usable(found, &discarded) {
            halt::point("train", "found");
            return adopt(context, training, &job, "found the job that was created before").await;
        }
    }
    if let Some(instead) = once::hold_back(context, training, Call::Create).await? {
        return Ok(instead);
    }
    let request = request(context, training)?;
    if let Some(instead) = unprocessed(context, training, trainer, &request).await? {
        return Ok(instead);
    }
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

/// What to do while the provider looks through a file: `None` where all can be trained on.
async fn unprocessed(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
    request: &TrainingRequest,
) -> Result<Option<Transition>, JobError> {
    for file in [Some(&request.training_file), request.validation_file.as_ref()].into_iter().flatten() {
        if trainer.is_ready(file).await? {
            continue;
        }
        let limit = seconds(context.config.training.time_limit_seconds);
        if (context.now - training.created_at).to_std().unwrap_or_default() > limit {
            let message = format!(
                "the provider did not process the file {file} within {} s; look at it there, then retry the run",
                limit.as_secs()
            );
            return Err(JobError::Fatal { code: "file_not_processed".into(), message });
        }
        let wait = seconds(context.config.training.poll_seconds);
        let reason = format!("the provider is processing the file {file}");
        return Ok(Some(Transition::wait(context.begin().await?, wait, "file_processing", reason)));
    }
    Ok(None)
}

/// The oldest job that was not cancelled, nor is about to be: a cancelled one makes no model, whoever cancelled it.
fn usable(found: Vec<ProviderJob>, discarded: &[String]) -> Option<ProviderJob> {
    found.into_iter().find(|job| job.status != JobStatus::Cancelled && !discarded.contains(&job.id))
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
        hyperparameters: training.hyperparameters.0,
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
    // The clean-up of a run that had failed discards a job while it holds the run: since the look, it may have.
    if trainings::discarded(&mut *tx, training.id).await?.contains(&job.id) {
        return Err(JobError::Superseded);
    }
    trainings::set_job(&mut tx, training.id, job).await?;
    if training.creates > 0 {
        // An earlier create may still turn out to have been carried out.
        cleanup::enqueue(&mut tx, context.run).await?;
    }
    let known = trainings::take_notice(&mut tx, &training.provider, &job.id).await?;
    let wait = if known { Duration::ZERO } else { seconds(context.config.training.poll_seconds) };
    Ok(Transition::wait(tx, wait, "training", format!("{how}: {} is {}", job.id, job.status))
        .with(json!({"job_id": job.id, "status": job.status.as_str()})))
}
