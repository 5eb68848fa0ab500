//! How runs begin.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

use super::{JOB_KIND, Place, RunStatus, Trigger};
use crate::audit::{self, AuditEvent, By};
use crate::clock::Clock;
use crate::jobs;
use crate::pipelines::Pipeline;
use crate::traffic;

/// Why a run was not started. Nothing was changed.
#[derive(Debug, Error)]
pub enum TriggerError {
    /// Another run is being built.
    #[error("run {0} of this pipeline is being built; wait for it, or cancel it")]
    RunActive(Uuid),
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Starts a run because somebody asked for it.
pub async fn by_api(
    conn: &mut PgConnection,
    clock: &Clock,
    pipeline: &Pipeline,
    by: &By,
) -> Result<Uuid, TriggerError> {
    now(conn, clock, pipeline, Trigger::Api, None, by).await
}

/// Starts a run on the successor of a base model that is about to end. The pipeline's configuration stays a person's: the run
/// carries the base model itself.
pub async fn by_end_of_life(
    conn: &mut PgConnection,
    clock: &Clock,
    pipeline: &Pipeline,
    base_model: &str,
    by: &By,
) -> Result<Uuid, TriggerError> {
    now(conn, clock, pipeline, Trigger::EndOfLife, Some(base_model), by).await
}

async fn now(
    conn: &mut PgConnection,
    clock: &Clock,
    pipeline: &Pipeline,
    trigger: Trigger,
    base_model: Option<&str>,
    by: &By,
) -> Result<Uuid, TriggerError> {
    traffic::lock(conn, &pipeline.name).await?;
    if let Some(other) = building(conn, &pipeline.name).await? {
        return Err(TriggerError::RunActive(other));
    }
    let id = clock.uuid();
    insert(conn, id, pipeline, trigger, None, None).await?;
    if let Some(base_model) = base_model {
        sqlx::query!("UPDATE runs SET base_model = $2 WHERE id = $1", id, base_model)
            .execute(&mut *conn)
            .await?;
    }
    start(conn, id, pipeline, base_model, by).await?;
    Ok(id)
}

/// Starts the run of a slot, unless it was started before. Where another run is being built, the slot's run is
/// inserted as skipped.
///
/// Returns the run and how it begins, or `None` where the slot was taken care of already.
pub async fn by_schedule(
    conn: &mut PgConnection,
    clock: &Clock,
    pipeline: &Pipeline,
    slot: DateTime<Utc>,
    by: &By,
) -> sqlx::Result<Option<(Uuid, RunStatus)>> {
    traffic::lock(conn, &pipeline.name).await?;
    let id = clock.uuid();
    let other = building(conn, &pipeline.name).await?;
    if !insert(conn, id, pipeline, Trigger::Schedule, Some(slot), other).await? {
        return Ok(None);
    }
    if other.is_some() {
        let reason = "another run of the pipeline was being built when the schedule came round";
        event(conn, id, "finished", reason).await?;
        record(conn, id, pipeline, RunStatus::Skipped, None, Some(reason), by).await?;
        return Ok(Some((id, RunStatus::Skipped)));
    }
    start(conn, id, pipeline, None, by).await?;
    Ok(Some((id, RunStatus::Queued)))
}

async fn building(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!("SELECT id FROM runs WHERE pipeline = $1 AND place = 'building'", pipeline)
        .fetch_optional(conn)
        .await
}

/// Inserts the run: queued, or skipped where `other` is in its place. Returns `false` where the slot has a run.
async fn insert(
    conn: &mut PgConnection,
    id: Uuid,
    pipeline: &Pipeline,
    trigger: Trigger,
    slot: Option<DateTime<Utc>>,
    other: Option<Uuid>,
) -> sqlx::Result<bool> {
    let (status, place) = match other {
        Some(_) => (RunStatus::Skipped, None),
        None => (RunStatus::Queued, Some(Place::Building)),
    };
    let reason = other.map(|other| format!("run {other} of this pipeline was being built"));
    let inserted = sqlx::query!(
        "INSERT INTO runs (id, pipeline, config_version, trigger, slot, status, place, reason_code, reason,
                finished_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $8::text IS NULL THEN NULL ELSE 'run_active' END, $8,
                CASE WHEN $8::text IS NULL THEN NULL ELSE now() END)
         ON CONFLICT (pipeline, slot) DO NOTHING",
        id,
        pipeline.name,
        pipeline.config_version,
        trigger as Trigger,
        slot,
        status as RunStatus,
        place as Option<Place>,
        reason,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(inserted == 1)
}

async fn start(
    conn: &mut PgConnection,
    id: Uuid,
    pipeline: &Pipeline,
    base_model: Option<&str>,
    by: &By,
) -> sqlx::Result<()> {
    event(conn, id, "entered", "the run was queued").await?;
    record(conn, id, pipeline, RunStatus::Queued, base_model, None, by).await?;
    jobs::enqueue(conn, JOB_KIND, &id.to_string(), &Value::Null, Duration::ZERO).await?;
    Ok(())
}

async fn event(conn: &mut PgConnection, id: Uuid, kind: &str, message: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO run_events (run_id, step, kind, message) VALUES ($1, 'collect', $2, $3)",
        id,
        kind,
        message,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn record(
    conn: &mut PgConnection,
    id: Uuid,
    pipeline: &Pipeline,
    status: RunStatus,
    base_model: Option<&str>,
    reason: Option<&str>,
    by: &By,
) -> sqlx::Result<()> {
    let action = if status == RunStatus::Skipped { "run.skip" } else { "run.trigger" };
    let mut after = json!({"status": status, "config_version": pipeline.config_version});
    if let Some(base_model) = base_model {
        after["base_model"] = base_model.into();
    }
    let event = AuditEvent {
        pipeline: Some(&pipeline.name),
        after: Some(after),
        reason,
        ..by.event(action, ("run", id))
    };
    audit::record(conn, event).await
}
