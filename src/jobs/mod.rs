//! The job table: "do this piece of work at this time". Claim, lease, retry, worker loop; it knows nothing
//! of models.
//!
//! A worker claims jobs in batches and holds a *lease* on each, never a transaction. Every write it makes for
//! a job carries the lease's token and must touch that job's row; a worker that was too slow finds its token
//! gone and changes nothing. What cannot wait for the next poll is announced with `NOTIFY`.

pub mod backoff;
mod claim;
mod completion;
mod handler;
pub mod lease;
mod wakeups;
pub mod worker;

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use std::time::Duration;

pub use handler::{Done, Handler, JobError};
pub use lease::{Lease, LeaseLost};
pub use worker::{Worker, WorkerSettings};

/// The Postgres channel on which new and woken jobs are announced.
const CHANNEL: &str = "tuneloop_jobs";

/// Puts a job in the table within the caller's transaction, so that it exists exactly if the state it serves
/// does. Where an unfinished job of this kind and subject stands already, nothing is added.
///
/// Returns whether a row was added.
pub async fn enqueue(
    conn: &mut PgConnection,
    kind: &str,
    subject: &str,
    payload: &Value,
    after: Duration,
) -> sqlx::Result<bool> {
    let added = sqlx::query!(
        "INSERT INTO jobs (kind, subject, payload, run_at)
         VALUES ($1, $2, $3, now() + make_interval(secs => $4))
         ON CONFLICT (kind, subject) WHERE state IN ('ready', 'leased') DO NOTHING",
        kind,
        subject,
        payload,
        after.as_secs_f64(),
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    announce(conn).await?;
    Ok(added == 1)
}

/// Makes the unfinished job of this kind and subject due now, or adds it. A job that a worker holds at this
/// moment runs once more when the worker lets go of it, so that no wake is lost.
pub async fn wake(conn: &mut PgConnection, kind: &str, subject: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO jobs (kind, subject) VALUES ($1, $2)
         ON CONFLICT (kind, subject) WHERE state IN ('ready', 'leased') DO UPDATE
         SET run_at = least(jobs.run_at, now()), woken = (jobs.state = 'leased')",
        kind,
        subject,
    )
    .execute(&mut *conn)
    .await?;
    announce(conn).await
}

/// Deletes finished jobs older than `age` and returns how many there were.
pub async fn delete_finished(db: impl PgExecutor<'_>, age: Duration) -> sqlx::Result<u64> {
    Ok(sqlx::query!(
        "DELETE FROM jobs WHERE state IN ('done', 'failed') AND finished_at < now() - make_interval(secs => $1)",
        age.as_secs_f64(),
    )
    .execute(db)
    .await?
    .rows_affected())
}

/// Tells the workers to look; delivered when the transaction commits, once however often it is called.
async fn announce(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_notify($1, '')", CHANNEL).execute(conn).await?;
    Ok(())
}
