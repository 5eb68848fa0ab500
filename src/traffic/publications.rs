//! Tells the jobs that publish a pipeline's traffic of a change, in the transaction of the change.

use sqlx::PgConnection;

use crate::jobs;

/// The kind of job that publishes; its subject is [`publication_subject`].
pub const PUBLISH: &str = "publish";

/// The subject of the job that publishes a pipeline's traffic at a target.
#[must_use]
pub fn publication_subject(pipeline: &str, target: &str) -> String {
    format!("{pipeline}/{target}")
}

/// Wakes the job of each target that the pipeline has.
pub async fn wake_publications(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    let targets = sqlx::query_scalar!(
        "SELECT target FROM publications WHERE pipeline = $1 AND active ORDER BY target",
        pipeline,
    )
    .fetch_all(&mut *conn)
    .await?;
    for target in targets {
        jobs::wake(conn, PUBLISH, &publication_subject(pipeline, &target)).await?;
    }
    Ok(())
}
