//! What goes to a provider and what comes back, free of any provider's wire format.

use std::collections::BTreeMap;
use std::{fmt, io};

use axum::body::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::RejectReason;

/// A training file to send.
pub struct TrainingFile {
    /// Its name at the provider, by which it is found again: it carries the `training_id` and the dataset's digest, and ends
    /// in `.jsonl`.
    pub name: String,
    /// How many bytes there are.
    pub bytes: u64,
    /// JSONL, one example per line, as it comes. An error in it ends the upload before its last byte.
    pub content: BoxStream<'static, io::Result<Bytes>>,
}

/// Without the content, which is people's writing.
impl fmt::Debug for TrainingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingFile")
            .field("name", &self.name)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A provider's id for an uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileId(String);

impl FileId {
    /// Takes the id as the provider gave it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as the provider gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something in a line of training data that the provider would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineFault {
    /// The field, as a JSON pointer; empty for the line itself.
    pub field: String,
    /// What is wrong, to be read after the field.
    pub message: String,
}

/// How a model learns from examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// From examples of good answers.
    #[default]
    Supervised,
    /// From pairs of a better and a worse answer to the same prompt (direct preference optimisation).
    Preference,
}

/// A training to start.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRequest {
    /// Names this paid job; [`super::Trainer::find_jobs`] finds it by this.
    pub training_id: Uuid,
    /// The run it belongs to, for people who look at the provider's list of jobs.
    pub run_id: Uuid,
    /// The model to start from.
    pub base_model: String,
    /// The uploaded examples.
    pub training_file: FileId,
    /// Uploaded examples that are held back to measure the loss on.
    pub validation_file: Option<FileId>,
    /// How it learns from them.
    pub method: Method,
    /// Becomes part of the new model's name; at most 64 characters with OpenAI.
    pub suffix: Option<String>,
    /// Left to the provider where unset.
    pub hyperparameters: Hyperparameters,
    /// Makes trainings comparable; 0 to 2,147,483,647 with OpenAI.
    pub seed: Option<i64>,
    /// Where Azure trains, such as `globalStandard`; other providers have no such choice.
    pub training_type: Option<String>,
    /// Objects of the provider's own, handed through.
    pub integrations: Vec<Value>,
}

/// Hyperparameters of a training. `None` lets the provider choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Hyperparameters {
    /// Passes over the examples.
    pub n_epochs: Option<u32>,
    /// Examples per step.
    pub batch_size: Option<u32>,
    /// Factor on the provider's learning rate.
    pub learning_rate_multiplier: Option<f64>,
    /// How closely preference training keeps to the base model.
    pub beta: Option<f64>,
}

/// A training job as the provider describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderJob {
    /// The provider's id.
    pub id: String,
    /// Where it is.
    pub status: JobStatus,
    /// The id of the new model, once there is one.
    pub fine_tuned_model: Option<String>,
    /// Tokens that are billed, once known.
    pub trained_tokens: Option<i64>,
    /// Why it failed.
    pub error: Option<ProviderFailure>,
    /// When the provider accepted it.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The file it trains on.
    pub training_file: Option<FileId>,
    /// What [`super::Trainer::create`] attached to it.
    pub metadata: BTreeMap<String, String>,
    /// The hyperparameters in use, as far as it tells them, those included that it chose by itself.
    pub hyperparameters: Hyperparameters,
    /// The seed in use, chosen by the provider when none was asked for.
    pub seed: Option<i64>,
    /// The model it starts from.
    pub base_model: Option<String>,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    /// The files are being checked.
    ValidatingFiles,
    /// Waits for its turn.
    Queued,
    /// Trains.
    Running,
    /// Held by the provider or by a person; may go on.
    Paused,
    /// Ended with a model.
    Succeeded,
    /// Ended without a model.
    Failed,
    /// Ended because someone asked for it.
    Cancelled,
    /// A status this version does not know (such as `pausing`), as the provider wrote it. Not an end.
    Unknown(String),
}

impl JobStatus {
    /// The status in the words of OpenAI's protocol, as it is stored and shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown(status) => status,
        }
    }

    /// Whether the job has ended and will not change again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl From<&str> for JobStatus {
    fn from(status: &str) -> Self {
        match status {
            "validating_files" => Self::ValidatingFiles,
            "queued" => Self::Queued,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "cancelled" | "canceled" => Self::Cancelled,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a job failed, in the provider's words and in ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFailure {
    /// The provider's code.
    pub code: Option<String>,
    /// The provider's sentence.
    pub message: Option<String>,
    /// The parameter at fault.
    pub param: Option<String>,
    /// What that means, in the same words as a refused request.
    pub reason: RejectReason,
}

/// One report of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingEvent {
    /// The provider's id, for the next call's `after`.
    pub id: String,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// `message`, `metrics`, `moderation_checks`, …, as the provider wrote it.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// The numbers of a metrics event.
    pub metrics: Option<TrainingMetrics>,
}

/// A point on the loss curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingMetrics {
    /// The training step it was measured at.
    pub step: i64,
    /// Loss on the batch that was trained on.
    pub train_loss: Option<f64>,
    /// Loss on a batch of the validation file, where there is one.
    pub valid_loss: Option<f64>,
    /// Loss on the whole validation file, measured at the end of an epoch.
    pub full_valid_loss: Option<f64>,
}

/// A model as it was at some step of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The provider's id of the checkpoint.
    pub id: String,
    /// The id under which it can be asked.
    pub model_id: String,
    /// The training step it was taken at.
    pub step: i64,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// What was measured there, as far as the provider tells.
    pub metrics: Option<TrainingMetrics>,
}

/// What a provider says of a model that it serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelState {
    /// The day on which it stops serving it, as far as it has told.
    pub shutdown_date: Option<NaiveDate>,
}

/// A question to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The model that answers.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// The longest answer, in tokens; the provider's limit where absent.
    pub maximum_tokens: Option<u32>,
    /// Whether the answer must be a JSON object.
    pub json: bool,
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// What it said; empty where it said nothing.
    pub content: String,
    /// What it said instead, where it declined to answer.
    pub refusal: Option<String>,
    /// Why it ended: `stop`, `length`, `content_filter`, …
    pub finish_reason: Option<String>,
    /// Tokens read, as billed.
    pub prompt_tokens: Option<u64>,
    /// Tokens written, as billed.
    pub completion_tokens: Option<u64>,
}
