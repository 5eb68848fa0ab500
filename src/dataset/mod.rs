//! Posts become a dataset: an immutable snapshot of training examples, named by the SHA-256 of its bytes.
//!
//! Rows flow one way and never all at once: [`source`] reads them from a database, `prepare` cleans them and makes
//! examples of them, several batches at once, `stages` leaves some out, `divide` sets some aside to validate with, `spool` writes the lines to temporary files,
//! [`DatasetStore`] keeps each file under its digest.

pub mod clean;
mod collect;
mod divide;
pub mod duplicates;
mod example;
mod manifest;
pub mod near_duplicates;
mod pairs;
mod prepare;
mod prompts;
mod settings;
mod source;
pub mod split;
mod spool;
mod stages;
mod store;
mod union_find;

use thiserror::Error;

pub use collect::{Snapshot, collect};
pub use example::Example;
pub use manifest::{CleaningCounts, Counts, Manifest, Part, Parts, Recorded, by_digest, record};
pub use prompts::TemplateError;
pub use settings::{DatasetSettings, DynamicThreshold, PairSettings, Prompts, Template};
pub use source::{Columns, Lookup, OutcomeQuery, SourceError, SourceSettings, Sources};
pub use spool::Spooled;
pub use store::{DatasetStore, StoredLine};

/// What is wrong with a row.
#[derive(Debug, Error)]
pub enum RowFault {
    /// A template failed on it.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A value cannot be held here, such as a number of more than 308 digits.
    #[error("its column {column:?} has a value that cannot be read: {reason}")]
    Value {
        /// The column.
        column: String,
        /// Why not.
        reason: String,
    },
    /// Its line could not be made.
    #[error("its line could not be written: {0}")]
    Line(#[from] std::io::Error),
}

/// Why a dataset could not be made, kept or read.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The database did not answer as it should.
    #[error("the posts could not be read: {0}")]
    Database(#[from] sqlx::Error),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A template is faulty.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A row of the source cannot be made an example of.
    #[error("the row with the id {id:?} cannot be used: {fault}")]
    Row {
        /// What its column for ids says.
        id: String,
        /// What is wrong with it.
        fault: RowFault,
    },
    /// A temporary file could not be written or read.
    #[error("a temporary file of the dataset: {0}")]
    File(#[from] std::io::Error),
    /// The work on the rows ended with an internal error; the log has its place.
    #[error("making the dataset ended with an internal error")]
    Panicked(#[from] tokio::task::JoinError),
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
