//! The two places of a pipeline: one run is being built, one is proving its model.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::transition::Verdict;
use super::{JOB_KIND, Place, Run, RunStatus, Step, finish, rollout, store};
use crate::audit::By;
use crate::jobs;

/// The run that is proving its model, if any.
pub(super) async fn proving(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<Option<Run>> {
    in_place(conn, pipeline, Place::Proving).await
}

/// The run in a place, if any.
pub(super) async fn in_place(
    conn: &mut PgConnection,
    pipeline: &str,
    place: Place,
) -> sqlx::Result<Option<Run>> {
    let id = sqlx::query_scalar!(
        "SELECT id FROM runs WHERE pipeline = $1 AND place = $2 FOR UPDATE",
        pipeline,
        place as Place,
    )
    .fetch_optional(&mut *conn)
    .await?;
    match id {
        Some(id) => store::by_id(conn, id).await,
        None => Ok(None),
    }
}

/// Makes the proving place free for `newcomer` where it can be: an older run's watch ends, unless its version is still being
/// rolled out. Returns the run that keeps the place, if it does not. The caller holds the pipeline's lock.
pub(super) async fn vacate(conn: &mut PgConnection, newcomer: &Run) -> sqlx::Result<Option<Uuid>> {
    let Some(older) = proving(conn, &newcomer.pipeline).await? else { return Ok(None) };
    if older.id == newcomer.id {
        return Ok(None);
    }
    if older.step != Step::Watch || rollout::is_under_way(conn, &older).await? {
        return Ok(Some(older.id));
    }
    let verdict = Verdict {
        status: RunStatus::Succeeded,
        code: "watch_superseded".into(),
        reason: format!("the watch ended without harm because the test of run {} began", newcomer.id),
    };
    finish::finish(conn, &older, &verdict, &json!({"newcomer": newcomer.id}), &By::worker()).await?;
    // Its job finds the run finished and ends.
    jobs::wake(conn, JOB_KIND, &older.id.to_string()).await?;
    Ok(None)
}

/// Wakes the run that waits for the proving place, now that `leaver` has left it.
pub(super) async fn wake_waiting(conn: &mut PgConnection, leaver: &Run) -> sqlx::Result<()> {
    if leaver.place != Some(Place::Proving) {
        return Ok(());
    }
    let waiting = sqlx::query_scalar!(
        "SELECT id FROM runs WHERE pipeline = $1 AND place = 'building' AND step = 'test'",
        leaver.pipeline,
    )
    .fetch_optional(&mut *conn)
    .await?;
    match waiting {
        Some(id) => jobs::wake(conn, JOB_KIND, &id.to_string()).await,
        None => Ok(()),
    }
}
