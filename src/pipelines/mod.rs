//! Pipelines: named slots with one live model each, and the configuration of how it is improved.

pub mod config;
pub mod cron;
mod seed;
mod store;

use chrono::{DateTime, Utc};

pub use config::{PipelineConfig, PullSettings};
pub use seed::seed;
pub use store::{NotSaved, all, by_name, config_version, lock, save};

/// A pipeline with its configuration in force.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name, such as `hook`.
    pub name: String,
    /// Counts changes of the configuration, from 1.
    pub config_version: i32,
    /// The configuration in force.
    pub config: PipelineConfig,
    /// Since when its schedule is what it is.
    pub scheduled_since: DateTime<Utc>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its configuration last changed.
    pub updated_at: DateTime<Utc>,
}
