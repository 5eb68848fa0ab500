//! Publication: each traffic revision is brought to the places that a pipeline's configuration names, for applications
//! that do not ask the API.
//!
//! Each place is a job. It always brings the newest revision, never an older one over a newer one, reads back what it wrote,
//! and looks at intervals whether somebody has changed it.

mod bring;
mod config_map;
mod deployments;
mod file;
mod http;
mod job;
mod kubernetes;
mod metrics;
mod payload;
mod place;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::config::Secret;
use crate::jobs::{JobError, LeaseLost};

pub(crate) use job::{Publication, schedule};
pub use kubernetes::Kubernetes;
pub(crate) use metrics::PublicationMetrics;
pub use store::{HistoryEntry, PublicationState, changed, history, request, state, states};

/// Looks up an environment variable.
pub type Lookup = Arc<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// What the operator lets pipelines publish to, and with what.
#[derive(Clone)]
pub struct Reach {
    /// Files are written below this directory only; without it none are.
    pub directory: Option<PathBuf>,
    /// How the Kubernetes API is reached.
    pub kubernetes: Kubernetes,
    /// Where signing secrets are found by the names of their variables.
    pub lookup: Lookup,
}

impl Default for Reach {
    /// No directory, and Kubernetes and secrets as the environment says.
    fn default() -> Self {
        let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Secret::new);
        Self { directory: None, kubernetes: Kubernetes::default(), lookup: Arc::new(lookup) }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, .. } = self;
        f.debug_struct("Reach").field("directory", directory).finish_non_exhaustive()
    }
}

/// Why a place is not as it should be.
#[derive(Debug, Error)]
enum PublishError {
    /// The place did not take it, in one sentence that names what to change. It is tried again.
    #[error("{message}")]
    Failed {
        message: String,
        /// The wait that the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Somebody else wrote there between our reading and our writing: nothing was changed, and it is looked at anew.
    #[error("somebody else wrote there at the same time")]
    Overtaken,
    /// Trouble of the job itself, not of the place.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl PublishError {
    fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), retry_after: None }
    }
}

impl From<sqlx::Error> for PublishError {
    fn from(error: sqlx::Error) -> Self {
        Self::Job(error.into())
    }
}

impl From<LeaseLost> for PublishError {
    fn from(lost: LeaseLost) -> Self {
        Self::Job(lost.into())
    }
}

impl From<crate::jobs::lease::FenceError> for PublishError {
    fn from(error: crate::jobs::lease::FenceError) -> Self {
        Self::Job(error.into())
    }
}
