//! A training as the API shows it: by itself, and as part of its run.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::runs::Training;
use crate::trainers::Hyperparameters;

/// A paid job at a provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Training)]
pub(super) struct TrainingView {
    /// Names the job in its metadata at the provider.
    id: Uuid,
    /// The run it belongs to.
    run_id: Uuid,
    /// Its place among the trainings of a search, from 0.
    trial: i32,
    /// The trainer.
    #[schema(example = "openai")]
    provider: String,
    /// The model that is trained.
    base_model: String,
    /// What it was asked to train with; the provider chose the others.
    hyperparameters: Hyperparameters,
    /// What it is trained on.
    dataset_digest: String,
    /// What it is measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_digest: Option<String>,
    /// The provider's id of the training file.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<String>,
    /// The provider's id of the validation file.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_file_id: Option<String>,
    /// The provider's id of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// The job's status in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// The model it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
    /// Tokens that it is expected to be billed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_tokens: Option<i64>,
    /// Tokens that are billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_tokens: Option<i64>,
    /// What it is expected to cost; absent where the model has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_cost: Option<f64>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    /// The currency of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    currency: Option<String>,
    /// Training loss at the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_loss: Option<f64>,
    /// Loss on what was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f64>,
    /// Late duplicates of the job that were cancelled.
    duplicates: i32,
    /// Whether it went on without reports of the provider, which are still to be read.
    reports_owed: bool,
    /// Since when the provider holds the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_since: Option<DateTime<Utc>>,
    /// When it was written down, before the provider was called.
    created_at: DateTime<Utc>,
    /// When its job was seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
}

impl From<Training> for TrainingView {
    fn from(training: Training) -> Self {
        Self {
            id: training.id,
            run_id: training.run_id,
            trial: training.trial,
            provider: training.provider,
            base_model: training.base_model,
            hyperparameters: training.hyperparameters.0,
            dataset_digest: training.dataset_digest,
            validation_digest: training.validation_digest,
            file_id: training.provider_file_id,
            validation_file_id: training.validation_file_id,
            job_id: training.provider_job_id,
            status: training.provider_status,
            model_id: training.fine_tuned_model,
            expected_tokens: training.expected_tokens,
            trained_tokens: training.trained_tokens,
            expected_cost: training.expected_cost,
            cost: training.cost,
            currency: training.currency,
            final_loss: training.final_loss,
            validation_loss: training.validation_loss,
            duplicates: training.duplicates,
            reports_owed: training.reports_owed,
            paused_since: training.paused_since,
            created_at: training.created_at,
            finished_at: training.finished_at,
        }
    }
}
