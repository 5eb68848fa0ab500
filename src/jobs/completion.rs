//! Ending many jobs with one statement: what makes small jobs cheap.

use std::collections::HashSet;

use sqlx::PgPool;
use tokio::sync::mpsc;
use uuid::Uuid;

/// A job that its handler has done and that the worker ends.
pub(super) struct Finished {
    pub(super) job_id: i64,
    pub(super) token: Uuid,
    pub(super) kind: String,
}

/// Ends jobs as they arrive, all that are waiting at once, until the channel closes. `settled` is called for
/// each with whether its lease still held.
pub(super) async fn run(
    db: PgPool,
    mut arrivals: mpsc::Receiver<Finished>,
    batch: usize,
    settled: impl Fn(&Finished, bool),
) {
    let mut waiting = Vec::with_capacity(batch);
    while arrivals.recv_many(&mut waiting, batch).await > 0 {
        match end(&db, &waiting).await {
            Ok(ended) => waiting.iter().for_each(|job| settled(job, ended.contains(&job.job_id))),
            // Their leases expire and they run again: handlers are idempotent, so nothing is lost.
            Err(error) => {
                tracing::error!(%error, jobs = waiting.len(), "finished jobs could not be ended");
            }
        }
        waiting.clear();
    }
}

/// Returns the ids of the jobs it ended; what is missing had lost its lease and is unchanged.
async fn end(db: &PgPool, jobs: &[Finished]) -> sqlx::Result<HashSet<i64>> {
    let ids: Vec<i64> = jobs.iter().map(|job| job.job_id).collect();
    let tokens: Vec<Uuid> = jobs.iter().map(|job| job.token).collect();
    let ended = sqlx::query_scalar!(
        "UPDATE jobs SET state = CASE WHEN woken THEN 'ready' ELSE 'done' END,
                finished_at = CASE WHEN woken THEN NULL ELSE now() END,
                run_at = now(), attempt = 0, woken = false,
                lease_token = NULL, lease_expires_at = NULL, last_error = NULL
           FROM unnest($1::bigint[], $2::uuid[]) AS finished (id, token)
          WHERE jobs.id = finished.id AND lease_token = finished.token
         RETURNING jobs.id",
        &ids,
        &tokens,
    )
    .fetch_all(db)
    .await?;
    Ok(ended.into_iter().collect())
}
