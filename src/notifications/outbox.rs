//! Deliveries: a notification on its way to an endpoint, and what came of each attempt.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::deliver::KIND;
use super::endpoints::{self, Endpoint};
use super::events::{Kind, News};
use super::message::Notification;
use crate::audit::{self, AuditEvent, By};
use crate::clock::Clock;
use crate::jobs;

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = WebhookDeliveryStatus)]
pub enum DeliveryStatus {
    /// To be attempted, for the first time or again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// Given up: after 24 hours, or because the endpoint said that it is gone (410).
    Failed,
}

/// One attempt.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = WebhookAttempt)]
pub struct Attempt {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub latency_ms: i32,
    /// The status of the answer.
    pub status: Option<i32>,
    /// The beginning of the answer.
    pub answer: Option<String>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// A delivery with its attempts.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names it.
    pub id: Uuid,
    /// Its place in the order in which the endpoint is told.
    pub position: i64,
    /// What is told; sent as `webhook-id`.
    pub notification_id: Uuid,
    /// The kind of it.
    pub kind: String,
    /// One sentence.
    pub summary: String,
    /// How far it is.
    pub status: DeliveryStatus,
    /// When it is attempted next.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it was begun.
    pub created_at: DateTime<Utc>,
    /// When it was delivered or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// Every attempt, the oldest first.
    pub attempts: Json<Vec<Attempt>>,
}

/// Puts what there is to tell of an audit event before the endpoints that ask for it and were there when it happened.
/// Without any, nothing is kept. Endpoints that are being deleted are waited for.
pub(super) async fn put(
    conn: &mut PgConnection,
    clock: &Clock,
    audit_event: i64,
    news: &News,
) -> sqlx::Result<Vec<Uuid>> {
    let endpoints = sqlx::query_scalar!(
        "SELECT id FROM webhook_endpoints
          WHERE enabled AND created_at <= $3 AND (events IS NULL OR $1 = ANY (events))
            AND (pipelines IS NULL OR $2 = ANY (pipelines))
          ORDER BY id FOR KEY SHARE",
        news.kind.as_str(),
        news.pipeline,
        news.at,
    )
    .fetch_all(&mut *conn)
    .await?;
    if endpoints.is_empty() {
        return Ok(endpoints);
    }
    let id = insert(conn, clock, Some(audit_event), news).await?;
    for endpoint in &endpoints {
        deliver_to(conn, clock, *endpoint, id).await?;
    }
    Ok(endpoints)
}

async fn insert(
    conn: &mut PgConnection,
    clock: &Clock,
    audit_event: Option<i64>,
    news: &News,
) -> sqlx::Result<Uuid> {
    let id = clock.uuid();
    sqlx::query!(
        "INSERT INTO notifications (id, audit_event_id, kind, subject, pipeline, at, summary, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        id,
        audit_event,
        news.kind.as_str(),
        news.subject,
        news.pipeline,
        news.at,
        news.summary,
        news.data,
    )
    .execute(conn)
    .await?;
    Ok(id)
}

async fn deliver_to(
    conn: &mut PgConnection,
    clock: &Clock,
    endpoint: Uuid,
    notification: Uuid,
) -> sqlx::Result<Uuid> {
    let id = clock.uuid();
    sqlx::query!(
        "INSERT INTO webhook_deliveries (id, endpoint_id, notification_id) VALUES ($1, $2, $3)",
        id,
        endpoint,
        notification,
    )
    .execute(conn)
    .await?;
    Ok(id)
}

/// Sends a test to an endpoint, whatever it asks for, and returns the delivery's id.
pub async fn test(
    conn: &mut PgConnection,
    clock: &Clock,
    endpoint: &Endpoint,
    by: &By,
) -> sqlx::Result<Uuid> {
    let news = News {
        kind: Kind::Test,
        subject: format!("webhook-endpoints/{}", endpoint.id),
        pipeline: None,
        at: clock.now(),
        summary: "This is a test: notices of tuneloop arrive here".to_owned(),
        data: json!({"actor": by.actor.to_string()}),
    };
    let notification = insert(conn, clock, None, &news).await?;
    let delivery = deliver_to(conn, clock, endpoint.id, notification).await?;
    let event = AuditEvent {
        after: Some(json!({ "delivery": delivery })),
        ..by.event("webhook_endpoint.test", ("webhook_endpoint", endpoint.id))
    };
    audit::record(conn, event).await?;
    jobs::wake(conn, KIND, &endpoint.id.to_string()).await?;
    Ok(delivery)
}

/// Attempts a delivery again at once, and for 24 hours from now, whatever became of it; whether there is such a one.
pub async fn redeliver(
    conn: &mut PgConnection,
    endpoint: Uuid,
    delivery: Uuid,
    by: &By,
) -> sqlx::Result<bool> {
    // Before the delivery and the job, as the worker does.
    if !endpoints::lock(conn, endpoint).await? {
        return Ok(false);
    }
    let before = sqlx::query_scalar!(
        r#"SELECT status AS "status: DeliveryStatus" FROM webhook_deliveries
            WHERE id = $1 AND endpoint_id = $2 FOR NO KEY UPDATE"#,
        delivery,
        endpoint,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(before) = before else { return Ok(false) };
    sqlx::query!(
        "UPDATE webhook_deliveries
            SET status = 'pending', tries = 0, next_attempt_at = now(), give_up_at = now() + interval '24 hours',
                finished_at = NULL
          WHERE id = $1",
        delivery,
    )
    .execute(&mut *conn)
    .await?;
    let event = AuditEvent {
        before: Some(json!({ "status": before })),
        after: Some(json!({ "status": DeliveryStatus::Pending })),
        ..by.event("webhook_delivery.redeliver", ("webhook_delivery", delivery))
    };
    audit::record(conn, event).await?;
    jobs::wake(conn, KIND, &endpoint.to_string()).await?;
    Ok(true)
}

/// Deliveries of an endpoint, the newest first, from before `before` on.
pub async fn deliveries(
    conn: &mut PgConnection,
    endpoint: Uuid,
    status: Option<DeliveryStatus>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as!(
        Delivery,
        r#"SELECT d.id, position, notification_id, n.kind, n.summary, status AS "status: DeliveryStatus",
                  next_attempt_at, d.created_at, finished_at,
                  coalesce((SELECT jsonb_agg(jsonb_build_object('at', at, 'latency_ms', latency_ms, 'status',
                                a.status, 'answer', answer, 'error', error) ORDER BY number)
                              FROM webhook_attempts a WHERE a.delivery_id = d.id), '[]')
                      AS "attempts!: Json<Vec<Attempt>>"
             FROM webhook_deliveries d JOIN notifications n ON n.id = notification_id
            WHERE endpoint_id = $1 AND ($2::text IS NULL OR status = $2)
              AND ($3::bigint IS NULL OR position < $3)
            ORDER BY position DESC LIMIT $4"#,
        endpoint,
        status as Option<DeliveryStatus>,
        before,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// What an endpoint is to be told now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) delivery: Uuid,
    /// Attempts since it was begun, or begun again.
    pub(super) tries: i32,
    pub(super) notification: Notification,
}

/// The oldest delivery that is due.
pub(super) async fn due(db: &PgPool, endpoint: Uuid) -> sqlx::Result<Option<Due>> {
    let row = sqlx::query!(
        "SELECT d.id, d.tries, n.id AS notification_id, n.kind, n.subject, n.at, n.summary, n.data
           FROM webhook_deliveries d JOIN notifications n ON n.id = d.notification_id
          WHERE endpoint_id = $1 AND status = 'pending' AND next_attempt_at <= now()
          ORDER BY position LIMIT 1",
        endpoint,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Due {
        delivery: row.id,
        tries: row.tries,
        notification: Notification {
            id: row.notification_id,
            kind: row.kind,
            subject: row.subject,
            at: row.at,
            summary: row.summary,
            data: row.data,
        },
    }))
}

/// How long until the next delivery is due, if any waits.
pub(super) async fn until_due(conn: &mut PgConnection, endpoint: Uuid) -> sqlx::Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        "SELECT extract(epoch FROM min(next_attempt_at) - now())::double precision
           FROM webhook_deliveries WHERE endpoint_id = $1 AND status = 'pending'",
        endpoint,
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Has everything that waits for an endpoint attempted now.
pub(super) async fn hurry(conn: &mut PgConnection, endpoint: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE webhook_deliveries SET next_attempt_at = now()
          WHERE endpoint_id = $1 AND status = 'pending' AND next_attempt_at > now()",
        endpoint,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What an attempt leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    Delivered,
    /// Attempted again after this long, unless its 24 hours are over by now.
    Again(Duration),
    /// Not attempted again.
    Gone,
}

/// Keeps what came of an attempt, and returns the status that the delivery has now. One that was deleted meanwhile has none.
pub(super) async fn keep(
    conn: &mut PgConnection,
    delivery: Uuid,
    attempt: &Attempt,
    after: After,
) -> sqlx::Result<Option<DeliveryStatus>> {
    let (delivered, again) = match after {
        After::Delivered => (true, None),
        After::Again(wait) => (false, Some(wait.as_secs_f64())),
        After::Gone => (false, None),
    };
    let kept = sqlx::query!(
        r#"UPDATE webhook_deliveries
              SET attempts = attempts + 1, tries = tries + 1,
                  status = CASE WHEN $2 THEN 'delivered'
                                WHEN $3::double precision IS NULL OR give_up_at <= now() THEN 'failed'
                                ELSE 'pending' END,
                  next_attempt_at = CASE WHEN NOT $2 AND give_up_at > now()
                                         THEN now() + make_interval(secs => $3) END,
                  finished_at = CASE WHEN $2 OR $3 IS NULL OR give_up_at <= now() THEN now() END
            WHERE id = $1
           RETURNING attempts, status AS "status: DeliveryStatus""#,
        delivery,
        delivered,
        again,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(kept) = kept else { return Ok(None) };
    sqlx::query!(
        "INSERT INTO webhook_attempts (delivery_id, number, at, latency_ms, status, answer, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        delivery,
        kept.attempts,
        attempt.at,
        attempt.latency_ms,
        attempt.status,
        attempt.answer,
        attempt.error,
    )
    .execute(conn)
    .await?;
    Ok(Some(kept.status))
}

/// Makes jobs for deliveries that are long due and have none: one that failed for good, which only a fault of ours brings about.
pub(crate) async fn revive(db: &PgPool) -> sqlx::Result<()> {
    let endpoints = sqlx::query_scalar!(
        "SELECT DISTINCT endpoint_id FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = endpoint_id
          WHERE enabled AND status = 'pending' AND next_attempt_at < now() - interval '1 minute'
            AND NOT EXISTS (SELECT 1 FROM jobs WHERE kind = $1 AND subject = endpoint_id::text
                                                 AND state IN ('ready', 'leased'))",
        KIND,
    )
    .fetch_all(db)
    .await?;
    for endpoint in endpoints {
        let mut tx = db.begin().await?;
        jobs::enqueue(&mut tx, KIND, &endpoint.to_string(), &Value::Null, Duration::ZERO).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Deletes deliveries that ended longer ago than `age`, and notifications that nobody waits for any more.
pub async fn expire(db: &PgPool, age: Duration) -> sqlx::Result<u64> {
    let mut tx = db.begin().await?;
    let deleted = sqlx::query!(
        "DELETE FROM webhook_deliveries
          WHERE status <> 'pending' AND finished_at < now() - make_interval(secs => $1)",
        age.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    sqlx::query!(
        "DELETE FROM notifications n
          WHERE created_at < now() - make_interval(secs => $1)
            AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.notification_id = n.id)",
        age.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}
