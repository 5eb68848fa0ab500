//! Runs, their steps and events, as they are read.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use sqlx::types::Json;
use uuid::Uuid;

use crate::dataset::Manifest;
use crate::preflight::PreflightReport;

use super::{Place, Request, Run, RunStatus, Step, Trigger};

/// The run with this key.
pub async fn by_id(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Run>> {
    Ok(select(db, Some(id), None, None, None, 1).await?.pop())
}

/// Runs newest first, older than `before`.
pub async fn list(
    db: impl PgExecutor<'_>,
    pipeline: Option<&str>,
    status: Option<RunStatus>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    select(db, None, pipeline, status, before, limit).await
}

async fn select(
    db: impl PgExecutor<'_>,
    id: Option<Uuid>,
    pipeline: Option<&str>,
    status: Option<RunStatus>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as!(
        Run,
        r#"SELECT id, pipeline, config_version, trigger AS "trigger: Trigger", base_model, slot,
                  status AS "status: RunStatus", step AS "step: Step", place AS "place: Place",
                  reason_code, reason, request AS "request: Request", request_actor, request_reason,
                  approved_by, approval_reason, version,
                  dataset_digest, collected AS "collected: Json<Manifest>", preflight AS "preflight: Json<PreflightReport>",
                  training_id, model_version_id, experiment_id, created_at, started_at,
                  finished_at
             FROM runs
            WHERE ($1::uuid IS NULL OR id = $1) AND ($2::text IS NULL OR pipeline = $2)
              AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $5"#,
        id,
        pipeline,
        status as Option<RunStatus>,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The passage of a run through one step.
#[derive(Debug, Clone)]
pub struct RunStep {
    /// The step.
    pub step: Step,
    /// When it was entered.
    pub started_at: DateTime<Utc>,
    /// When it was left.
    pub finished_at: Option<DateTime<Utc>>,
    /// Errors met so far.
    pub retries: i32,
}

/// The steps a run has entered, in their order.
pub async fn steps_of(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Vec<RunStep>> {
    let mut steps = sqlx::query_as!(
        RunStep,
        r#"SELECT step AS "step: Step", started_at, finished_at, retries FROM run_steps WHERE run_id = $1"#,
        run,
    )
    .fetch_all(db)
    .await?;
    steps.sort_by_key(|step| step.step);
    Ok(steps)
}

/// One event of a run's history.
#[derive(Debug, Clone)]
pub struct RunEvent {
    /// Grows with time; what a reader continues from.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// In which step.
    pub step: Step,
    /// `entered`, `progress`, `waiting`, `retry`, `requested` or `finished`.
    pub kind: String,
    /// What happened, in one sentence.
    pub message: String,
    /// The same in figures.
    pub data: Value,
}

/// Events of a run after the event `after` (0 for the first), oldest first.
pub async fn events_after(
    db: impl PgExecutor<'_>,
    run: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<RunEvent>> {
    sqlx::query_as!(
        RunEvent,
        r#"SELECT id, at, step AS "step: Step", kind, message, data FROM run_events
            WHERE run_id = $1 AND id > $2 ORDER BY id LIMIT $3"#,
        run,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}
