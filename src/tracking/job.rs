//! The job that brings MLflow up to date for one pipeline.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};

use super::client::Client;
use super::error::MlflowError;
use super::look::Look;
use super::{KIND, MlflowSettings, store};
use crate::clock::Clock;
use crate::jobs::lease::FenceError;
use crate::jobs::{Done, Handler, JobError, Lease, LeaseLost, backoff};

/// Handles the job.
#[derive(Debug)]
pub struct Tracking {
    db: PgPool,
    clock: Clock,
    client: Client,
}

impl Tracking {
    /// Tells the server of these settings.
    ///
    /// # Errors
    ///
    /// When no client can be made, such as without certificates to trust.
    pub fn new(db: PgPool, clock: Clock, settings: MlflowSettings) -> reqwest::Result<Self> {
        Ok(Self { db, clock, client: Client::new(settings)? })
    }

    /// Notes why an attempt did not come to its end, and puts the job off. There is no last attempt.
    async fn put_off(&self, lease: &Lease, error: &str) -> Result<Done, JobError> {
        let mut tx = self.db.begin().await?;
        lease.fence(&mut tx).await?;
        let failures = store::failed(&mut tx, &lease.subject, error).await?;
        let wait = backoff::delay(failures.unsigned_abs(), None, &self.clock);
        store::retry_in(&mut tx, &lease.subject, wait).await?;
        lease.reschedule(&mut tx, wait).await?;
        tx.commit().await?;
        tracing::warn!(
            error,
            ?wait,
            pipeline = lease.subject,
            "MLflow was not told of everything; trying again"
        );
        Ok(Done::Committed)
    }
}

impl Handler for Tracking {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async move {
            let look = Look { db: &self.db, client: &self.client, lease, pipeline: &lease.subject };
            match lease.keep(&self.db, Box::pin(look.deliver())).await? {
                Ok(()) => Ok(Done::Committed),
                Err(Stop::Mlflow(error)) => self.put_off(lease, &error.to_string()).await,
                Err(Stop::Said(sentence)) => self.put_off(lease, &sentence).await,
                Err(Stop::Job(error)) => Err(error),
            }
        }
        .boxed()
    }

    fn retried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        lease: &'a Lease,
        message: &'a str,
        wait: Duration,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        async move {
            store::failed(conn, &lease.subject, message).await?;
            store::retry_in(conn, &lease.subject, wait).await
        }
        .boxed()
    }
}

/// Why a look ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// A call failed.
    Mlflow(MlflowError),
    /// Something stands in the way, in one sentence.
    Said(String),
    /// The database failed, or the lease is lost.
    Job(JobError),
}

impl From<MlflowError> for Stop {
    fn from(error: MlflowError) -> Self {
        Self::Mlflow(error)
    }
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Job(error.into())
    }
}

impl From<FenceError> for Stop {
    fn from(error: FenceError) -> Self {
        Self::Job(error.into())
    }
}

impl From<LeaseLost> for Stop {
    fn from(error: LeaseLost) -> Self {
        Self::Job(error.into())
    }
}
