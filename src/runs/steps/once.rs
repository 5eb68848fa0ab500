//! Calls whose effect must happen once: noted before they are sent, and not sent again while an earlier one may
//! still turn out to have been carried out.

use super::super::machine::StepContext;
use super::super::trainings::{self, Call, Training};
use super::super::transition::Transition;
use super::{seconds, settle_time, until};
use crate::jobs::JobError;
use crate::trainers::TrainerError;

/// Calls without an answer before a person is asked to look.
pub(in crate::runs) const MAX_UNANSWERED: i32 = 5;

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::UploadValidation => "upload of the validation file",
            Self::Create => "create",
        }
    }

    /// What the call leaves at the provider.
    fn effect(self) -> &'static str {
        match self {
            Self::Upload | Self::UploadValidation => "file",
            Self::Create => "job",
        }
    }

    fn unanswered(self) -> &'static str {
        match self {
            Self::Upload | Self::UploadValidation => "upload_unanswered",
            Self::Create => "create_unanswered",
        }
    }
}

/// Whether the call may be sent now: `None` that it may, else what to do instead. The caller has looked for the effect
/// of an earlier call and not found it.
pub(super) async fn hold_back(
    context: &StepContext<'_>,
    training: &Training,
    call: Call,
) -> Result<Option<Transition>, JobError> {
    let (sent_at, sent) = match call {
        Call::Upload => (training.upload_sent_at, training.uploads),
        Call::UploadValidation => (training.validation_sent_at, training.validation_uploads),
        Call::Create => (training.create_sent_at, training.creates),
    };
    let Some(sent_at) = sent_at else { return Ok(None) };
    let settled_at = sent_at + settle_time(context);
    if context.now < settled_at {
        let wait = until(context.now, settled_at).min(seconds(context.config.training.poll_seconds));
        let reason = format!(
            "the {} was not answered; looking for its {} until {} before sending it again",
            call.name(),
            call.effect(),
            settled_at.format("%H:%M:%S UTC")
        );
        return Ok(Some(Transition::wait(context.begin().await?, wait, call.unanswered(), reason)));
    }
    if sent >= MAX_UNANSWERED {
        return Err(JobError::Fatal {
            code: call.unanswered().into(),
            message: format!(
                "the {} was sent {sent} times and never answered; check the provider, then retry the run",
                call.name()
            ),
        });
    }
    Ok(None)
}

/// Notes that the call is about to be sent. Whoever comes next looks for its effect first.
pub(super) async fn announce(
    context: &StepContext<'_>,
    training: &Training,
    call: Call,
) -> Result<(), JobError> {
    let mut tx = context.fenced().await?;
    trainings::mark_sent(&mut tx, training.id, call).await?;
    Ok(tx.commit().await?)
}

/// What an error of the call means for the step. One that rules out that the call was carried out takes the note back.
pub(super) async fn failed(
    context: &StepContext<'_>,
    training: &Training,
    call: Call,
    error: TrainerError,
) -> Result<JobError, JobError> {
    if !error.is_ambiguous() {
        let mut tx = context.fenced().await?;
        trainings::mark_refused(&mut tx, training.id, call).await?;
        tx.commit().await?;
    }
    Ok(error.into())
}
