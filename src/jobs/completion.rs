//! Ending many jobs with one statement: what makes small jobs cheap.

use std::collections::HashSet;

use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// A job that its handler has done and that the worker ends.
pub(super) struct Finished {
    pub(super) job_id: i64,
    pub(super) token: Uuid,
    pub(super) kind: String,
}

/// What one statement did.
struct Ended {
    /// The jobs whose leases still held.
    ids: HashSet<i64>,
    /// Whether one of them was woken meanwhile and is due again.
    due_again: bool,
}

/// Ends jobs as they arrive, all that are waiting at once, until the channel closes. `settled` is called for
/// each with whether its lease still held; `nudge` is notified when one is due again.
pub(super) async fn run(
    db: PgPool,
    mut arrivals: mpsc::Receiver<Finished>,
    batch: usize,
    nudge: &Notify,
    settled: impl Fn(&Finished, bool),
) {
    let mut waiting = Vec::with_capacity(batch);
    while arrivals.recv_many(&mut waiting, batch).await > 0 {
        let ended = match end(&db, &waiting).await {
            // A connection that broke, most likely: the pool opens another, and doing it twice is harmless.
            Err(error) => {
                tracing::warn!(%error, "finished jobs could not be ended; trying once more");
                end(&db, &waiting).await
            }
            ended => ended,
        };
        match ended {
            Ok(ended) => {
                for job in &waiting {
                    settled(job, ended.ids.contains(&job.job_id));
                }
                if ended.due_again {
                    nudge.notify_one();
                }
            }
            // Their leases expire and they run again: handlers are idempotent, so nothing is lost.
            Err(error) => {
                tracing::error!(%error, jobs = waiting.len(), "finished jobs could not be ended");
            }
        }
        waiting.clear();
    }
}

/// Jobs that are missing from the answer had lost their leases and are unchanged.
async fn end(db: &PgPool, jobs: &[Finished]) -> sqlx::Result<Ended> {
    let ids: Vec<i64> = jobs.iter().map(|job| job.job_id).collect();
    let tokens: Vec<Uuid> = jobs.iter().map(|job| job.token).collect();
    let ended = sqlx::query!(
        "UPDATE jobs SET state = CASE WHEN woken THEN 'ready' ELSE 'done' END,
                finished_at = CASE WHEN woken THEN NULL ELSE now() END,
                run_at = now(), attempt = 0, woken = false,
                lease_token = NULL, lease_expires_at = NULL, last_error = NULL
           FROM unnest($1::bigint[], $2::uuid[]) AS finished (id, token)
          WHERE jobs.id = finished.id AND lease_token = finished.token
         RETURNING jobs.id, state = 'ready' AS \"due_again!\"",
        &ids,
        &tokens,
    )
    .fetch_all(db)
    .await?;
    Ok(Ended {
        due_again: ended.iter().any(|job| job.due_again),
        ids: ended.into_iter().map(|job| job.id).collect(),
    })
}
