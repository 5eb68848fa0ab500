//! What a failed request means for the operation it belonged to.

use std::borrow::Cow;

use reqwest::StatusCode;

use super::dialect::Dialect;
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
    File,
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
            Self::File => "Looking at an uploaded file",
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
            Failure::NotSent(_) | Failure::Content(_) => self.retryable(&failure, false),
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
        let message =
            format!("{} was refused ({said}); {}.", self.describe(), self.remedy(reason, refusal.dialect));
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
            (_, Some(error)) if error.is_unknown_route() => RejectReason::WrongBaseUrl,
            (Self::Model | Self::Complete, _) => RejectReason::ModelNotFound,
            (Self::Poll | Self::Cancel | Self::Events | Self::Checkpoints, _) => RejectReason::JobNotFound,
            (
                Self::Create
                | Self::Upload
                | Self::ListFiles
                | Self::ListJobs
                | Self::File
                | Self::DeleteFile,
                _,
            ) => known.unwrap_or(RejectReason::Rejected),
        }
    }

    /// What to do, at the end of a sentence.
    fn remedy(self, reason: RejectReason, dialect: Dialect) -> Cow<'static, str> {
        let (key, address) = (dialect.key_variable(), dialect.address_variable());
        let fixed = match reason {
            RejectReason::TrainingNotAvailable => {
                "ask the provider to enable fine-tuning for this account, or use another account's key"
            }
            RejectReason::InsufficientQuota => "add credit or raise the budget of the provider's account",
            RejectReason::ModelNotFound if matches!(self, Self::Model | Self::Complete) => match dialect {
                Dialect::OpenAi => "check the model's id",
                Dialect::Azure => "deploy the model at Azure under the name it is asked by",
            },
            RejectReason::ModelNotFound => "set base_model to a model that this account may fine-tune",
            RejectReason::InvalidTrainingFile => "correct the dataset and start a new run",
            RejectReason::ModerationBlocked => {
                "remove the examples that the provider's safety checks object to"
            }
            RejectReason::InvalidApiKey => return format!("set {key} to a valid key").into(),
            RejectReason::PermissionDenied => {
                return format!("give the key of {key} the right to do this").into();
            }
            RejectReason::JobNotFound => {
                let place = match dialect {
                    Dialect::OpenAi => "project",
                    Dialect::Azure => "resource",
                };
                return format!("check that {key} belongs to the {place} that made the job").into();
            }
            RejectReason::WrongBaseUrl => {
                let place = match dialect {
                    Dialect::OpenAi => "the address in front of /fine_tuning/jobs",
                    Dialect::Azure => "the address of the resource, in front of /openai/v1",
                };
                return format!("set {address} to {place}").into();
            }
            RejectReason::UnknownTrainer | RejectReason::TrainerNotConfigured | RejectReason::Rejected => {
                "correct the pipeline's configuration as the answer says"
            }
        };
        fixed.into()
    }
}

impl Refusal {
    /// The protocol's answer that what was asked for does not exist, rather than the address itself.
    pub(super) fn is_unknown_object(&self) -> bool {
        let unknown = |error: &ErrorObject| !error.is_unknown_route();
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
    /// The protocol's error for an address that it does not have; OpenAI and Azure each have their words for it.
    fn is_unknown_route(&self) -> bool {
        self.message.starts_with("Invalid URL")
            || (self.code == "404" && self.message == "Resource not found")
    }
}
