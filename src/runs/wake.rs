//! Waking the runs of a pipeline when something that they may wait for has happened.

use sqlx::PgConnection;

use super::JOB_KIND;
use crate::jobs;

/// Lets every unfinished run of a pipeline look again. Part of the transaction of what happened.
pub async fn wake_all(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    let runs = sqlx::query_scalar!(
        "SELECT id FROM runs WHERE pipeline = $1 AND finished_at IS NULL ORDER BY id",
        pipeline
    )
    .fetch_all(&mut *conn)
    .await?;
    for run in runs {
        jobs::wake(&mut *conn, JOB_KIND, &run.to_string()).await?;
    }
    Ok(())
}
