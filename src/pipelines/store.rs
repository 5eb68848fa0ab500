//! Pipelines in the database. A change of the configuration adds a version; old ones stay.

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use thiserror::Error;

use super::config::Faults;
use super::{Pipeline, PipelineConfig};
use crate::audit::{self, AuditEvent, By};
use crate::clock::Clock;
use crate::models::{self, NewVersion, Version, VersionStatus};
use crate::traffic::{self, NewRevision, RevisionKind, WHOLE};

/// Why a configuration was not saved. Nothing was changed.
#[derive(Debug, Error)]
pub enum NotSaved {
    /// The name cannot be used.
    #[error("a pipeline's name begins with a letter and has up to 63 of a-z, 0-9, - and _")]
    Name,
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Faults(Faults),
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Holds the pipeline's name, which may not exist yet, until the transaction ends, and reads what is there.
pub async fn lock(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<Pipeline>> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('pipeline:' || $1, 0))", name)
        .execute(&mut *conn)
        .await?;
    traffic::lock(conn, name).await?;
    by_name(conn, name).await
}

/// Creates the pipeline, or gives it a new configuration version; an equal configuration changes nothing.
///
/// A new pipeline gets its serving model as version 0.0.0, live, with all of the traffic.
pub async fn save(
    conn: &mut PgConnection,
    clock: &Clock,
    name: &str,
    config: &PipelineConfig,
    by: &By,
) -> Result<Pipeline, NotSaved> {
    if !valid_name(name) {
        return Err(NotSaved::Name);
    }
    let mut faults = config.faults();
    let before = lock(conn, name).await?;
    if let Some(before) = &before
        && before.config.serving_model != config.serving_model
    {
        faults.insert(
            "/serving_model".to_owned(),
            format!(
                "is {:?} since the pipeline was created; promote another version instead",
                before.config.serving_model
            ),
        );
    }
    if !faults.is_empty() {
        return Err(NotSaved::Faults(faults));
    }
    match before {
        Some(before) if before.config == *config => return Ok(before),
        Some(before) => add_config(conn, name, config, Some(&before), by).await?,
        None => create(conn, clock, name, config, by).await?,
    }
    Ok(by_name(conn, name).await?.ok_or(sqlx::Error::RowNotFound)?)
}

fn valid_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_lowercase())
        && name.len() <= 63
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

async fn create(
    conn: &mut PgConnection,
    clock: &Clock,
    name: &str,
    config: &PipelineConfig,
    by: &By,
) -> sqlx::Result<()> {
    sqlx::query!("INSERT INTO pipelines (name, config_version) VALUES ($1, 1)", name)
        .execute(&mut *conn)
        .await?;
    add_config(conn, name, config, None, by).await?;
    let version = NewVersion {
        id: clock.uuid(),
        pipeline: name,
        version: Version::BASE,
        status: VersionStatus::Live,
        provider: &config.training.provider,
        provider_model_id: &config.serving_model,
        base_model: &config.serving_model,
        run_id: None,
        training_id: None,
        checkpoint_id: None,
        dataset_digest: None,
        parent_id: None,
        metrics: Value::Object(serde_json::Map::new()),
    };
    let reason = "the pipeline was created";
    models::register(conn, &version, Some(reason), by).await?;
    let revision = NewRevision {
        live: version.id,
        salt: name,
        experiment_id: None,
        decision_id: None,
        forced: false,
        kind: RevisionKind::Created,
        reason,
        shares: &[(version.id, WHOLE)],
    };
    traffic::append(conn, name, &revision, by).await?;
    Ok(())
}

async fn add_config(
    conn: &mut PgConnection,
    name: &str,
    config: &PipelineConfig,
    before: Option<&Pipeline>,
    by: &By,
) -> sqlx::Result<()> {
    let version = before.map_or(1, |before| before.config_version + 1);
    let value = encode(config)?;
    sqlx::query!(
        "INSERT INTO pipeline_configs (pipeline, version, config, actor) VALUES ($1, $2, $3, $4)",
        name,
        version,
        value,
        by.actor.to_string(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE pipelines SET config_version = $2, updated_at = now() WHERE name = $1",
        name,
        version,
    )
    .execute(&mut *conn)
    .await?;
    let event = AuditEvent {
        pipeline: Some(name),
        before: before.map(|before| encode(&before.config)).transpose()?,
        after: Some(value),
        ..by.event(if before.is_some() { "pipeline.update" } else { "pipeline.create" }, ("pipeline", name))
    };
    audit::record(conn, event).await
}

fn encode(config: &PipelineConfig) -> sqlx::Result<Value> {
    serde_json::to_value(config).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn decode(config: Value) -> sqlx::Result<PipelineConfig> {
    serde_json::from_value(config).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The pipeline of this name.
pub async fn by_name(db: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<Pipeline>> {
    Ok(select(db, Some(name), None, 1).await?.pop())
}

/// Pipelines after `after` in the order of their names.
pub async fn all(db: impl PgExecutor<'_>, after: Option<&str>, limit: i64) -> sqlx::Result<Vec<Pipeline>> {
    select(db, None, after, limit).await
}

async fn select(
    db: impl PgExecutor<'_>,
    name: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<Pipeline>> {
    let rows = sqlx::query!(
        r#"SELECT p.name, p.config_version, c.config, p.created_at, p.updated_at,
                (SELECT max(same.created_at) FROM pipeline_configs same
                  WHERE same.pipeline = p.name AND same.version = 1 + coalesce(
                        (SELECT max(other.version) FROM pipeline_configs other
                          WHERE other.pipeline = p.name
                            AND other.config -> 'schedule' <> c.config -> 'schedule'), 0)
                ) AS "scheduled_since!"
           FROM pipelines p JOIN pipeline_configs c ON c.pipeline = p.name AND c.version = p.config_version
          WHERE ($1::text IS NULL OR p.name = $1) AND ($2::text IS NULL OR p.name > $2)
          ORDER BY p.name LIMIT $3"#,
        name,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Pipeline {
                name: row.name,
                config_version: row.config_version,
                config: decode(row.config)?,
                scheduled_since: row.scheduled_since,
                created_at: row.created_at,
                updated_at: row.updated_at,
            })
        })
        .collect()
}

/// An earlier or the present configuration of a pipeline.
pub async fn config_version(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    version: i32,
) -> sqlx::Result<PipelineConfig> {
    let config = sqlx::query_scalar!(
        "SELECT config FROM pipeline_configs WHERE pipeline = $1 AND version = $2",
        pipeline,
        version,
    )
    .fetch_one(db)
    .await?;
    decode(config)
}
