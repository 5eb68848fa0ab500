//! Units that a person has tied to a version, whatever the split says, and since when until when.
//!
//! The rows stay: an outcome may arrive long after it was served, and a unit that was pinned then was not assigned by
//! chance and must not be analysed.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::TrafficError;
use crate::audit::{self, AuditEvent, By};
use crate::models::{self, Version, VersionStatus};

/// The most pins of a pipeline at a time: every process that assigns keeps them in memory. Who wants more wants a split.
pub const MOST_PINS: i64 = 10_000;

/// A pin in force.
#[derive(Debug, Clone)]
pub struct Pin {
    /// Its key; a unit that is pinned anew gets another.
    pub id: i64,
    /// What is pinned.
    pub unit: String,
    /// The version it is pinned to.
    pub version: Version,
    /// The version's present status. While it cannot serve, the unit is assigned by the split.
    pub status: VersionStatus,
    /// Why.
    pub reason: String,
    /// Who pinned it.
    pub actor: String,
    /// Since when.
    pub pinned_at: DateTime<Utc>,
}

/// A pin to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewPin<'a> {
    /// What is pinned: 1 to 200 bytes.
    pub unit: &'a str,
    /// The version, which must be able to serve.
    pub version: Version,
    /// Why.
    pub reason: &'a str,
}

/// Pins a unit, in place of the pin that it may have. The same pin again changes nothing. The caller holds the
/// pipeline's lock and commits.
pub async fn pin(
    conn: &mut PgConnection,
    pipeline: &str,
    new: NewPin<'_>,
    by: &By,
) -> Result<Pin, TrafficError> {
    let version = models::by_version(&mut *conn, pipeline, new.version)
        .await?
        .ok_or(TrafficError::UnknownVersion(new.version))?;
    if !version.status.can_serve() {
        return Err(TrafficError::CannotServe { version: new.version, status: version.status });
    }
    let before = pin_of(conn, pipeline, new.unit).await?;
    match &before {
        Some(pin) if pin.version == new.version && pin.reason == new.reason => return Ok(pin.clone()),
        Some(pin) => release(conn, pipeline, pin.id, by).await?,
        None if count(conn, pipeline).await? >= MOST_PINS => return Err(TrafficError::TooManyPins),
        None => {}
    }
    let row = sqlx::query!(
        "INSERT INTO unit_pins (pipeline, unit, model_version_id, reason, actor) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, pinned_at",
        pipeline,
        new.unit,
        version.id,
        new.reason,
        by.actor.to_string(),
    )
    .fetch_one(&mut *conn)
    .await?;
    bump(conn, pipeline).await?;
    let event = AuditEvent {
        pipeline: Some(pipeline),
        before: before.map(|pin| json!({"unit": pin.unit, "version": pin.version})),
        after: Some(json!({"unit": new.unit, "version": new.version})),
        reason: Some(new.reason),
        ..by.event("traffic.pin", ("pipeline", pipeline))
    };
    audit::record(conn, event).await?;
    Ok(Pin {
        id: row.id,
        unit: new.unit.to_owned(),
        version: new.version,
        status: version.status,
        reason: new.reason.to_owned(),
        actor: by.actor.to_string(),
        pinned_at: row.pinned_at,
    })
}

/// Releases the pin of a unit; `false` when it has none. The caller holds the pipeline's lock and commits.
pub async fn unpin(
    conn: &mut PgConnection,
    pipeline: &str,
    unit: &str,
    reason: Option<&str>,
    by: &By,
) -> sqlx::Result<bool> {
    let Some(pin) = pin_of(conn, pipeline, unit).await? else { return Ok(false) };
    release(conn, pipeline, pin.id, by).await?;
    bump(conn, pipeline).await?;
    let event = AuditEvent {
        pipeline: Some(pipeline),
        before: Some(json!({"unit": unit, "version": pin.version})),
        reason,
        ..by.event("traffic.unpin", ("pipeline", pipeline))
    };
    audit::record(conn, event).await?;
    Ok(true)
}

/// The pin of a unit, if it has one.
pub async fn pin_of(conn: &mut PgConnection, pipeline: &str, unit: &str) -> sqlx::Result<Option<Pin>> {
    Ok(select(conn, pipeline, Some(unit), None, 1).await?.pop())
}

/// The pins in force, by unit in the order of its bytes, after `after`.
pub async fn pins(
    conn: &mut PgConnection,
    pipeline: &str,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<Pin>> {
    select(conn, pipeline, None, after, limit).await
}

async fn select(
    conn: &mut PgConnection,
    pipeline: &str,
    unit: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<Pin>> {
    let rows = sqlx::query!(
        r#"SELECT p.id, p.unit, p.reason, p.actor, p.pinned_at, v.major, v.minor, v.patch,
                  v.status AS "status: VersionStatus"
             FROM unit_pins p JOIN model_versions v ON v.id = p.model_version_id
            WHERE p.pipeline = $1 AND p.released_at IS NULL AND ($2::text IS NULL OR p.unit = $2)
              AND ($3::text IS NULL OR p.unit COLLATE "C" > $3)
            ORDER BY p.unit COLLATE "C" LIMIT $4"#,
        pipeline,
        unit,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Pin {
            id: row.id,
            unit: row.unit,
            version: Version { major: row.major, minor: row.minor, patch: row.patch },
            status: row.status,
            reason: row.reason,
            actor: row.actor,
            pinned_at: row.pinned_at,
        })
        .collect())
}

async fn count(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM unit_pins WHERE pipeline = $1 AND released_at IS NULL"#,
        pipeline,
    )
    .fetch_one(conn)
    .await
}

async fn release(conn: &mut PgConnection, pipeline: &str, id: i64, by: &By) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE unit_pins SET released_at = greatest(clock_timestamp(), pinned_at), released_by = $3
          WHERE pipeline = $1 AND id = $2",
        pipeline,
        id,
        by.actor.to_string(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Tells processes that keep pins in memory to read them again.
async fn bump(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    sqlx::query!("UPDATE pipelines SET pins_revision = pins_revision + 1 WHERE name = $1", pipeline)
        .execute(conn)
        .await?;
    Ok(())
}
