//! What the simulator remembers: files, jobs and tuned models, in memory only.

use std::collections::{BTreeMap, VecDeque};

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::faults::Dealer;
use super::job::{Job, JobError};
use super::metrics::Curve;
use super::models::TunedModel;
use super::timeline::JobStatus;

/// How often things were asked for, whether granted or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct CreateCounts {
    /// Uploads.
    pub files: u64,
    /// Requests to create a fine-tuning job.
    pub jobs: u64,
}

/// A file with its bytes.
#[derive(Debug, Clone)]
pub(super) struct StoredFile {
    pub(super) id: String,
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) content: Bytes,
    pub(super) created_at: DateTime<Utc>,
    pub(super) expires_at: Option<DateTime<Utc>>,
}

/// A file, as tests and the demo see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// `file-…`.
    pub id: String,
    /// The name it was uploaded under.
    pub filename: String,
    /// `fine-tune`, or `fine-tune-results` for what a job wrote.
    pub purpose: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// When it was uploaded or written.
    pub created_at: DateTime<Utc>,
}

impl StoredFile {
    pub(super) fn summary(&self) -> FileSummary {
        FileSummary {
            id: self.id.clone(),
            filename: self.filename.clone(),
            purpose: self.purpose.clone(),
            bytes: self.content.len(),
            created_at: self.created_at,
        }
    }

    /// `OpenAIFile` in the specification.
    pub(super) fn json(&self) -> Value {
        let mut file = json!({
            "object": "file",
            "id": self.id,
            "bytes": self.content.len(),
            "created_at": self.created_at.timestamp(),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        });
        if let Some(at) = self.expires_at {
            file["expires_at"] = json!(at.timestamp());
        }
        file
    }
}

/// Everything, oldest first.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) files: Vec<StoredFile>,
    pub(super) jobs: Vec<Job>,
    pub(super) models: Vec<TunedModel>,
    /// The errors of the next jobs that would have succeeded.
    pub(super) next_failures: VecDeque<JobError>,
    pub(super) creates: CreateCounts,
    /// Files that were taken.
    pub(super) uploaded: u64,
    /// Models by the names under which an operator deployed them.
    pub(super) deployments: BTreeMap<String, String>,
    /// Who deals faults.
    pub(super) dealer: Dealer,
}

impl Store {
    /// Makes up for the time that went by: jobs that succeeded since leave their model and their result
    /// file, and files that expired are gone.
    pub(super) fn settle(&mut self, now: DateTime<Utc>) {
        let Self { files, jobs, models, .. } = self;
        for job in jobs.iter_mut().filter(|job| !job.settled && job.status(now) == JobStatus::Succeeded) {
            job.settled = true;
            let finished_at = job.timeline.ended_at(now).unwrap_or(now);
            let file = StoredFile {
                id: job.result_file.clone(),
                filename: "step_metrics.csv".into(),
                purpose: "fine-tune-results".into(),
                content: job.curve().map(Curve::csv).unwrap_or_default().into(),
                created_at: finished_at,
                expires_at: None,
            };
            files.insert(files.partition_point(|other| other.created_at <= finished_at), file);
            let model = TunedModel { id: job.tuned_model.clone(), created_at: finished_at };
            models.insert(models.partition_point(|other| other.created_at <= finished_at), model);
        }
        files.retain(|file| file.expires_at.is_none_or(|at| at > now));
    }

    pub(super) fn file(&self, id: &str) -> Option<&StoredFile> {
        self.files.iter().find(|file| file.id == id)
    }
}
