//! Why the demo did not end as it should.

use std::io;
use std::net::SocketAddr;

use super::client::ClientError;
use super::csv::PostsError;
use crate::database::{ConnectError, MigrateError};
use crate::dataset::DatasetError;
use crate::embedded::EmbeddedError;
use crate::preflight::PriceTableError;
use crate::service::ServiceError;
use crate::trainers::OpenAiSettingsError;

/// Why the demo did not end as it should, as one sentence with its sources.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DemoFailed(#[from] DemoError);

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error(transparent)]
    Postgres(#[from] EmbeddedError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error("the demo's database does not answer as it should")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Posts(#[from] PostsError),
    #[error(transparent)]
    Store(#[from] DatasetError),
    #[error(transparent)]
    Prices(#[from] PriceTableError),
    #[error("the directory for datasets cannot be made")]
    Datasets(#[source] io::Error),
    #[error("--listen takes an address of this machine that is free to use, and {address} is none")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the simulated provider cannot answer")]
    Provider(#[source] io::Error),
    #[error("the trainer cannot be set up")]
    Trainer(#[from] OpenAiSettingsError),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("a part of the demo stopped with an internal error")]
    Panicked(#[source] tokio::task::JoinError),
    #[error("a part of the demo ended before it was asked to")]
    Ended,
    #[error(transparent)]
    Api(#[from] ClientError),
    #[error("cannot write to standard output")]
    Screen(#[from] io::Error),
    #[error("the run did not end within {seconds} seconds: try again on a machine that is less busy")]
    TooSlow { seconds: u64 },
    #[error("the run reached no verdict: {0}")]
    NoVerdict(String),
    #[error("the candidate is worse, and that was not found: {0}")]
    HarmNotFound(String),
    #[error("the demo was stopped before its run reached a verdict")]
    Stopped,
}
