//! Model versions in the database.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Availability, ModelVersion, Version, VersionStatus};
use crate::audit::{self, AuditEvent, By};

/// What is known of a version when it is registered.
#[derive(Debug)]
pub struct NewVersion<'a> {
    /// Its key.
    pub id: Uuid,
    /// The pipeline it belongs to.
    pub pipeline: &'a str,
    /// Its place in the order of versions.
    pub version: Version,
    /// Where it stands at first.
    pub status: VersionStatus,
    /// Who serves it.
    pub provider: &'a str,
    /// What applications call at the provider.
    pub provider_model_id: &'a str,
    /// What it was trained from.
    pub base_model: &'a str,
    /// The run that made it.
    pub run_id: Option<Uuid>,
    /// The training that made it.
    pub training_id: Option<Uuid>,
    /// The checkpoint of that training that it is.
    pub checkpoint_id: Option<&'a str>,
    /// What it was trained on.
    pub dataset_digest: Option<&'a str>,
    /// The version that is live now.
    pub parent_id: Option<Uuid>,
    /// Training figures.
    pub metrics: Value,
}

async fn insert(conn: &mut PgConnection, new: &NewVersion<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id,
                base_model, run_id, training_id, checkpoint_id, dataset_digest, parent_id, metrics)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        new.id,
        new.pipeline,
        new.version.major,
        new.version.minor,
        new.version.patch,
        new.status as VersionStatus,
        new.provider,
        new.provider_model_id,
        new.base_model,
        new.run_id,
        new.training_id,
        new.checkpoint_id,
        new.dataset_digest,
        new.parent_id,
        new.metrics,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Registers a model as a version, with its audit event.
pub async fn register(
    conn: &mut PgConnection,
    new: &NewVersion<'_>,
    reason: Option<&str>,
    by: &By,
) -> sqlx::Result<()> {
    insert(conn, new).await?;
    let mut after = json!({
        "status": new.status, "model_id": new.provider_model_id, "run": new.run_id, "dataset": new.dataset_digest,
    });
    if let Some(checkpoint) = new.checkpoint_id {
        after["checkpoint"] = checkpoint.into();
    }
    let name = format!("{}@{}", new.pipeline, new.version);
    let event = AuditEvent {
        pipeline: Some(new.pipeline),
        after: Some(after),
        reason,
        ..by.event("model.register", ("model_version", &name))
    };
    audit::record(conn, event).await
}

/// Moves a version on in its life, with its audit event. The database refuses what is no part of it.
pub async fn set_status(
    conn: &mut PgConnection,
    id: Uuid,
    status: VersionStatus,
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    let row = sqlx::query!(
        r#"UPDATE model_versions v SET status = $2, updated_at = now()
             FROM (SELECT id, status FROM model_versions WHERE id = $1 FOR NO KEY UPDATE) before
            WHERE v.id = before.id
        RETURNING v.pipeline, v.major, v.minor, v.patch, before.status AS "before: VersionStatus""#,
        id,
        status as VersionStatus,
    )
    .fetch_one(&mut *conn)
    .await?;
    let version = Version { major: row.major, minor: row.minor, patch: row.patch };
    tell_status(conn, (&row.pipeline, version), (row.before, status), reason, by).await
}

/// The audit event of a change of status.
pub(super) async fn tell_status(
    conn: &mut PgConnection,
    (pipeline, version): (&str, Version),
    (before, after): (VersionStatus, VersionStatus),
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    if before == after {
        return Ok(());
    }
    let event = AuditEvent {
        pipeline: Some(pipeline),
        before: Some(json!({"status": before})),
        after: Some(json!({"status": after})),
        reason: Some(reason),
        ..by.event("model.status", ("model_version", format!("{pipeline}@{version}")))
    };
    audit::record(conn, event).await
}

struct Row {
    id: Uuid,
    pipeline: String,
    major: i32,
    minor: i32,
    patch: i32,
    status: VersionStatus,
    provider: String,
    provider_model_id: String,
    base_model: String,
    run_id: Option<Uuid>,
    training_id: Option<Uuid>,
    checkpoint_id: Option<String>,
    dataset_digest: Option<String>,
    parent_major: Option<i32>,
    parent_minor: Option<i32>,
    parent_patch: Option<i32>,
    metrics: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    checked_at: Option<DateTime<Utc>>,
    shutdown_date: Option<NaiveDate>,
    warned_days: Option<i32>,
    successor_run_id: Option<Uuid>,
    missing_since: Option<DateTime<Utc>>,
    gone_at: Option<DateTime<Utc>>,
}

impl From<Row> for ModelVersion {
    fn from(row: Row) -> Self {
        let parent = match (row.parent_major, row.parent_minor, row.parent_patch) {
            (Some(major), Some(minor), Some(patch)) => Some(Version { major, minor, patch }),
            _ => None,
        };
        Self {
            id: row.id,
            pipeline: row.pipeline,
            version: Version { major: row.major, minor: row.minor, patch: row.patch },
            status: row.status,
            provider: row.provider,
            provider_model_id: row.provider_model_id,
            base_model: row.base_model,
            run_id: row.run_id,
            training_id: row.training_id,
            checkpoint_id: row.checkpoint_id,
            dataset_digest: row.dataset_digest,
            parent,
            metrics: row.metrics,
            created_at: row.created_at,
            updated_at: row.updated_at,
            availability: Availability {
                checked_at: row.checked_at,
                shutdown_date: row.shutdown_date,
                warned_days: row.warned_days,
                successor_run_id: row.successor_run_id,
                missing_since: row.missing_since,
                gone_at: row.gone_at,
            },
        }
    }
}

/// What to look for; an absent condition matches everything.
#[derive(Debug, Default)]
struct Filter<'a> {
    id: Option<Uuid>,
    pipeline: Option<&'a str>,
    version: Option<Version>,
    status: Option<VersionStatus>,
    below: Option<Version>,
    model: Option<&'a str>,
    checkpoint: Option<(Uuid, &'a str)>,
    serving_or_gone: bool,
    limit: i64,
}

/// Newest version first.
async fn select(db: impl PgExecutor<'_>, filter: Filter<'_>) -> sqlx::Result<Vec<ModelVersion>> {
    let (version, below) = (filter.version.map(parts), filter.below.map(parts));
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT v.id, v.pipeline, v.major, v.minor, v.patch, v.status AS "status: VersionStatus", v.provider,
                  v.provider_model_id, v.base_model, v.run_id, v.training_id, v.checkpoint_id, v.dataset_digest,
                  parent.major AS "parent_major?", parent.minor AS "parent_minor?",
                  parent.patch AS "parent_patch?", v.metrics, v.created_at, v.updated_at,
                  v.checked_at, v.shutdown_date, v.warned_days, v.successor_run_id, v.missing_since, v.gone_at
             FROM model_versions v LEFT JOIN model_versions parent ON parent.id = v.parent_id
            WHERE ($1::uuid IS NULL OR v.id = $1)
              AND ($2::text IS NULL OR v.pipeline = $2)
              AND ($3::integer[] IS NULL OR ARRAY[v.major, v.minor, v.patch] = $3)
              AND ($4::text IS NULL OR v.status = $4)
              AND ($5::integer[] IS NULL OR ARRAY[v.major, v.minor, v.patch] < $5)
              AND ($7::text IS NULL OR v.provider_model_id = $7)
              AND ($8::uuid IS NULL OR v.training_id = $8 AND v.checkpoint_id = $9)
              AND (NOT $10 OR v.status IN ('live', 'hold_back', 'testing', 'unavailable')
                   OR EXISTS (SELECT FROM pipelines p
                                JOIN (SELECT pipeline, revision, model_version_id, weight FROM traffic_weights
                                       UNION ALL
                                      SELECT pipeline, revision, model_version_id, weight FROM traffic_withheld) share
                                  ON share.pipeline = p.name AND share.revision = p.traffic_revision
                               WHERE p.name = v.pipeline AND share.model_version_id = v.id AND share.weight > 0))
            ORDER BY v.major DESC, v.minor DESC, v.patch DESC LIMIT $6"#,
        filter.id,
        filter.pipeline,
        version.as_ref().map(<[i32; 3]>::as_slice),
        filter.status as Option<VersionStatus>,
        below.as_ref().map(<[i32; 3]>::as_slice),
        filter.limit,
        filter.model,
        filter.checkpoint.map(|(training, _)| training),
        filter.checkpoint.map(|(_, checkpoint)| checkpoint),
        filter.serving_or_gone,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(ModelVersion::from).collect())
}

fn parts(version: Version) -> [i32; 3] {
    [version.major, version.minor, version.patch]
}

/// The version with this key.
pub async fn by_id(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<ModelVersion>> {
    Ok(select(db, Filter { id: Some(id), limit: 1, ..Filter::default() }).await?.pop())
}

/// The version with this number.
pub async fn by_version(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    version: Version,
) -> sqlx::Result<Option<ModelVersion>> {
    let filter = Filter { pipeline: Some(pipeline), version: Some(version), limit: 1, ..Filter::default() };
    Ok(select(db, filter).await?.pop())
}

/// The version of a pipeline that is this model at its provider.
pub async fn of_model(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    model_id: &str,
) -> sqlx::Result<Option<ModelVersion>> {
    let filter = Filter { pipeline: Some(pipeline), model: Some(model_id), limit: 1, ..Filter::default() };
    Ok(select(db, filter).await?.pop())
}

/// The version that is this checkpoint of a training.
pub async fn of_checkpoint(
    db: impl PgExecutor<'_>,
    training: Uuid,
    checkpoint: &str,
) -> sqlx::Result<Option<ModelVersion>> {
    let filter = Filter { checkpoint: Some((training, checkpoint)), limit: 1, ..Filter::default() };
    Ok(select(db, filter).await?.pop())
}

/// The versions of a pipeline that traffic may meet now, and those that the provider no longer serves.
pub async fn serving_or_gone(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<Vec<ModelVersion>> {
    let filter =
        Filter { pipeline: Some(pipeline), serving_or_gone: true, limit: 10_000, ..Filter::default() };
    select(db, filter).await
}

/// Versions of a pipeline, newest first, older than `below`.
pub async fn list(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    status: Option<VersionStatus>,
    below: Option<Version>,
    limit: i64,
) -> sqlx::Result<Vec<ModelVersion>> {
    select(db, Filter { pipeline: Some(pipeline), status, below, limit, ..Filter::default() }).await
}
