//! Upload: the dataset goes to the provider, once.

use serde_json::json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::{once, training_of};
use crate::halt;
use crate::jobs::JobError;
use crate::trainers::{AnyTrainer, FileId, Trainer, TrainingFile};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let training = training_of(context).await?;
    let trainer = context.services.trainers.get(&training.provider)?;
    let bytes = context.services.datasets.get(&training.dataset_digest).await?;
    let file = TrainingFile { name: training.file_name(), bytes };
    let size = file.bytes.len() as u64;

    // Also where the last upload was refused: an earlier one may have come through.
    if training.uploads > 0
        && let Some(found) = trainer.find_file(&file.name, size).await?
    {
        return adopt(context, &training, &found, size, "found the file that was uploaded before").await;
    }
    if let Some(instead) = once::hold_back(context, &training, Call::Upload).await? {
        return Ok(instead);
    }
    let uploaded = send(context, &training, trainer, file).await?;
    adopt(context, &training, &uploaded, size, "uploaded the dataset").await
}

async fn send(
    context: &StepContext<'_>,
    training: &Training,
    trainer: &AnyTrainer,
    file: TrainingFile,
) -> Result<FileId, JobError> {
    once::announce(context, training, Call::Upload).await?;
    halt::point("upload", "sending");
    context.lease.check_deadline()?;
    // A large file takes longer than a lease.
    let answer = context.lease.keep(&context.services.db, trainer.upload(file)).await?;
    halt::point("upload", "sent");
    match answer {
        Ok(file) => Ok(file),
        Err(error) => Err(once::failed(context, training, Call::Upload, error).await?),
    }
}

async fn adopt(
    context: &StepContext<'_>,
    training: &Training,
    file: &FileId,
    size: u64,
    how: &str,
) -> Result<Transition, JobError> {
    let mut tx = context.begin().await?;
    trainings::set_file(&mut tx, training.id, file.as_str()).await?;
    let note = format!("{how}: {size} bytes as {file}");
    Ok(Transition::next(tx, Step::Train, note).with(json!({"file_id": file.as_str(), "bytes": size})))
}
