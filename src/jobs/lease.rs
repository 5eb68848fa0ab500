//! The right to work on a job for a limited time, and the fenced writes it allows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

/// The job belongs to another worker by now, or has ended: control flow, not a failure. Nothing was changed.
#[derive(Debug, Error)]
#[error("the lease on this job was lost")]
pub struct LeaseLost;

/// Why a fenced write did not happen.
#[derive(Debug, Error)]
pub enum FenceError {
    /// The token no longer matches.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A claimed job. The lease ends by the database's clock; [`Lease::deadline`] is the local moment, with a
/// margin, by which the work must have committed.
#[derive(Debug)]
pub struct Lease {
    /// The job's row.
    pub job_id: i64,
    /// What kind of work it is.
    pub kind: String,
    /// What the work is about, such as a run's id.
    pub subject: String,
    /// The kind's own data.
    pub payload: Value,
    /// Counts claims since the last progress, from 1.
    pub attempt: u32,
    /// After this many attempts a retryable error is final.
    pub max_attempts: u32,
    pub(super) token: Uuid,
    pub(super) length: Duration,
    pub(super) deadline: Mutex<Instant>,
}

impl Lease {
    /// The part of a lease that work may use; the rest is for its commit and for clocks that differ in speed.
    pub(super) fn usable(length: Duration) -> Duration {
        length.mul_f64(0.8)
    }

    /// The moment at which work on this job is stopped, unless the lease is renewed before.
    pub fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the lease anew, for work that takes longer than one.
    pub async fn renew(&self, db: &PgPool) -> Result<(), FenceError> {
        let before = Instant::now();
        let touched = sqlx::query!(
            "UPDATE jobs SET lease_expires_at = now() + make_interval(secs => $3)
             WHERE id = $1 AND lease_token = $2",
            self.job_id,
            self.token,
            self.length.as_secs_f64(),
        )
        .execute(db)
        .await?
        .rows_affected();
        one_row(touched)?;
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = before + Self::usable(self.length);
        Ok(())
    }

    /// Renews the lease for as long as `work` takes. Dropped with the lease where another worker has it.
    ///
    /// Both go on side by side: a renewal may have to wait for the work, which holds the job's row where it writes.
    pub async fn keep<T>(&self, db: &PgPool, work: impl Future<Output = T>) -> Result<T, LeaseLost> {
        let renewals = async {
            loop {
                tokio::time::sleep(self.length / 4).await;
                match self.renew(db).await {
                    Ok(()) => {}
                    Err(FenceError::Lost(lost)) => return lost,
                    // There is time for another try before the deadline.
                    Err(FenceError::Database(error)) => {
                        tracing::warn!(%error, "the lease could not be renewed");
                    }
                }
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            lost = renewals => Err(lost),
        }
    }

    /// To be asked right before what cannot be taken back: a worker that was frozen past its deadline does
    /// not begin it, because another may have done it by now.
    pub fn check_deadline(&self) -> Result<(), LeaseLost> {
        if Instant::now() < self.deadline() { Ok(()) } else { Err(LeaseLost) }
    }

    /// Holds the job's row for the rest of the transaction, so that what is written in it is written by the
    /// worker that holds the lease, or not at all.
    pub async fn fence(&self, conn: &mut PgConnection) -> Result<(), FenceError> {
        let held = sqlx::query_scalar!(
            "SELECT true FROM jobs WHERE id = $1 AND lease_token = $2 FOR UPDATE",
            self.job_id,
            self.token,
        )
        .fetch_optional(conn)
        .await?;
        held.map(|_| ()).ok_or(FenceError::Lost(LeaseLost))
    }

    /// Ends the job within the caller's transaction; woken meanwhile, it becomes due again instead.
    pub async fn finish(&self, conn: &mut PgConnection) -> Result<(), FenceError> {
        let touched = sqlx::query!(
            "UPDATE jobs SET state = CASE WHEN woken THEN 'ready' ELSE 'done' END,
                    finished_at = CASE WHEN woken THEN NULL ELSE now() END,
                    run_at = now(), attempt = 0, woken = false,
                    lease_token = NULL, lease_expires_at = NULL, last_error = NULL
             WHERE id = $1 AND lease_token = $2",
            self.job_id,
            self.token,
        )
        .execute(conn)
        .await?
        .rows_affected();
        Ok(one_row(touched)?)
    }

    /// Gives the job back after progress, due again after `after` (at once if it was woken meanwhile). Its
    /// attempts are counted anew. Other workers are not told: the one that lets go of the job looks again.
    pub async fn reschedule(&self, conn: &mut PgConnection, after: Duration) -> Result<(), FenceError> {
        self.give_back(conn, after, None).await
    }

    /// Gives the job back after an error, keeping the count of attempts.
    pub(super) async fn retry(
        &self,
        conn: &mut PgConnection,
        after: Duration,
        error: &str,
    ) -> Result<(), FenceError> {
        self.give_back(conn, after, Some(error)).await
    }

    async fn give_back(
        &self,
        conn: &mut PgConnection,
        after: Duration,
        error: Option<&str>,
    ) -> Result<(), FenceError> {
        let touched = sqlx::query!(
            "UPDATE jobs SET state = 'ready',
                    run_at = CASE WHEN woken THEN now() ELSE now() + make_interval(secs => $3) END,
                    attempt = CASE WHEN $4::text IS NULL THEN 0 ELSE attempt END,
                    woken = false, lease_token = NULL, lease_expires_at = NULL, last_error = $4
             WHERE id = $1 AND lease_token = $2",
            self.job_id,
            self.token,
            after.as_secs_f64(),
            error,
        )
        .execute(conn)
        .await?
        .rows_affected();
        Ok(one_row(touched)?)
    }

    /// Ends the job as failed; an operator may put it back.
    pub(super) async fn fail(&self, conn: &mut PgConnection, error: &str) -> Result<(), FenceError> {
        let touched = sqlx::query!(
            "UPDATE jobs SET state = 'failed', finished_at = now(), woken = false,
                    lease_token = NULL, lease_expires_at = NULL, last_error = $3
             WHERE id = $1 AND lease_token = $2",
            self.job_id,
            self.token,
            error,
        )
        .execute(conn)
        .await?
        .rows_affected();
        Ok(one_row(touched)?)
    }
}

fn one_row(touched: u64) -> Result<(), LeaseLost> {
    if touched == 1 { Ok(()) } else { Err(LeaseLost) }
}
