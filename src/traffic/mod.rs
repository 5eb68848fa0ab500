//! What serves: numbered traffic revisions, and the changes that make them. Nothing here is ever updated or
//! deleted; a rollback is one more revision.

pub mod assignment;
mod changes;
mod kill_switch;
mod lost_model;
mod pins;
mod publications;
mod revisions;
pub mod snapshot;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::models::{Version, VersionStatus};

pub use changes::{
    Promotion, TestArms, end_test, end_watch, promote, ramp, roll_out, rollback, set_split, start_test,
};
pub use kill_switch::set_kill_switch;
pub use lost_model::{drop_share, fallbacks, replace_lost};
pub use pins::{MOST_PINS, NewPin, Pin, pin, pin_of, pins, unpin};
pub use publications::{PUBLISH, publication_subject, wake_publications};
pub use revisions::{NewRevision, append, at, by_number, current, history, last_change, lock};

/// The whole of a pipeline's traffic, in basis points.
pub const WHOLE: i32 = 10_000;

/// Why a revision was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RevisionKind {
    /// The pipeline was created.
    Created,
    /// A candidate got its share.
    TestStarted,
    /// The candidate got more, during its test.
    Ramp,
    /// The test ended without a promotion.
    TestEnded,
    /// The candidate became the live version.
    Promotion,
    /// The promoted version got more, during its watch.
    Rollout,
    /// The hold-back ended.
    WatchEnded,
    /// An earlier live version was put back.
    Rollback,
    /// A person set the weights.
    Split,
    /// Everything goes to the live version until the switch is off again.
    KillSwitchOn,
    /// The split that was withheld is in force again.
    KillSwitchOff,
}

impl RevisionKind {
    fn action(self) -> &'static str {
        match self {
            Self::Created => "traffic.created",
            Self::TestStarted => "traffic.test_started",
            Self::Ramp => "traffic.ramp",
            Self::TestEnded => "traffic.test_ended",
            Self::Promotion => "traffic.promotion",
            Self::Rollout => "traffic.rollout",
            Self::WatchEnded => "traffic.watch_ended",
            Self::Rollback => "traffic.rollback",
            Self::Split => "traffic.split",
            Self::KillSwitchOn => "traffic.kill_switch_on",
            Self::KillSwitchOff => "traffic.kill_switch_off",
        }
    }
}

/// One numbered state of a pipeline's traffic.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The pipeline.
    pub pipeline: String,
    /// Counts from 1 within the pipeline.
    pub revision: i64,
    /// The live version.
    pub live_version_id: Uuid,
    /// Hashed with a unit to assign it.
    pub salt: String,
    /// The experiment that this traffic belongs to, through its watch.
    pub experiment_id: Option<Uuid>,
    /// The decision that it carries out.
    pub decision_id: Option<Uuid>,
    /// Whether somebody overrode a safety check that had failed.
    pub forced: bool,
    /// Why it was written.
    pub kind: RevisionKind,
    /// The same in one sentence.
    pub reason: String,
    /// Who wrote it.
    pub actor: String,
    /// When it came into force.
    pub created_at: DateTime<Utc>,
    /// Who serves how much, in the order in which weights are accumulated.
    pub shares: Vec<Share>,
    /// Whether everything goes to the live version, pinned units too. What is served meanwhile is never analysed.
    pub kill_switch: bool,
    /// Under the kill switch, the split that comes into force when it is switched off; otherwise empty.
    pub withheld: Vec<Share>,
}

/// A version's part of the traffic.
#[derive(Debug, Clone)]
pub struct Share {
    /// The version's key.
    pub model_version_id: Uuid,
    /// The version.
    pub version: Version,
    /// The version's present status.
    pub status: VersionStatus,
    /// What applications call at the provider.
    pub provider_model_id: String,
    /// Basis points of the pipeline's traffic.
    pub weight: i32,
}

impl Revision {
    /// The live version's share.
    #[must_use]
    pub fn live(&self) -> Option<&Share> {
        self.shares.iter().find(|share| share.model_version_id == self.live_version_id)
    }

    /// What serves, or would but for the kill switch.
    #[must_use]
    pub fn split(&self) -> &[Share] {
        if self.kill_switch { &self.withheld } else { &self.shares }
    }

    /// The weight of a version in that split; 0 where it has none.
    #[must_use]
    pub fn split_weight(&self, model_version_id: Uuid) -> i32 {
        weight_in(self.split(), model_version_id)
    }

    /// The weight of a version in basis points; 0 where it does not serve.
    #[must_use]
    pub fn weight_of(&self, model_version_id: Uuid) -> i32 {
        weight_in(&self.shares, model_version_id)
    }
}

fn weight_in(shares: &[Share], model_version_id: Uuid) -> i32 {
    shares.iter().find(|share| share.model_version_id == model_version_id).map_or(0, |share| share.weight)
}

/// Why a change of traffic was refused. Nothing was changed.
#[derive(Debug, Error)]
pub enum TrafficError {
    /// The weights do not make a whole.
    #[error("the weights sum to {0}; they must sum to exactly 10000 basis points")]
    Sum(i64),
    /// A weight is out of range.
    #[error("the weight of {version} is {weight}; a weight is between 0 and 10000 basis points")]
    Weight {
        /// The version.
        version: Version,
        /// What was given.
        weight: i32,
    },
    /// No such version.
    #[error("the pipeline has no version {0}")]
    UnknownVersion(Version),
    /// The version may not get traffic.
    #[error("version {version} is {status} and cannot serve")]
    CannotServe {
        /// The version.
        version: Version,
        /// Its status.
        status: VersionStatus,
    },
    /// The version may not be tested.
    #[error("version {version} is {status}; only a candidate can be tested")]
    NotACandidate {
        /// The version.
        version: Version,
        /// Its status.
        status: VersionStatus,
    },
    /// The live version must have a share of a split.
    #[error("version {0} is live and must have a share of the split; promote another version to replace it")]
    LiveMissing(Version),
    /// There is nothing to go back to.
    #[error("there is no earlier live version to go back to")]
    NothingToRollBackTo,
    /// The version is live already.
    #[error("version {0} is live already")]
    AlreadyLive(Version),
    /// The pipeline has as many pins as a process keeps in memory.
    #[error("the pipeline has {MOST_PINS} pins already; delete some, or set a traffic split instead")]
    TooManyPins,
    /// The version was never live, so going to it is not going back.
    #[error("version {0} has never been live: promote it, or name a version that was")]
    NeverLive(Version),
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}
