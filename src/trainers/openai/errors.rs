//! What a failed request means for the operation it belonged to.
//!
//! Codes: OpenAI's error guide for HTTP errors, and the `error.code` of failed jobs.

use reqwest::StatusCode;

use super::http::{ErrorObject, Failure, Refusal};
use crate::trainers::{RejectReason, TrainerError};

/// What was asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Upload,
    ListFiles,
    Create,
    ListJobs,
    Poll,
    Cancel,
    Events,
    Checkpoints,
    DeleteFile,
    Complete,
    Model,
}

impl Operation {
    /// As it stands at the start of a sentence.
    fn describe(self) -> &'static str {
        match self {
            Self::Upload => "Uploading the training file",
            Self::ListFiles => "Looking for the training file",
            Self::Create => "Creating the training job",
            Self::ListJobs => "Looking for the training's jobs",
            Self::Poll => "Reading the training job",
            Self::Cancel => "Cancelling the training job",
            Self::Events => "Reading the training job's events",
            Self::Checkpoints => "Reading the training job's checkpoints",
            Self::DeleteFile => "Deleting an uploaded file",
            Self::Complete => "Asking the model",
            Self::Model => "Looking for the model",
        }
    }

    /// Whether it changes something at the provider, so that a lost answer leaves a doubt.
    fn changes_something(self) -> bool {
        matches!(self, Self::Upload | Self::Create | Self::Cancel)
    }

    /// An answer that the protocol does not allow.
    pub(super) fn malformed(self, why: impl Into<String>) -> TrainerError {
        self.error(Failure::Malformed(why.into()))
    }

    /// The failure of this operation's request.
    pub(super) fn error(self, failure: Failure) -> TrainerError {
        match failure {
            Failure::Refused(refusal) => self.refused(&refusal),
            Failure::NotSent(_) => self.retryable(&failure, false),
            Failure::Suspended(wait) => TrainerError::Retryable {
                message: format!("{} was not tried: {failure}.", self.describe()),
                retry_after: Some(wait),
                ambiguous: false,
            },
            Failure::NoAnswer(_) | Failure::Malformed(_) => {
                self.retryable(&failure, self.changes_something())
            }
        }
    }

    fn retryable(self, failure: &Failure, ambiguous: bool) -> TrainerError {
        TrainerError::Retryable {
            message: format!("{} failed: {failure}.", self.describe()),
            retry_after: None,
            ambiguous,
        }
    }

    fn refused(self, refusal: &Refusal) -> TrainerError {
        let status = refusal.status;
        let Some(reason) = self.reason(refusal) else {
            let said = refusal.said();
            return TrainerError::Retryable {
                message: format!("{} failed: the provider answered {said}.", self.describe()),
                retry_after: refusal.retry_after,
                // A rate limit refuses before anything is done; the others may come after.
                ambiguous: self.changes_something() && status != StatusCode::TOO_MANY_REQUESTS,
            };
        };
        // What OpenAI says about a bad key repeats a part of the key.
        let said = match reason {
            RejectReason::InvalidApiKey => status.to_string(),
            _ => refusal.said(),
        };
        let message = format!("{} was refused ({said}); {}.", self.describe(), self.remedy(reason));
        TrainerError::rejected(reason, message)
    }

    /// Why the request was refused for good; `None` when another try may succeed.
    fn reason(self, refusal: &Refusal) -> Option<RejectReason> {
        let status = refusal.status;
        if status.is_server_error() {
            return None;
        }
        let known = refusal.error.as_ref().and_then(ErrorObject::reason);
        match status {
            StatusCode::UNAUTHORIZED => match known {
                Some(RejectReason::TrainingNotAvailable) => known,
                _ => Some(RejectReason::InvalidApiKey),
            },
            StatusCode::PAYMENT_REQUIRED => Some(RejectReason::InsufficientQuota),
            StatusCode::FORBIDDEN => Some(known.unwrap_or(RejectReason::PermissionDenied)),
            // Another part of the provider holds a lock, or knows of an earlier attempt of ours.
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => None,
            StatusCode::TOO_MANY_REQUESTS => known.filter(|known| *known == RejectReason::InsufficientQuota),
            StatusCode::PAYLOAD_TOO_LARGE if self == Self::Upload => Some(RejectReason::InvalidTrainingFile),
            StatusCode::NOT_FOUND => Some(self.not_found(refusal, known)),
            _ if status.is_redirection() => Some(RejectReason::WrongBaseUrl),
            _ => Some(known.unwrap_or(RejectReason::Rejected)),
        }
    }

    fn not_found(self, refusal: &Refusal, known: Option<RejectReason>) -> RejectReason {
        match (self, &refusal.error) {
            // Without the protocol's error object, or with its error for unknown routes, the address is wrong.
            (_, None) => RejectReason::WrongBaseUrl,
            (_, Some(error)) if error.message.starts_with("Invalid URL") => RejectReason::WrongBaseUrl,
            (Self::Model | Self::Complete, _) => RejectReason::ModelNotFound,
            (Self::Poll | Self::Cancel | Self::Events | Self::Checkpoints, _) => RejectReason::JobNotFound,
            (Self::Create | Self::Upload | Self::ListFiles | Self::ListJobs | Self::DeleteFile, _) => {
                known.unwrap_or(RejectReason::Rejected)
            }
        }
    }

    /// What to do, at the end of a sentence.
    fn remedy(self, reason: RejectReason) -> &'static str {
        match reason {
            RejectReason::TrainingNotAvailable => {
                "ask the provider to enable fine-tuning for this account, or use another account's key"
            }
            RejectReason::InsufficientQuota => "add credit or raise the budget of the provider's account",
            RejectReason::ModelNotFound if matches!(self, Self::Model | Self::Complete) => {
                "check the model's id"
            }
            RejectReason::ModelNotFound => "set base_model to a model that this account may fine-tune",
            RejectReason::InvalidTrainingFile => "correct the dataset and start a new run",
            RejectReason::ModerationBlocked => {
                "remove the examples that the provider's safety checks object to"
            }
            RejectReason::InvalidApiKey => "set OPENAI_API_KEY to a valid key",
            RejectReason::PermissionDenied => "give the key of OPENAI_API_KEY the right to do this",
            RejectReason::JobNotFound => "check that OPENAI_API_KEY belongs to the project that made the job",
            RejectReason::WrongBaseUrl => "set OPENAI_BASE_URL to the address in front of /fine_tuning/jobs",
            RejectReason::UnknownTrainer | RejectReason::TrainerNotConfigured | RejectReason::Rejected => {
                "correct the pipeline's configuration as the answer says"
            }
        }
    }
}

impl Refusal {
    /// The protocol's answer that what was asked for does not exist, rather than the address itself.
    pub(super) fn is_unknown_object(&self) -> bool {
        let unknown = |error: &ErrorObject| !error.message.starts_with("Invalid URL");
        self.status == StatusCode::NOT_FOUND && self.error.as_ref().is_some_and(unknown)
    }

    /// The status and, where there is one, the provider's sentence.
    fn said(&self) -> String {
        match &self.error {
            Some(error) if !error.message.is_empty() => format!("{}: {}", self.status, error.message),
            _ => self.status.to_string(),
        }
    }
}

impl ErrorObject {
    /// What an error object means, wherever it stands: in an HTTP error or in a failed job.
    pub(super) fn reason(&self) -> Option<RejectReason> {
        let by_code = match self.code.as_str() {
            "training_not_available" | "fine_tuning_not_available" => RejectReason::TrainingNotAvailable,
            "insufficient_quota"
            | "exceeded_quota"
            | "quota_exceeded"
            | "billing_hard_limit_reached"
            | "billing_not_active" => RejectReason::InsufficientQuota,
            "model_not_found" | "model_not_available" | "invalid_model" => RejectReason::ModelNotFound,
            "invalid_training_file" | "invalid_validation_file" | "invalid_file" | "invalid_file_format" => {
                RejectReason::InvalidTrainingFile
            }
            "invalid_api_key" => RejectReason::InvalidApiKey,
            code if code.contains("moderation")
                || code.contains("content_policy")
                || code.contains("content_filter")
                || code.contains("safety") =>
            {
                RejectReason::ModerationBlocked
            }
            _ if self.kind == "insufficient_quota" => RejectReason::InsufficientQuota,
            _ => return self.reason_by_param(),
        };
        Some(by_code)
    }

    fn reason_by_param(&self) -> Option<RejectReason> {
        match self.param.as_str() {
            "model" => Some(RejectReason::ModelNotFound),
            "training_file" | "validation_file" | "file" => Some(RejectReason::InvalidTrainingFile),
            _ => None,
        }
    }
}
