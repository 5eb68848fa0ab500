//! Taking jobs, many at a time, and taking back those whose worker is gone.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use uuid::Uuid;

use super::Lease;

/// However many jobs wait, the oldest are read off the index `jobs_ready`. Left to itself the planner believes
/// its statistics, and after a burst of jobs those say that few are ready: it then sorts all of them in each
/// claim.
///
/// A claim does not wait for the disk. If the server crashes before it is written, the job is ready as before
/// and the token that the worker has is worth nothing; and whatever is committed under a lease is written
/// after the lease.
const SESSION: &str = "SET enable_sort = off; SET enable_bitmapscan = off; SET enable_seqscan = off; \
                       SET synchronous_commit = off";

/// The worker's own connection for looking at the table, so that claims wait for no step to give one back.
pub(super) struct Table {
    db: PgPool,
    connection: Option<PoolConnection<Postgres>>,
}

impl Table {
    pub(super) fn new(db: PgPool) -> Self {
        Self { db, connection: None }
    }

    /// Opens the connection, if it is not open.
    pub(super) async fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let mut connection = self.db.acquire().await?;
            // Its settings are for nobody else.
            connection.close_on_drop();
            sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
            connection
        };
        Ok(self.connection.insert(connection))
    }

    /// Lets go of a connection that may be broken; the next look opens another.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }
}

/// Leases up to `limit` due jobs of the given kinds, oldest first. Rows that another worker is about to take
/// are skipped, not waited for.
pub(super) async fn claim(
    conn: &mut PgConnection,
    kinds: &[String],
    limit: usize,
    length: Duration,
    token: Uuid,
) -> sqlx::Result<Vec<Lease>> {
    let before = Instant::now();
    let rows = sqlx::query!(
        "WITH due AS (
             SELECT id FROM jobs
              WHERE state = 'ready' AND run_at <= now() AND kind = ANY($1)
              ORDER BY run_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
         UPDATE jobs SET state = 'leased', attempt = attempt + 1, lease_token = $3,
                lease_expires_at = now() + make_interval(secs => $4)
           FROM due WHERE jobs.id = due.id
         RETURNING jobs.id, kind, subject, payload, attempt, max_attempts",
        kinds,
        i64::try_from(limit).unwrap_or(i64::MAX),
        token,
        length.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Lease {
            job_id: row.id,
            kind: row.kind,
            subject: row.subject,
            payload: row.payload,
            attempt: row.attempt.unsigned_abs(),
            max_attempts: row.max_attempts.unsigned_abs(),
            token,
            length,
            deadline: Mutex::new(before + Lease::usable(length)),
        })
        .collect())
}

/// Makes jobs due again whose lease has run out: their worker was killed, or hangs.
pub(super) async fn take_back_expired(conn: &mut PgConnection) -> sqlx::Result<u64> {
    Ok(sqlx::query!(
        "UPDATE jobs SET state = 'ready', run_at = now(), woken = false, lease_token = NULL,
                lease_expires_at = NULL, last_error = 'the worker stopped before it was done'
          WHERE id IN (SELECT id FROM jobs WHERE state = 'leased' AND lease_expires_at < now()
                        LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    )
    .execute(conn)
    .await?
    .rows_affected())
}

/// Gives unfinished jobs back at shutdown; the interrupted attempt does not count. Other workers are told.
pub(super) async fn give_back(
    db: &PgPool,
    leases: impl IntoIterator<Item = (i64, Uuid)>,
) -> sqlx::Result<()> {
    let (ids, tokens): (Vec<i64>, Vec<Uuid>) = leases.into_iter().unzip();
    let mut tx = db.begin().await?;
    sqlx::query!(
        "UPDATE jobs SET state = 'ready', run_at = now(), woken = false, attempt = greatest(attempt - 1, 0),
                lease_token = NULL, lease_expires_at = NULL
           FROM unnest($1::bigint[], $2::uuid[]) AS held (id, token)
          WHERE jobs.id = held.id AND lease_token = held.token",
        &ids,
        &tokens,
    )
    .execute(&mut *tx)
    .await?;
    super::announce(&mut tx).await?;
    tx.commit().await
}

/// How long until the next job of these kinds is due, if one is waiting.
pub(super) async fn next_due(conn: &mut PgConnection, kinds: &[String]) -> sqlx::Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        "SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM jobs
          WHERE state = 'ready' AND kind = ANY($1) ORDER BY run_at, id LIMIT 1",
        kinds,
    )
    .fetch_optional(conn)
    .await?
    .flatten();
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}
