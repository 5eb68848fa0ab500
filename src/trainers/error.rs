//! How a call to a provider fails: worth another try, or refused for a reason that a person has to remove.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// The result of a call to a provider.
pub type Result<T> = std::result::Result<T, TrainerError>;

/// A call to a provider that did not succeed. Never holds a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrainerError {
    /// The same call may succeed later: rate limits, connection errors, time-outs, errors of the provider's
    /// server, answers that cannot be read.
    #[error("{message}")]
    Retryable {
        /// One sentence for people.
        message: String,
        /// How long the provider asked to wait.
        retry_after: Option<Duration>,
        /// The request changes something and may have been carried out although no proper answer came:
        /// look for its effect before sending it again. Always false for calls that only read.
        ambiguous: bool,
    },
    /// The provider refused, and will again until something is changed.
    #[error("{message}")]
    Rejected {
        /// The machine-readable reason.
        reason: RejectReason,
        /// One sentence that says what to change.
        message: String,
    },
}

impl TrainerError {
    /// Whether the request may have been carried out at the provider.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Retryable { ambiguous: true, .. })
    }

    pub(super) fn rejected(reason: RejectReason, message: impl Into<String>) -> Self {
        Self::Rejected { reason, message: message.into() }
    }
}

/// Why a provider refuses, as it is stored on a run and shown by the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The account may not fine-tune.
    TrainingNotAvailable,
    /// The account's credit or budget is used up.
    InsufficientQuota,
    /// The base model does not exist or cannot be fine-tuned by this account.
    ModelNotFound,
    /// The training or validation file is missing, malformed or too large.
    InvalidTrainingFile,
    /// The provider's safety checks refused the examples or the model.
    ModerationBlocked,
    /// The key is missing, wrong or expired.
    InvalidApiKey,
    /// The key is valid but may not do this.
    PermissionDenied,
    /// There is no such job.
    JobNotFound,
    /// What answers at the base URL does not speak the protocol.
    WrongBaseUrl,
    /// The pipeline names a provider that does not exist.
    UnknownTrainer,
    /// The provider exists, but its key is not set.
    TrainerNotConfigured,
    /// Anything else; the message has the provider's words.
    Rejected,
}

impl RejectReason {
    /// The reason as a code: lower-case letters and underscores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrainingNotAvailable => "training_not_available",
            Self::InsufficientQuota => "insufficient_quota",
            Self::ModelNotFound => "model_not_found",
            Self::InvalidTrainingFile => "invalid_training_file",
            Self::ModerationBlocked => "moderation_blocked",
            Self::InvalidApiKey => "invalid_api_key",
            Self::PermissionDenied => "permission_denied",
            Self::JobNotFound => "job_not_found",
            Self::WrongBaseUrl => "wrong_base_url",
            Self::UnknownTrainer => "unknown_trainer",
            Self::TrainerNotConfigured => "trainer_not_configured",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
