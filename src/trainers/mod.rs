//! Providers of fine-tuning behind one small trait. They know nothing of runs, steps or the database.
//!
//! A training costs money, so what changes something is sent once: its error says whether the request may
//! have been carried out all the same ([`TrainerError::is_ambiguous`]). What only reads is sent up to three
//! times, where another try may help and the call's time limit leaves room for it. The caller looks ([`Trainer::find_file`], [`Trainer::find_jobs`]),
//! adopts what it finds, and only then sends.

mod data_rules;
mod error;
mod openai;
mod registry;
mod types;

use std::future::Future;

use uuid::Uuid;

pub use data_rules::DataRules;
pub use error::{RejectReason, Result, TrainerError};
pub use openai::{ApiKey, Dialect, OPENAI_BASE_URL, OpenAiSettings, OpenAiSettingsError, OpenAiTrainer};
pub use registry::{AnyTrainer, PROVIDERS, Trainers};
pub use types::{
    ChatMessage, Checkpoint, Completion, CompletionRequest, FileId, Hyperparameters, JobStatus, LineFault,
    Method, ModelState, ProviderFailure, ProviderJob, TrainingEvent, TrainingFile, TrainingMetrics,
    TrainingRequest,
};

/// A provider of fine-tuning. Launching a job and following it are separate calls, so that a worker can
/// stop between any two of them and another can go on.
///
/// # A provider with another protocol
///
/// The trait asks for what every provider has in some form: named files, jobs that can be told apart by
/// the `training_id` they were created with, a status, and a model id at the end.
///
/// * **Together**: `upload` is `POST /files/upload` (a 302 to a signed URL, then a confirmation; the file id
///   comes from the first answer); `create` is `POST /fine-tunes`. Jobs have no metadata there, but a
///   `suffix`, so `create` appends the `training_id` to it and `find_jobs` compares suffixes in
///   `GET /fine-tunes`. `pending` becomes [`JobStatus::Queued`], `compressing` and `uploading` stay
///   [`JobStatus::Unknown`], which callers wait out; `events` numbers the lines of `/fine-tunes/{id}/events`
///   to give them ids.
/// * **Self-hosted** (a Kubernetes job that runs a training script): `upload` writes an object named after
///   the file to the bucket the script reads; `create` applies a `Job` named `training-{training_id}`, so
///   creating it twice is a conflict instead of a second job; `find_jobs` lists by label; `poll` maps its
///   conditions; `events` reads the script's metrics file; `model` asks the inference server.
pub trait Trainer: Send + Sync {
    /// Sends a training file and returns the provider's id for it. Each call makes a new file.
    fn upload(&self, file: TrainingFile) -> impl Future<Output = Result<FileId>> + Send;

    /// Finds a usable training file by its name and its size in bytes. When there are several, the oldest
    /// is chosen, so that two callers adopt the same one.
    fn find_file(&self, name: &str, bytes: u64) -> impl Future<Output = Result<Option<FileId>>> + Send;

    /// Starts a training. Sends exactly one request; after an ambiguous error the job may exist.
    fn create(&self, request: &TrainingRequest) -> impl Future<Output = Result<ProviderJob>> + Send;

    /// The jobs that were created for a training, oldest first. More than one means that an earlier create
    /// was carried out although its answer was lost.
    fn find_jobs(&self, training_id: Uuid) -> impl Future<Output = Result<Vec<ProviderJob>>> + Send;

    /// A job as it is now.
    fn poll(&self, job_id: &str) -> impl Future<Output = Result<ProviderJob>> + Send;

    /// Cancels a job and returns it as it is then. A job that has already ended is left as it is, and that
    /// is no error.
    fn cancel(&self, job_id: &str) -> impl Future<Output = Result<ProviderJob>> + Send;

    /// What the provider reported about a job, oldest first: everything, or what is newer than the event
    /// whose id is `after`.
    fn events(
        &self,
        job_id: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Vec<TrainingEvent>>> + Send;

    /// The models that the provider kept along the way, the earliest first. Empty where it keeps none.
    fn checkpoints(&self, job_id: &str) -> impl Future<Output = Result<Vec<Checkpoint>>> + Send;

    /// Whether an uploaded file can be trained on now. One that never can is an error.
    fn is_ready(&self, file: &FileId) -> impl Future<Output = Result<bool>> + Send;

    /// Deletes an uploaded file. A file that is gone already is no error.
    fn delete_file(&self, file: &FileId) -> impl Future<Output = Result<()>> + Send;

    /// Asks a model. Costs money, but leaves nothing behind: an error that may have been carried out can be
    /// tried again.
    fn complete(&self, request: &CompletionRequest) -> impl Future<Output = Result<Completion>> + Send;

    /// What the provider says of a model that it serves to us; `None` only where it says for certain that it does not know it.
    fn model(&self, model_id: &str) -> impl Future<Output = Result<Option<ModelState>>> + Send;

    /// Whether the provider serves this model to us.
    fn model_exists(&self, model_id: &str) -> impl Future<Output = Result<bool>> + Send {
        async { Ok(self.model(model_id).await?.is_some()) }
    }
}
