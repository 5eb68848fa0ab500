//! What a provider reported about a training: reports, the loss curve and the models it kept along the way.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::trainers::{Checkpoint, TrainingEvent, TrainingMetrics};

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
    keep_curve(&mut *conn, training, &curve(events)).await?;
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

/// The points of the curve in reports, one a step: of two reports of one step, the later one's losses win.
fn curve(events: &[TrainingEvent]) -> Vec<TrainingMetrics> {
    let mut points = BTreeMap::<i64, TrainingMetrics>::new();
    for told in events.iter().filter_map(|event| event.metrics) {
        let point = points.entry(told.step).or_insert(told);
        point.train_loss = told.train_loss.or(point.train_loss);
        point.valid_loss = told.valid_loss.or(point.valid_loss);
        point.full_valid_loss = told.full_valid_loss.or(point.full_valid_loss);
    }
    points.into_values().collect()
}

/// Keeps points of the curve, each step at most once among them; losses that are not told stay as they are known.
async fn keep_curve(conn: &mut PgConnection, training: Uuid, points: &[TrainingMetrics]) -> sqlx::Result<()> {
    let steps: Vec<_> = points.iter().map(|point| point.step).collect();
    let losses = |loss: fn(&TrainingMetrics) -> Option<f64>| -> Vec<_> { points.iter().map(loss).collect() };
    sqlx::query!(
        "INSERT INTO training_metrics AS known (training_id, step, train_loss, valid_loss, full_valid_loss)
         SELECT $1, * FROM unnest($2::bigint[], $3::float8[], $4::float8[], $5::float8[])
         ON CONFLICT (training_id, step) DO UPDATE
            SET train_loss = coalesce(excluded.train_loss, known.train_loss),
                valid_loss = coalesce(excluded.valid_loss, known.valid_loss),
                full_valid_loss = coalesce(excluded.full_valid_loss, known.full_valid_loss)",
        training,
        &steps,
        &losses(|point| point.train_loss) as &[Option<f64>],
        &losses(|point| point.valid_loss) as &[Option<f64>],
        &losses(|point| point.full_valid_loss) as &[Option<f64>],
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: i64, train_loss: Option<f64>, valid_loss: Option<f64>) -> TrainingEvent {
        TrainingEvent {
            id: String::new(),
            created_at: DateTime::UNIX_EPOCH,
            level: "info".to_owned(),
            kind: "metrics".to_owned(),
            message: String::new(),
            metrics: Some(TrainingMetrics { step, train_loss, valid_loss, full_valid_loss: None }),
        }
    }

    #[test]
    fn of_two_reports_of_a_step_the_later_ones_losses_win_where_it_has_some() {
        let message = TrainingEvent { metrics: None, ..report(0, None, None) };
        let reports = [
            report(2, Some(0.5), Some(0.6)),
            message,
            report(1, Some(0.9), None),
            report(2, Some(0.4), None),
        ];
        let points: Vec<_> =
            curve(&reports).iter().map(|at| (at.step, at.train_loss, at.valid_loss)).collect();
        assert_eq!(points, [(1, Some(0.9), None), (2, Some(0.4), Some(0.6))]);
    }
}
