//! What endpoints were sent, and what they answered.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Path, Query};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Cursor, Limit, Page};
use super::problem::Problem;
use super::reply::Reply;
use super::responses::NotFound;
use super::webhook_endpoints::unknown;
use crate::notifications::{self, Attempt, Delivery, DeliveryStatus};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_webhook_deliveries))
        .routes(routes!(redeliver_webhook))
        .routes(routes!(test_webhook_endpoint))
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeliveriesQuery {
    /// Only those that are this far.
    status: Option<DeliveryStatus>,
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// A notice on its way to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
struct DeliveryView {
    /// Names the delivery.
    id: Uuid,
    #[serde(skip)]
    position: i64,
    /// Names what is told: the header `webhook-id`, and the `id` of the event in the body. The same in every attempt.
    event_id: Uuid,
    /// What is told.
    #[schema(example = "tuneloop.model.promoted")]
    event_type: String,
    /// The same in one sentence.
    summary: String,
    /// How far it is.
    status: DeliveryStatus,
    /// When it is attempted next.
    next_attempt_at: Option<DateTime<Utc>>,
    /// Since when it is on its way.
    created_at: DateTime<Utc>,
    /// When it was delivered or given up.
    finished_at: Option<DateTime<Utc>>,
    /// Every attempt, oldest first.
    attempts: Vec<Attempt>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            position: delivery.position,
            event_id: delivery.notification_id,
            event_type: delivery.kind,
            summary: delivery.summary,
            status: delivery.status,
            next_attempt_at: delivery.next_attempt_at,
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
            attempts: delivery.attempts.0,
        }
    }
}

/// List what an endpoint was sent, newest first
///
/// Deliveries are kept for 30 days after they ended.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{id}/deliveries", tag = "webhooks",
    params(("id" = Uuid, Path), DeliveriesQuery),
    responses(
        (status = 200, description = "One page of deliveries.", body = Page<DeliveryView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_webhook_deliveries(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    let mut conn = state.db.acquire().await?;
    notifications::endpoint(&mut *conn, id).await?.ok_or_else(|| unknown(id))?;
    let before = query.cursor.map(|Cursor(position)| position);
    let found = notifications::deliveries(&mut conn, id, query.status, before, query.limit.rows()).await?;
    let found = found.into_iter().map(DeliveryView::from).collect();
    Ok(Json(Page::new(found, query.limit, |delivery: &DeliveryView| delivery.position)?))
}

/// A delivery that was begun.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDeliveryBegun)]
struct Begun {
    /// Names the delivery.
    delivery: Uuid,
}

/// Deliver once more
///
/// The delivery is attempted at once, and then for up to 24 hours, whatever became of it. It has the same `webhook-id`.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{id}/deliveries/{delivery}/redeliver", tag = "webhooks",
    params(("id" = Uuid, Path), ("delivery" = Uuid, Path), RequestKey),
    responses(
        (status = 202, description = "It will be attempted.", body = Begun),
        (status = 404, response = NotFound),
    ),
)]
async fn redeliver_webhook(
    State(state): State<ApiState>,
    principal: Principal,
    Path((id, delivery)): Path<(Uuid, Uuid)>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    notifications::endpoint(&mut *tx, id).await?.ok_or_else(|| unknown(id))?;
    if !notifications::redeliver(&mut tx, id, delivery, &principal.by()).await? {
        return Err(Problem::not_found("delivery", delivery));
    }
    tx.commit(begun(id, delivery)).await
}

/// Send a test
///
/// A notice of the type `tuneloop.test`, whatever the endpoint asks for. While the endpoint is off, it waits.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{id}/test", tag = "webhooks", params(("id" = Uuid, Path), RequestKey),
    responses(
        (status = 202, description = "It will be sent.", body = Begun),
        (status = 404, response = NotFound),
    ),
)]
async fn test_webhook_endpoint(
    State(state): State<ApiState>,
    principal: Principal,
    Path(id): Path<Uuid>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let endpoint = notifications::endpoint(&mut *tx, id).await?.ok_or_else(|| unknown(id))?;
    let delivery = notifications::test(&mut tx, &state.clock, &endpoint, &principal.by()).await?;
    tx.commit(begun(id, delivery)).await
}

fn begun(endpoint: Uuid, delivery: Uuid) -> Reply {
    Reply::accepted(format!("/v1/webhook-endpoints/{endpoint}/deliveries"), Begun { delivery })
}
