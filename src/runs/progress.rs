//! What a provider reported about a training: reports, the loss curve and the models it kept along the way.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::trainers::{Checkpoint, TrainingEvent};

/// A report of the provider.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StoredEvent {
    /// Its place in the order in which reports were learned.
    #[serde(skip)]
    pub number: i64,
    /// The provider's id.
    pub id: String,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// `info`, `warn` or `error`.
    #[schema(example = "info")]
    pub level: String,
    /// `message`, `metrics`, …, in the provider's word.
    #[schema(example = "metrics")]
    pub kind: String,
    /// A sentence for people.
    pub message: String,
}

/// A point of the loss curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct CurvePoint {
    /// The training step.
    pub step: i64,
    /// Loss on the batch that was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<f64>,
    /// Loss on a batch of what was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Loss on all that was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_valid_loss: Option<f64>,
}

/// A model that the provider kept along the way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StoredCheckpoint {
    /// The provider's id.
    pub id: String,
    /// The id under which the model can be asked.
    pub model_id: String,
    /// The training step it was taken at, and the losses there.
    #[serde(flatten)]
    pub point: CurvePoint,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
}

/// The provider's id of the newest report that is kept.
pub(super) async fn newest_event(db: impl PgExecutor<'_>, training: Uuid) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT event_id FROM training_events WHERE training_id = $1 ORDER BY number DESC LIMIT 1",
        training,
    )
    .fetch_optional(db)
    .await
}

/// Keeps reports, oldest first, and the points of the curve in them; one that is known stays as it is. The losses on the training
/// become those of its last steps.
pub(super) async fn keep_events(
    conn: &mut PgConnection,
    training: Uuid,
    events: &[TrainingEvent],
) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let texts = |field: fn(&TrainingEvent) -> &str| -> Vec<String> {
        events.iter().map(|event| field(event).replace('\0', "")).collect()
    };
    let times: Vec<_> = events.iter().map(|event| event.created_at).collect();
    sqlx::query!(
        "INSERT INTO training_events (training_id, event_id, at, level, kind, message)
         SELECT $1, * FROM unnest($2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
         ON CONFLICT DO NOTHING",
        training,
        &texts(|event| &event.id),
        &times,
        &texts(|event| &event.level),
        &texts(|event| &event.kind),
        &texts(|event| &event.message),
    )
    .execute(&mut *conn)
    .await?;
    for metrics in events.iter().filter_map(|event| event.metrics) {
        sqlx::query!(
            "INSERT INTO training_metrics AS known (training_id, step, train_loss, valid_loss, full_valid_loss)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (training_id, step) DO UPDATE
                SET train_loss = coalesce(excluded.train_loss, known.train_loss),
                    valid_loss = coalesce(excluded.valid_loss, known.valid_loss),
                    full_valid_loss = coalesce(excluded.full_valid_loss, known.full_valid_loss)",
            training,
            metrics.step,
            metrics.train_loss,
            metrics.valid_loss,
            metrics.full_valid_loss,
        )
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query!(
        "UPDATE trainings SET
            final_loss = (SELECT train_loss FROM training_metrics
                           WHERE training_id = $1 AND train_loss IS NOT NULL ORDER BY step DESC LIMIT 1),
            validation_loss = coalesce(
                (SELECT full_valid_loss FROM training_metrics
                  WHERE training_id = $1 AND full_valid_loss IS NOT NULL ORDER BY step DESC LIMIT 1),
                (SELECT valid_loss FROM training_metrics
                  WHERE training_id = $1 AND valid_loss IS NOT NULL ORDER BY step DESC LIMIT 1))
          WHERE id = $1",
        training,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the models that the provider kept; one that is known stays as it is.
pub(super) async fn keep_checkpoints(
    conn: &mut PgConnection,
    training: Uuid,
    checkpoints: &[Checkpoint],
) -> sqlx::Result<()> {
    for checkpoint in checkpoints {
        sqlx::query!(
            "INSERT INTO training_checkpoints
                    (training_id, checkpoint_id, model_id, step, train_loss, valid_loss, full_valid_loss, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            training,
            checkpoint.id,
            checkpoint.model_id,
            checkpoint.step,
            checkpoint.metrics.and_then(|metrics| metrics.train_loss),
            checkpoint.metrics.and_then(|metrics| metrics.valid_loss),
            checkpoint.metrics.and_then(|metrics| metrics.full_valid_loss),
            checkpoint.created_at,
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Up to `limit` reports after the one with this number, in their order.
pub async fn events_of(
    db: impl PgExecutor<'_>,
    training: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<StoredEvent>> {
    sqlx::query_as!(
        StoredEvent,
        "SELECT number, event_id AS id, at, level, kind, message FROM training_events
          WHERE training_id = $1 AND number > $2 ORDER BY number LIMIT $3",
        training,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The loss curve in at most `points` points, which are spread evenly; the last one is always among them.
pub async fn curve_of(db: impl PgExecutor<'_>, training: Uuid, points: i64) -> sqlx::Result<Vec<CurvePoint>> {
    sqlx::query_as!(
        CurvePoint,
        "SELECT step, train_loss, valid_loss, full_valid_loss
           FROM (SELECT *, row_number() OVER (ORDER BY step DESC) - 1 AS place, count(*) OVER () AS points
                   FROM training_metrics WHERE training_id = $1) AS numbered
          WHERE place % greatest((points + $2 - 1) / $2, 1) = 0
          ORDER BY step",
        training,
        points,
    )
    .fetch_all(db)
    .await
}

/// The models that the provider kept along the way, the earliest first.
pub async fn checkpoints_of(db: impl PgExecutor<'_>, training: Uuid) -> sqlx::Result<Vec<StoredCheckpoint>> {
    let rows = sqlx::query!(
        "SELECT checkpoint_id AS id, model_id, step, train_loss, valid_loss, full_valid_loss, created_at
           FROM training_checkpoints WHERE training_id = $1 ORDER BY step, checkpoint_id",
        training,
    )
    .fetch_all(db)
    .await?;
    let checkpoints = rows.into_iter().map(|row| StoredCheckpoint {
        id: row.id,
        model_id: row.model_id,
        point: CurvePoint {
            step: row.step,
            train_loss: row.train_loss,
            valid_loss: row.valid_loss,
            full_valid_loss: row.full_valid_loss,
        },
        created_at: row.created_at,
    });
    Ok(checkpoints.collect())
}
