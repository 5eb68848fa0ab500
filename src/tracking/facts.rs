//! What the database holds of runs and versions, as far as MLflow is told.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// A run with all that belongs to it.
#[derive(Debug)]
pub(super) struct RunFacts {
    pub(super) id: Uuid,
    pub(super) pipeline: String,
    pub(super) config_version: i32,
    pub(super) config: Value,
    pub(super) trigger: String,
    pub(super) slot: Option<DateTime<Utc>>,
    pub(super) status: String,
    pub(super) step: String,
    pub(super) reason_code: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) version: i64,
    pub(super) dataset_digest: Option<String>,
    pub(super) preflight: Option<Value>,
    pub(super) evaluation: Option<Value>,
    /// When the evaluation came to its end.
    pub(super) evaluated_at: Option<DateTime<Utc>>,
    /// Such as `hook@1.4.0`.
    pub(super) model_version: Option<String>,
    pub(super) experiment_id: Option<Uuid>,
    pub(super) decision: Option<DecisionFacts>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    /// In the order in which they were written down.
    pub(super) trainings: Vec<TrainingFacts>,
    pub(super) datasets: Vec<DatasetFacts>,
    /// Whether nothing more can come of it.
    pub(super) settled: bool,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct DecisionFacts {
    pub(super) id: Uuid,
    pub(super) verdict: String,
    pub(super) digest: String,
    pub(super) record: Value,
    pub(super) created_at: DateTime<Utc>,
}

/// A training of the run.
#[derive(Debug)]
pub(super) struct TrainingFacts {
    pub(super) id: Uuid,
    pub(super) provider: String,
    pub(super) base_model: String,
    pub(super) validation_digest: Option<String>,
    pub(super) provider_job_id: Option<String>,
    pub(super) fine_tuned_model: Option<String>,
    pub(super) trained_tokens: Option<i64>,
    pub(super) cost: Option<f64>,
    pub(super) currency: Option<String>,
    pub(super) hyperparameters: Value,
    pub(super) created_at: DateTime<Utc>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    /// In the order of steps.
    pub(super) curve: Vec<CurveFacts>,
}

/// A point of the loss curve.
#[derive(Debug)]
pub(super) struct CurveFacts {
    pub(super) step: i64,
    pub(super) train_loss: Option<f64>,
    pub(super) valid_loss: Option<f64>,
    pub(super) full_valid_loss: Option<f64>,
    pub(super) learned_at: Option<DateTime<Utc>>,
}

/// A dataset that the run reads.
#[derive(Debug)]
pub(super) struct DatasetFacts {
    pub(super) digest: String,
    pub(super) examples: i64,
    pub(super) bytes: i64,
}

/// A version with what MLflow has of it.
#[derive(Debug)]
pub(super) struct VersionFacts {
    pub(super) id: Uuid,
    pub(super) pipeline: String,
    /// Such as `1.4.0`.
    pub(super) version: String,
    pub(super) status: String,
    pub(super) provider: String,
    pub(super) provider_model_id: String,
    pub(super) base_model: String,
    pub(super) run_id: Option<Uuid>,
    pub(super) training_id: Option<Uuid>,
    pub(super) dataset_digest: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) metrics: Value,
    pub(super) created_at: DateTime<Utc>,
    /// The MLflow run of the run that made it.
    pub(super) mlflow_run_id: Option<String>,
    pub(super) mlflow_version: Option<String>,
    pub(super) gone: bool,
    /// Whether a create was sent a moment ago and not answered.
    pub(super) unsettled: bool,
    pub(super) delivered: Value,
}

/// Where a run stands in MLflow.
#[derive(Debug, Default)]
pub(super) struct RunPlace {
    pub(super) mlflow_run_id: Option<String>,
    /// Whether a create was sent a moment ago and not answered.
    pub(super) unsettled: bool,
    pub(super) delivered: Value,
}
