//! What a kind of job brings along: the work itself, and how it ended.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgConnection;

use super::lease::FenceError;
use super::{Lease, LeaseLost};

/// How a handler ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The handler ended or rescheduled the job in a transaction of its own.
    Committed,
    /// There is nothing more to do; the worker ends the job.
    Finished,
}

/// How a handler ended otherwise.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It may go better later: tried again with backoff until the attempts are used up.
    #[error("{message}")]
    Retryable {
        /// What went wrong, in plain words.
        message: String,
        /// The wait that the other side asked for.
        retry_after: Option<Duration>,
    },
    /// Trying again cannot help.
    #[error("{message}")]
    Fatal {
        /// Machine-readable, such as `training_not_available`.
        code: String,
        /// What went wrong, in plain words.
        message: String,
    },
    /// Another worker has the job: control flow, not a failure.
    #[error("the lease on this job was lost")]
    LeaseLost,
    /// What the job is about was changed by somebody else while it was worked on: control flow as well. The
    /// work is void; the job runs again at once, on what is there now.
    #[error("what the job is about has changed meanwhile")]
    Superseded,
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        // The words of the database are for the log; the message is shown to people.
        tracing::warn!(%error, "the database refused or did not answer");
        let message = "the database did not do what was asked; the service's log has its words".into();
        Self::Retryable { message, retry_after: None }
    }
}

impl From<LeaseLost> for JobError {
    fn from(_: LeaseLost) -> Self {
        Self::LeaseLost
    }
}

impl From<FenceError> for JobError {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Lost(_) => Self::LeaseLost,
            FenceError::Database(error) => error.into(),
        }
    }
}

/// One kind of job. Handlers are idempotent: a job whose worker was killed runs again.
pub trait Handler: Send + Sync {
    /// The kind of job it handles.
    fn kind(&self) -> &'static str;

    /// Does the work, within [`Lease::deadline`].
    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>>;

    /// Records, in the transaction that schedules the next attempt, that this one failed.
    fn retried<'a>(
        &'a self,
        _conn: &'a mut PgConnection,
        _lease: &'a Lease,
        _message: &'a str,
        _wait: Duration,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// Records, in the transaction that fails the job, that there will be no further attempt.
    fn failed<'a>(
        &'a self,
        _conn: &'a mut PgConnection,
        _lease: &'a Lease,
        _code: &'a str,
        _message: &'a str,
    ) -> BoxFuture<'a, Result<(), JobError>> {
        async { Ok(()) }.boxed()
    }
}
