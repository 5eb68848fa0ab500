//! A fine-tuning job and how it looks at a given moment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::method::{Hyperparameters, MethodKind, Resolved};
use super::metrics::Curve;
use super::timeline::{JobStatus, Timeline, VALIDATED};

/// The organization that owns all jobs and tuned models of the simulator.
pub(super) const ORGANIZATION: &str = "org-tuneloop";

/// Why a job failed: the `error` of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobError {
    /// What programs compare, such as `invalid_training_file`.
    pub code: String,
    /// What people read.
    pub message: String,
    /// The parameter at fault, usually `training_file`.
    #[serde(default)]
    pub param: Option<String>,
}

/// A job as it was created. What time makes of it is derived at each look.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    /// The model that is trained further: a snapshot, or a tuned model.
    pub(super) model: String,
    pub(super) training_file: String,
    pub(super) validation_file: Option<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) seed: i64,
    pub(super) method: MethodKind,
    /// As asked for.
    pub(super) hyperparameters: Hyperparameters,
    /// As trained with; `None` where the files are invalid.
    pub(super) plan: Option<Plan>,
    /// The error it ends with, if it fails.
    pub(super) failure: Option<JobError>,
    pub(super) timeline: Timeline,
    /// What is to be told of outside services, as asked for.
    pub(super) integrations: Vec<Value>,
    /// Whether it shows statuses that the specification does not have.
    pub(super) unusual_statuses: bool,
    /// Whether it reports without numbers.
    pub(super) without_metrics: bool,
    /// The name of the model that comes out of it.
    pub(super) tuned_model: String,
    /// The file with its metrics.
    pub(super) result_file: String,
    /// Whether the model and the file were put where they can be found.
    pub(super) settled: bool,
}

/// What a training with valid files does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) resolved: Resolved,
    pub(super) trained_tokens: u64,
}

/// A job, as tests and the demo see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    /// `ftjob-…`.
    pub id: String,
    /// Its state now.
    pub status: JobStatus,
    /// The model that is trained.
    pub model: String,
    /// The model that came out of it, once it succeeded.
    pub fine_tuned_model: Option<String>,
    /// The id of the file it trains on.
    pub training_file: String,
    /// The id of the file it is validated with.
    pub validation_file: Option<String>,
    /// The caller's pairs; empty where none were given.
    pub metadata: BTreeMap<String, String>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Job {
    pub(super) fn status(&self, now: DateTime<Utc>) -> JobStatus {
        self.timeline.status(now)
    }

    /// The status as it is told: a job with unusual ones is pausing, paused and resuming in the middle of its training.
    fn shown_status(&self, now: DateTime<Utc>) -> Value {
        let status = self.status(now);
        let unusual = [(0.7, "resuming"), (0.6, "paused"), (0.5, "pausing")];
        let past = |share| self.timeline.reaches(share).is_some_and(|at| at <= now);
        let word = unusual.into_iter().find(|(share, _)| past(*share)).map(|(_, word)| word);
        match word.filter(|_| self.unusual_statuses && status == JobStatus::Running && !past(0.8)) {
            Some(word) => word.into(),
            None => json!(status),
        }
    }

    /// The curves of its metrics; `None` where nothing is trained.
    pub(super) fn curve(&self) -> Option<Curve> {
        self.plan.map(|plan| Curve {
            seed: self.seed,
            steps: plan.resolved.steps(),
            steps_per_epoch: plan.resolved.steps_per_epoch,
            validated: self.validation_file.is_some(),
            penalty: plan.resolved.penalty(),
        })
    }

    /// The job's `error` now.
    pub(super) fn error(&self, now: DateTime<Utc>) -> Option<&JobError> {
        self.failure.as_ref().filter(|_| self.status(now) == JobStatus::Failed)
    }

    pub(super) fn summary(&self, now: DateTime<Utc>) -> JobSummary {
        let status = self.status(now);
        JobSummary {
            id: self.id.clone(),
            status,
            model: self.model.clone(),
            fine_tuned_model: (status == JobStatus::Succeeded).then(|| self.tuned_model.clone()),
            training_file: self.training_file.clone(),
            validation_file: self.validation_file.clone(),
            metadata: self.metadata.clone().unwrap_or_default(),
            error: self.error(now).cloned(),
            created_at: self.timeline.created_at(),
            finished_at: self.timeline.ended_at(now),
        }
    }

    /// `FineTuningJob` in the specification. Hyperparameters stay `"auto"` until the files are validated.
    pub(super) fn json(&self, now: DateTime<Utc>) -> Value {
        let status = self.status(now);
        let succeeded = status == JobStatus::Succeeded;
        let validated = self.timeline.reaches(VALIDATED).is_some_and(|at| at <= now);
        let plan = self.plan.filter(|_| validated);
        let hyperparameters = plan.map_or(self.hyperparameters, |plan| plan.resolved.hyperparameters);
        json!({
            "object": "fine_tuning.job",
            "id": self.id,
            "created_at": self.timeline.created_at().timestamp(),
            "error": self.error(now),
            "estimated_finish": self.timeline.estimated_end(now).map(|at| at.timestamp()),
            "fine_tuned_model": succeeded.then_some(&self.tuned_model),
            "finished_at": self.timeline.ended_at(now).map(|at| at.timestamp()),
            // Returned for supervised jobs only; the field is required all the same.
            "hyperparameters": match self.method {
                MethodKind::Supervised => json!(hyperparameters),
                MethodKind::Dpo => json!({}),
            },
            "integrations": self.integrations,
            "metadata": self.metadata,
            "method": hyperparameters.method_json(self.method),
            "model": self.model,
            "organization_id": ORGANIZATION,
            "result_files": if succeeded { vec![&self.result_file] } else { Vec::new() },
            "seed": self.seed,
            "status": self.shown_status(now),
            "trained_tokens": plan.filter(|_| succeeded).map(|plan| plan.trained_tokens),
            "training_file": self.training_file,
            "validation_file": self.validation_file,
        })
    }
}
