//! Model versions: what a pipeline has served or may serve, with the lineage of each.

pub mod availability;
mod recipe;
mod store;
mod version;

use std::fmt;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use recipe::{Made, Recipe, made, recipe_of};
pub use store::{
    NewVersion, by_id, by_version, list, of_checkpoint, of_model, register, serving_or_gone, set_status,
};
pub use version::{Version, VersionError};

/// Where a version stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum VersionStatus {
    /// Trained, serves nobody.
    Candidate,
    /// Under test against the live version.
    Testing,
    /// The pipeline's choice.
    Live,
    /// The former live version, kept on a share of traffic while the new one is watched.
    HoldBack,
    /// Was live once; a rollback may bring it back.
    Retired,
    /// Lost its test.
    Rejected,
    /// Was live and did harm; never comes back by itself.
    RolledBack,
    /// The provider no longer serves it. When it does again, the version is what it was before, but never serves by itself.
    Unavailable,
}

impl VersionStatus {
    /// Whether traffic may be sent to it.
    #[must_use]
    pub fn can_serve(self) -> bool {
        !matches!(self, Self::Rejected | Self::RolledBack | Self::Unavailable)
    }
}

impl fmt::Display for VersionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Candidate => "candidate",
            Self::Testing => "testing",
            Self::Live => "live",
            Self::HoldBack => "hold_back",
            Self::Retired => "retired",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Unavailable => "unavailable",
        })
    }
}

/// A version with its lineage.
#[derive(Debug, Clone)]
pub struct ModelVersion {
    /// Its key; never shown as its name.
    pub id: Uuid,
    /// The pipeline it belongs to.
    pub pipeline: String,
    /// Its place in the order of versions.
    pub version: Version,
    /// Where it stands.
    pub status: VersionStatus,
    /// Who serves it, such as `openai`.
    pub provider: String,
    /// What applications call at the provider.
    pub provider_model_id: String,
    /// What it was trained from.
    pub base_model: String,
    /// The run that made it.
    pub run_id: Option<Uuid>,
    /// The training that made it.
    pub training_id: Option<Uuid>,
    /// The checkpoint of that training that it is; absent for the model that the training ended with.
    pub checkpoint_id: Option<String>,
    /// What it was trained on.
    pub dataset_digest: Option<String>,
    /// The version that was live when it was made.
    pub parent: Option<Version>,
    /// Training figures: `final_loss`, `trained_tokens`.
    pub metrics: Value,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When its status last changed.
    pub updated_at: DateTime<Utc>,
    /// What the provider says of it.
    pub availability: Availability,
}

/// What the provider says of a version's model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Availability {
    /// When the provider last said whether it serves it.
    pub checked_at: Option<DateTime<Utc>>,
    /// When it will stop serving it, as far as it has told.
    pub shutdown_date: Option<NaiveDate>,
    /// The nearest number of days before that date that was announced.
    pub warned_days: Option<i32>,
    /// The run that was started because of that date.
    pub successor_run_id: Option<Uuid>,
    /// Since when it says that it does not know it.
    pub missing_since: Option<DateTime<Utc>>,
    /// Since when that is taken to be so.
    pub gone_at: Option<DateTime<Utc>>,
}

impl ModelVersion {
    /// Its name among all versions: `hook@1.4.0`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.pipeline, self.version)
    }
}
