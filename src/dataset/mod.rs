//! Posts become a dataset: an immutable snapshot of training examples, named by the SHA-256 of its bytes.

pub mod clean;
mod collect;
pub mod duplicates;
mod example;
pub mod near_duplicates;
mod settings;
pub mod split;
mod store;
mod union_find;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

pub use collect::{Snapshot, collect};
pub use example::{Example, Post};
pub use settings::{DatasetSettings, Template};
pub use store::{DatasetStore, record};

/// How many posts there were and why some were left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Posts in the table.
    pub posts: u64,
    /// Older than the look-back.
    pub too_old: u64,
    /// In the look-back, below the engagement threshold or without a rate.
    pub below_threshold: u64,
    /// At or above the threshold, without the text the model should learn to write.
    pub empty: u64,
    /// What is left: the examples.
    pub examples: u64,
}

/// What is kept of a dataset beside its bytes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// The settings it was made with.
    pub settings: DatasetSettings,
    /// Posts from this time on were looked at.
    pub since: chrono::DateTime<chrono::Utc>,
    /// How many posts there were and why some were left out.
    pub counts: Counts,
    /// Length of the JSONL in bytes.
    pub bytes: u64,
}

/// Why a dataset could not be made, kept or read.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The database did not answer as it should.
    #[error("the posts could not be read: {0}")]
    Database(#[from] sqlx::Error),
    /// The store did not answer as it should.
    #[error("the dataset store: {0}")]
    Store(#[from] object_store::Error),
    /// The store's address cannot be used.
    #[error("DATASET_STORE_URL cannot be used: {0}")]
    Address(String),
    /// The stored bytes are not those that were written.
    #[error("the stored dataset {0} has been changed: its bytes no longer have that SHA-256")]
    Altered(String),
}
