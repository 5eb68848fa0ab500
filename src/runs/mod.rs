//! Runs: attempts to produce a better model for a pipeline, as a state machine over the job table.
//!
//! A run is advanced by its one job (kind [`JOB_KIND`], subject the run's id). Each step does its work on the
//! outside first, then opens one transaction in which its result, the run's new state, its event, its audit
//! event and the next job are committed together. Locks are taken in the order pipeline, run, job.

mod cancel;
mod checkpoints;
mod cleanup;
mod finish;
mod lost_model;
pub mod machine;
mod places;
pub mod progress;
mod promotion;
mod requests;
mod rollout;
mod steps;
mod store;
mod trainings;
mod transition;
mod trigger;
mod wake;
mod wind_down;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::dataset::Manifest;
use crate::preflight::PreflightReport;

pub use checkpoints::{CheckpointError, Which, register_checkpoint};
pub use cleanup::Cleanup;
pub use lost_model::{Loss, yield_to_loss};
pub use machine::{RunHandler, Services};
pub use promotion::{
    CheckName, CheckResult, Found, ModelAnswer, PromotionCheck, gather as gather_for_promotion,
};
pub use requests::{RequestError, lock, request, retry};
pub use store::{RunEvent, RunStep, by_id, events_after, list, steps_of};
pub use trainings::{Training, by_id as training_by_id, of_run as trainings_of, run_or_keep_notice};
pub use trigger::{TriggerError, by_api, by_end_of_life, by_schedule};
pub use wake::wake_all;
pub use wind_down::yield_to_operator;

/// The kind of job that advances a run.
pub const JOB_KIND: &str = "run";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunStatus {
    /// Not begun.
    Queued,
    /// On its way.
    Running,
    /// A person has to decide.
    WaitingApproval,
    /// Its model was promoted and watched.
    Succeeded,
    /// Not enough to train on, or another run was in its place.
    Skipped,
    /// Its model lost the test.
    Rejected,
    /// The test said neither yes nor no, and nobody decided.
    Inconclusive,
    /// It could not go on.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// Its model was promoted, did harm, and was taken back.
    RolledBack,
}

impl RunStatus {
    /// Whether the run has ended.
    #[must_use]
    pub fn finished(self) -> bool {
        !matches!(self, Self::Queued | Self::Running | Self::WaitingApproval)
    }

    /// The word used in tables, metrics and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingApproval => "waiting_approval",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Rejected => "rejected",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stage of a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Step {
    /// Posts become a dataset.
    Collect,
    /// Is the dataset worth its training?
    Preflight,
    /// The dataset goes to the provider.
    Upload,
    /// The provider trains.
    Train,
    /// The new model becomes a version.
    Register,
    /// It answers a few prompts and is compared with the live version.
    Evaluate,
    /// It meets the live version on real traffic.
    Test,
    /// What the test says.
    Decide,
    /// It becomes the live version.
    Promote,
    /// It is compared with the former one for a while longer.
    Watch,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 10] = [
        Self::Collect,
        Self::Preflight,
        Self::Upload,
        Self::Train,
        Self::Register,
        Self::Evaluate,
        Self::Test,
        Self::Decide,
        Self::Promote,
        Self::Watch,
    ];

    /// The word used in tables, metrics and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Preflight => "preflight",
            Self::Upload => "upload",
            Self::Train => "train",
            Self::Register => "register",
            Self::Evaluate => "evaluate",
            Self::Test => "test",
            Self::Decide => "decide",
            Self::Promote => "promote",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place a run holds in its pipeline: one run at most in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Place {
    /// From collect to register, and while it waits for the other place.
    Building,
    /// From test to watch.
    Proving,
}

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Trigger {
    /// A call of the API.
    Api,
    /// The schedule.
    Schedule,
    /// The live version's model is about to end at its provider.
    EndOfLife,
}

/// What a person asked of a run; its job carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Request {
    /// Stop.
    Cancel,
    /// Promote in spite of an inconclusive test.
    Approve,
    /// Do not promote.
    Reject,
}

impl Request {
    /// The word used in tables, audit events and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its key.
    pub id: Uuid,
    /// The pipeline it works for.
    pub pipeline: String,
    /// The configuration it was started with.
    pub config_version: i32,
    /// What started it.
    pub trigger: Trigger,
    /// What it trains, where that is another base model than its configuration says.
    pub base_model: Option<String>,
    /// The scheduled time, where the schedule did.
    pub slot: Option<DateTime<Utc>>,
    /// Where it stands.
    pub status: RunStatus,
    /// The step it is in, or ended in.
    pub step: Step,
    /// The place it holds.
    pub place: Option<Place>,
    /// Why it waits or how it ended, for machines.
    pub reason_code: Option<String>,
    /// The same in one sentence.
    pub reason: Option<String>,
    /// What a person asked for and was not carried out yet.
    pub request: Option<Request>,
    /// Who asked.
    pub request_actor: Option<String>,
    /// Why they asked.
    pub request_reason: Option<String>,
    /// Who approved the promotion of its model, after the last test that was inconclusive.
    pub approved_by: Option<String>,
    /// Why they did.
    pub approval_reason: Option<String>,
    /// Grows with every transition.
    pub version: i64,
    /// What it trains on.
    pub dataset_digest: Option<String>,
    /// The manifest of what it looked at to make that.
    pub collected: Option<Json<Manifest>>,
    /// What preflight found.
    pub preflight: Option<Json<PreflightReport>>,
    /// Its training.
    pub training_id: Option<Uuid>,
    /// The version it made.
    pub model_version_id: Option<Uuid>,
    /// Its test.
    pub experiment_id: Option<Uuid>,
    /// When it was inserted.
    pub created_at: DateTime<Utc>,
    /// When its first step began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}
