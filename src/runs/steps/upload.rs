//! Upload: the dataset goes to the provider, each of its files once.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde_json::json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::{once, training_of};
use crate::dataset::DatasetError;
use crate::halt;
use crate::jobs::JobError;
use crate::trainers::{AnyTrainer, FileId, Trainer, TrainingFile};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let training = training_of(context).await?;
    let (call, digest, sent) = match &training.validation_digest {
        // The training file is there: the one set aside follows.
        Some(validation) if training.provider_file_id.is_some() => {
            (Call::UploadValidation, validation, training.validation_uploads)
        }
        _ => (Call::Upload, &training.dataset_digest, training.uploads),
    };
    let trainer = context.services.trainers.get(&training.provider)?;
    let (size, stored) = context.services.datasets.stream(digest).await?;
    let file = TrainingFile { name: training.file_name(call), bytes: size, content: whole_or_broken(stored) };

    // Also where the last upload was refused: an earlier one may have come through.
    if sent > 0
        && let Some(found) = trainer.find_file(&file.name, size).await?
    {
        return adopt(context, &training, call, &found, size, "found the file that was uploaded before")
            .await;
    }
    if sent == 0
        && let Some(earlier) = trainings::with_same_file(&context.services.db, &training, call).await?
        && let Some(found) = trainer.find_file(&earlier, size).await?
    {
        return adopt(context, &training, call, &found, size, "found the file of an earlier training").await;
    }
    if let Some(instead) = once::hold_back(context, &training, call).await? {
        return Ok(instead);
    }
    let uploaded = send(context, &training, call, trainer, file).await?;
    adopt(context, &training, call, &uploaded, size, "uploaded the dataset").await
}

async fn send(
    context: &StepContext<'_>,
    training: &Training,
    call: Call,
    trainer: &AnyTrainer,
    file: TrainingFile,
) -> Result<FileId, JobError> {
    once::announce(context, training, call).await?;
    halt::point("upload", "sending");
    context.lease.check_deadline()?;
    // A large file takes longer than a lease.
    let answer = context.lease.keep(&context.services.db, trainer.upload(file)).await?;
    halt::point("upload", "sent");
    match answer {
        Ok(file) => Ok(file),
        Err(error) => Err(once::failed(context, training, call, error).await?),
    }
}

async fn adopt(
    context: &StepContext<'_>,
    training: &Training,
    call: Call,
    file: &FileId,
    size: u64,
    how: &str,
) -> Result<Transition, JobError> {
    let mut tx = context.begin().await?;
    trainings::set_file(&mut tx, training.id, call, file.as_str()).await?;
    let data = json!({"file_id": file.as_str(), "bytes": size});
    let note = format!("{how}: {size} bytes as {file}");
    if call == Call::Upload && training.validation_digest.is_some() {
        let reason = format!("{note}; the validation file follows");
        return Ok(Transition::wait(tx, Duration::ZERO, "uploading", reason).with(data));
    }
    Ok(Transition::next(tx, Step::Train, note).with(data))
}

/// Holds each piece back until the next has come, or the end, which tells whether the bytes are those of the digest: of a
/// dataset that was altered the last piece is never sent, so that the provider does not take it for a file.
fn whole_or_broken(
    content: BoxStream<'static, Result<Bytes, DatasetError>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    let pieces = content.map(|piece| piece.map_err(io::Error::other));
    stream::try_unfold((pieces, None), |(mut pieces, mut held)| async move {
        loop {
            let next = pieces.try_next().await?;
            let ended = next.is_none();
            match (std::mem::replace(&mut held, next), ended) {
                (Some(piece), _) => return Ok(Some((piece, (pieces, held)))),
                (None, false) => {}
                (None, true) => return Ok(None),
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(pieces: Vec<Result<Bytes, DatasetError>>) -> (Vec<Bytes>, bool) {
        let mut stream = whole_or_broken(stream::iter(pieces).boxed());
        let mut sent = Vec::new();
        loop {
            match stream.next().await {
                Some(Ok(piece)) => sent.push(piece),
                Some(Err(_)) => return (sent, false),
                None => return (sent, true),
            }
        }
    }

    #[tokio::test]
    async fn the_last_piece_is_sent_only_of_what_is_whole() {
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        assert_eq!(sent(vec![piece("a"), piece("b")]).await, (vec!["a".into(), "b".into()], true));
        assert_eq!(sent(vec![]).await, (vec![], true));
        let altered = Err(DatasetError::Altered("digest".into()));
        assert_eq!(sent(vec![piece("a"), piece("b"), altered]).await, (vec!["a".into()], false));
    }
}
