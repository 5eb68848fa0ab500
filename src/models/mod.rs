//! Model versions: what a pipeline has served or may serve, with the lineage of each.

mod store;
mod version;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use store::{NewVersion, by_id, by_version, insert, list, newest, set_status};
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
    /// The provider no longer serves it.
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
}

impl ModelVersion {
    /// Its name among all versions: `hook@1.4.0`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.pipeline, self.version)
    }
}
