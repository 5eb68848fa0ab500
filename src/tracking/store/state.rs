//! Where the delivery of a pipeline stands.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;

/// An event that is committed this long after it was given its number is not missed.
const LATE_COMMIT: Duration = Duration::from_mins(5);
/// While such an event may come, and while reports are owed, there is a look this often.
const LATE_LOOK: Duration = Duration::from_mins(1);
/// While a training is under way its curve is looked at this often.
const CURVE_LOOK: Duration = Duration::from_secs(10);

/// Pipelines of which MLflow may have to be told something.
pub(in crate::tracking) async fn due(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT p.name FROM pipelines p LEFT JOIN tracking_state s ON s.pipeline = p.name
          WHERE s.look_again_at <= now()
             OR EXISTS (SELECT FROM audit_events a WHERE a.pipeline = p.name AND a.id > coalesce(s.seen_event, 0))
          ORDER BY p.name",
    )
    .fetch_all(db)
    .await
}

/// The server, experiment and registered model that were told so far.
#[derive(Debug, Default)]
pub(in crate::tracking) struct Identity {
    pub(in crate::tracking) server: Option<String>,
    pub(in crate::tracking) experiment_id: Option<String>,
    pub(in crate::tracking) experiment_created_at: Option<i64>,
    pub(in crate::tracking) model_created_at: Option<i64>,
    /// The newest audit event at this moment.
    pub(in crate::tracking) newest_event: i64,
}

/// Who was told so far, and the newest event: to be asked before anything else is read.
pub(in crate::tracking) async fn identity(db: &PgPool, pipeline: &str) -> sqlx::Result<Identity> {
    sqlx::query_as!(
        Identity,
        r#"SELECT s.server AS "server?", s.experiment_id AS "experiment_id?",
                  s.experiment_created_at AS "experiment_created_at?", s.model_created_at AS "model_created_at?",
                  coalesce((SELECT max(id) FROM audit_events WHERE pipeline = $1), 0) AS "newest_event!"
             FROM (SELECT) one LEFT JOIN tracking_state s ON s.pipeline = $1"#,
        pipeline,
    )
    .fetch_one(db)
    .await
}

/// Begins to tell another server or experiment: nothing was told to it yet.
pub(in crate::tracking) async fn meet_server(
    conn: &mut PgConnection,
    pipeline: &str,
    server: &str,
    experiment: &str,
    created_at: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM tracking_runs t USING runs r WHERE r.id = t.run_id AND r.pipeline = $1",
        pipeline,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM tracking_versions t USING model_versions v WHERE v.id = t.model_version_id AND v.pipeline = $1",
        pipeline,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO tracking_state (pipeline, server, experiment_id, experiment_created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (pipeline) DO UPDATE
         SET server = $2, experiment_id = $3, experiment_created_at = $4, model_created_at = NULL",
        pipeline,
        server,
        experiment,
        created_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Begins to tell another registered model: it has no versions of ours yet.
pub(in crate::tracking) async fn meet_model(
    conn: &mut PgConnection,
    pipeline: &str,
    created_at: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM tracking_versions t USING model_versions v WHERE v.id = t.model_version_id AND v.pipeline = $1",
        pipeline,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("UPDATE tracking_state SET model_created_at = $2 WHERE pipeline = $1", pipeline, created_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that all up to an event was delivered, and when to look without one.
///
/// Events are numbered before they are committed: one with a smaller number may come after a look. None is missed, because
/// there are looks without events for a while after each event.
pub(in crate::tracking) async fn delivered(
    conn: &mut PgConnection,
    pipeline: &str,
    seen_event: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tracking_state SET seen_event = $2, delivered_at = now(), last_error = NULL, failing_since = NULL,
                failures = 0, retry_at = NULL,
                look_again_at = CASE
                    WHEN EXISTS (SELECT FROM runs r JOIN trainings t ON t.run_id = r.id
                                  WHERE r.pipeline = $1 AND r.finished_at IS NULL AND t.finished_at IS NULL
                                    AND t.provider_job_id IS NOT NULL)
                    THEN now() + make_interval(secs => $3)
                    WHEN EXISTS (SELECT FROM runs r JOIN tracking_runs t ON t.run_id = r.id
                                  WHERE r.pipeline = $1 AND r.finished_at IS NOT NULL AND NOT t.settled AND NOT t.gone)
                      OR EXISTS (SELECT FROM audit_events a WHERE a.id = $2 AND a.at > now() - make_interval(secs => $5))
                    THEN now() + make_interval(secs => $4) END
          WHERE pipeline = $1",
        pipeline,
        seen_event,
        CURVE_LOOK.as_secs_f64(),
        LATE_LOOK.as_secs_f64(),
        LATE_COMMIT.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an attempt failed, and returns how many have failed in a row.
pub(in crate::tracking) async fn failed(
    conn: &mut PgConnection,
    pipeline: &str,
    error: &str,
) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        "INSERT INTO tracking_state AS s (pipeline, last_error, failing_since, failures, retry_at)
         VALUES ($1, $2, now(), 1, now())
         ON CONFLICT (pipeline) DO UPDATE
         SET last_error = $2, failing_since = coalesce(s.failing_since, now()), failures = s.failures + 1, retry_at = now()
         RETURNING failures",
        pipeline,
        error,
    )
    .fetch_one(conn)
    .await
}

/// Notes when the next attempt is to be made.
pub(in crate::tracking) async fn retry_in(
    conn: &mut PgConnection,
    pipeline: &str,
    wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tracking_state SET retry_at = now() + make_interval(secs => $2) WHERE pipeline = $1",
        pipeline,
        wait.as_secs_f64(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether MLflow has all of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrackingStatus {
    /// Nothing was delivered yet: MLflow is not set, or the first delivery is still to come.
    Off,
    /// MLflow has all of it.
    Delivered,
    /// Something is to be delivered.
    Behind,
    /// The newest attempt failed, and another one is to come.
    Failing,
}

/// Where the delivery of a pipeline to MLflow stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TrackingState {
    /// Whether MLflow has all of it.
    pub status: TrackingStatus,
    /// The key of the pipeline's experiment in MLflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// When everything was delivered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<DateTime<Utc>>,
    /// When the oldest change was made that MLflow was not told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<DateTime<Utc>>,
    /// Why the newest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When attempts began to fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// Attempts that failed in a row.
    pub failures: i32,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    /// Runs that MLflow has.
    pub runs: i64,
    /// Model versions that MLflow has.
    pub versions: i64,
    /// Runs and versions that somebody deleted in MLflow; they are left alone.
    pub deleted: i64,
    /// Runs and versions of which MLflow refused something.
    pub refused: i64,
}

/// Where the delivery of a pipeline stands; `None` where there is no such pipeline.
pub async fn state(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<Option<TrackingState>> {
    let row = sqlx::query!(
        r#"SELECT s.pipeline IS NOT NULL AS "begun!", s.experiment_id AS "experiment_id?", s.delivered_at AS "delivered_at?",
                  s.last_error AS "last_error?", s.failing_since AS "failing_since?", coalesce(s.failures, 0) AS "failures!",
                  s.retry_at AS "retry_at?",
                  (SELECT a.at FROM audit_events a WHERE a.pipeline = p.name AND a.id > s.seen_event
                    ORDER BY a.id LIMIT 1) AS behind_since,
                  r.had AS "runs!", v.had AS "versions!", r.gone + v.gone AS "deleted!", r.refused + v.refused AS "refused!"
             FROM pipelines p
             LEFT JOIN tracking_state s ON s.pipeline = p.name
            CROSS JOIN LATERAL (
                SELECT count(t.mlflow_run_id) FILTER (WHERE NOT t.gone) AS had, count(*) FILTER (WHERE t.gone) AS gone,
                       count(t.error) AS refused
                  FROM tracking_runs t JOIN runs r ON r.id = t.run_id WHERE r.pipeline = p.name) r
            CROSS JOIN LATERAL (
                SELECT count(t.mlflow_version) FILTER (WHERE NOT t.gone) AS had, count(*) FILTER (WHERE t.gone) AS gone,
                       count(t.error) AS refused
                  FROM tracking_versions t JOIN model_versions v ON v.id = t.model_version_id
                 WHERE v.pipeline = p.name) v
            WHERE p.name = $1"#,
        pipeline,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| TrackingState {
        status: match (row.begun, &row.last_error, row.behind_since) {
            (false, ..) => TrackingStatus::Off,
            (true, Some(_), _) => TrackingStatus::Failing,
            (true, None, Some(_)) => TrackingStatus::Behind,
            (true, None, None) => TrackingStatus::Delivered,
        },
        experiment_id: row.experiment_id,
        delivered_at: row.delivered_at,
        behind_since: row.behind_since,
        error: row.last_error,
        failing_since: row.failing_since,
        failures: row.failures,
        retry_at: row.retry_at,
        runs: row.runs,
        versions: row.versions,
        deleted: row.deleted,
        refused: row.refused,
    }))
}
