//! Upload: the dataset goes to the provider, once.

use serde_json::json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::{MAX_UNANSWERED, seconds, settle_time, training_of, until};
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
    if let Some(sent_at) = training.upload_sent_at {
        let settled_at = sent_at + settle_time(context);
        if context.now < settled_at {
            let wait = until(context.now, settled_at).min(seconds(context.config.training.poll_seconds));
            let reason = format!(
                "an upload was not answered; looking for its file until {} before sending it again",
                settled_at.format("%H:%M:%S UTC")
            );
            return Ok(Transition::wait(context.begin().await?, wait, "upload_unanswered", reason));
        }
        if training.uploads >= MAX_UNANSWERED {
            return Err(JobError::Fatal {
                code: "upload_unanswered".into(),
                message: format!(
                    "{MAX_UNANSWERED} uploads were sent and none was answered; check the provider, then retry"
                ),
            });
        }
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
    let mut tx = context.fenced().await?;
    trainings::mark_sent(&mut tx, training.id, Call::Upload).await?;
    tx.commit().await?;
    halt::point("upload", "sending");
    context.lease.check_deadline()?;
    // A large file takes longer than a lease.
    let answer = context.lease.keep(&context.services.db, trainer.upload(file)).await?;
    halt::point("upload", "sent");
    match answer {
        Ok(file) => Ok(file),
        Err(error) => {
            if !error.is_ambiguous() {
                let mut tx = context.fenced().await?;
                trainings::mark_refused(&mut tx, training.id, Call::Upload).await?;
                tx.commit().await?;
            }
            Err(error.into())
        }
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
