//! What MLflow was told, in the database.

mod read;
mod state;

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

pub(super) use read::{run, runs_left, versions};
pub use state::{TrackingState, TrackingStatus, state};
pub(super) use state::{delivered, due, failed, identity, meet_model, meet_server, retry_in};

/// Where a run stands in MLflow; `settle` is how long an unanswered create is waited for.
pub(super) async fn place(
    db: impl PgExecutor<'_>,
    run: Uuid,
    settle: f64,
) -> sqlx::Result<super::facts::RunPlace> {
    let place = sqlx::query_as!(
        super::facts::RunPlace,
        r#"SELECT mlflow_run_id, coalesce(create_sent_at > now() - make_interval(secs => $2), false) AS "unsettled!",
                  delivered
             FROM tracking_runs WHERE run_id = $1"#,
        run,
        settle,
    )
    .fetch_optional(db)
    .await?;
    Ok(place.unwrap_or(super::facts::RunPlace { delivered: serde_json::json!({}), ..Default::default() }))
}

/// Notes that the create of a run is about to be sent.
pub(super) async fn mark_run(conn: &mut PgConnection, run: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_runs (run_id, create_sent_at) VALUES ($1, now())
         ON CONFLICT (run_id) DO UPDATE SET create_sent_at = now()",
        run,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that nothing came of it.
pub(super) async fn unmark_run(conn: &mut PgConnection, run: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE tracking_runs SET create_sent_at = NULL WHERE run_id = $1", run)
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps MLflow's key of a run.
pub(super) async fn keep_run(conn: &mut PgConnection, run: Uuid, mlflow_run: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_runs (run_id, mlflow_run_id) VALUES ($1, $2)
         ON CONFLICT (run_id) DO UPDATE SET mlflow_run_id = $2, create_sent_at = NULL",
        run,
        mlflow_run,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that somebody deleted a run in MLflow.
pub(super) async fn forsake_run(conn: &mut PgConnection, run: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_runs (run_id, gone) VALUES ($1, true)
         ON CONFLICT (run_id) DO UPDATE SET gone = true, create_sent_at = NULL, error = NULL",
        run,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps what was delivered of a run at a version of it.
pub(super) async fn keep_delivered(
    conn: &mut PgConnection,
    run: Uuid,
    version: i64,
    settled: bool,
    delivered: &Value,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tracking_runs SET run_version = $2, settled = $3, delivered = $4, error = NULL WHERE run_id = $1",
        run,
        version,
        settled,
        delivered,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what MLflow refused of a run.
pub(super) async fn refused_run(conn: &mut PgConnection, run: Uuid, error: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_runs (run_id, error) VALUES ($1, $2)
         ON CONFLICT (run_id) DO UPDATE SET error = $2",
        run,
        error,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the create of a version is about to be sent.
pub(super) async fn mark_version(conn: &mut PgConnection, version: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_versions (model_version_id, create_sent_at) VALUES ($1, now())
         ON CONFLICT (model_version_id) DO UPDATE SET create_sent_at = now()",
        version,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that nothing came of it.
pub(super) async fn unmark_version(conn: &mut PgConnection, version: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE tracking_versions SET create_sent_at = NULL WHERE model_version_id = $1", version)
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps MLflow's number of a version and what was delivered of it.
pub(super) async fn keep_version(
    conn: &mut PgConnection,
    version: Uuid,
    mlflow_version: &str,
    delivered: &Value,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_versions (model_version_id, mlflow_version, delivered) VALUES ($1, $2, $3)
         ON CONFLICT (model_version_id) DO UPDATE
         SET mlflow_version = $2, delivered = $3, create_sent_at = NULL, error = NULL",
        version,
        mlflow_version,
        delivered,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that somebody deleted a version in MLflow.
pub(super) async fn forsake_version(conn: &mut PgConnection, version: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tracking_versions SET gone = true, error = NULL WHERE model_version_id = $1",
        version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what MLflow refused of a version.
pub(super) async fn refused_version(conn: &mut PgConnection, version: Uuid, error: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tracking_versions (model_version_id, error) VALUES ($1, $2)
         ON CONFLICT (model_version_id) DO UPDATE SET error = $2",
        version,
        error,
    )
    .execute(conn)
    .await?;
    Ok(())
}
