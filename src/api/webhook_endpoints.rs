//! Where notices are sent: endpoints of applications and of people.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::{Principal, Role};
use super::etag::IfMatch;
use super::extract::{Json, Path, Query};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Page, PageQuery};
use super::problem::{FieldError, Problem};
use super::reply::Reply;
use super::responses::{NotFound, PreconditionFailed};
use crate::notifications::{self, Endpoint, EndpointSettings, Form, Kind};
use crate::outbound::TargetRules;

/// The most events or pipelines that an endpoint may name.
const NAMES: usize = 100;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_webhook_endpoints, create_webhook_endpoint))
        .routes(routes!(get_webhook_endpoint, put_webhook_endpoint, delete_webhook_endpoint))
        .routes(routes!(rotate_webhook_secret))
}

/// What an endpoint is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookEndpointRequest {
    /// Where notices are sent by `POST`: an http or https URL. Private and loopback addresses are refused unless the service was
    /// started with `--allow-private-targets`.
    #[schema(example = "https://shop.example/hooks/tuneloop", max_length = 2000)]
    url: String,
    /// What it is told; everything, also what later releases tell, where absent.
    #[schema(min_items = 1, max_items = 100)]
    events: Option<Vec<Kind>>,
    /// Of which pipelines; of all where absent.
    #[schema(min_items = 1, max_items = 100)]
    pipelines: Option<Vec<String>>,
    /// In which form.
    #[serde(default)]
    form: Form,
    /// Whether it is told anything. What happens while it is off is not told later.
    #[serde(default = "on")]
    #[schema(default = true)]
    enabled: bool,
}

fn on() -> bool {
    true
}

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpoint)]
struct EndpointView {
    /// Names it.
    id: Uuid,
    /// Where it is. A viewer's key is shown its origin alone, because the rest may be a password.
    #[schema(example = "https://shop.example/hooks/tuneloop")]
    url: String,
    /// What it is told; everything where absent.
    events: Option<Vec<String>>,
    /// Of which pipelines; of all where absent.
    pipelines: Option<Vec<String>>,
    /// In which form.
    form: Form,
    /// Whether it is told anything.
    enabled: bool,
    /// Whether the last attempt failed.
    failing: bool,
    /// Since when every attempt has failed.
    failing_since: Option<DateTime<Utc>>,
    /// How many attempts that were.
    failures: i32,
    /// Until when the secret before the present one signs as well.
    previous_secret_until: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
}

impl EndpointView {
    fn new(endpoint: Endpoint, role: Role) -> Self {
        let url = match role {
            Role::Viewer => notifications::shortened(&endpoint.url),
            Role::Operator | Role::Admin => endpoint.url,
        };
        Self {
            id: endpoint.id,
            url,
            events: endpoint.events,
            pipelines: endpoint.pipelines,
            form: endpoint.form,
            enabled: endpoint.enabled,
            failing: endpoint.failures > 0,
            failing_since: endpoint.failing_since,
            failures: endpoint.failures,
            previous_secret_until: endpoint.previous_until,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

/// An endpoint with a new secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpointWithSecret)]
struct WithSecret {
    /// The endpoint.
    #[serde(flatten)]
    endpoint: EndpointView,
    /// What notices are signed with, after Standard Webhooks.
    #[schema(example = "whsec_…")]
    secret: String,
}

/// List the endpoints, oldest first
#[utoipa::path(
    get, path = "/v1/webhook-endpoints", tag = "webhooks", params(PageQuery<Uuid>),
    responses((status = 200, description = "One page of endpoints.", body = Page<EndpointView>)),
)]
async fn list_webhook_endpoints(
    State(state): State<ApiState>,
    principal: Principal,
    Query(query): Query<PageQuery<Uuid>>,
) -> Result<Json<Page<EndpointView>>, Problem> {
    let after = query.cursor.map(|cursor| cursor.0);
    let endpoints = notifications::endpoints(&state.db, after, query.limit.rows()).await?;
    let endpoints =
        endpoints.into_iter().map(|endpoint| EndpointView::new(endpoint, principal.role)).collect();
    Ok(Json(Page::new(endpoints, query.limit, |endpoint: &EndpointView| endpoint.id)?))
}

/// Make an endpoint
///
/// The answer holds the secret that notices are signed with. It is not shown again, except to the same request with the same
/// `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints", tag = "webhooks", request_body = WebhookEndpointRequest,
    params(RequestKey),
    responses((status = 201, description = "The endpoint is told what happens from now on.", body = WithSecret)),
)]
async fn create_webhook_endpoint(
    State(state): State<ApiState>,
    principal: Principal,
    request: Idempotent<WebhookEndpointRequest>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let settings = settings(state.target_rules, request.body)?;
    let (endpoint, secret) = notifications::insert(&mut tx, &state.clock, &settings, &principal.by()).await?;
    let (version, location) = (endpoint.version, format!("/v1/webhook-endpoints/{}", endpoint.id));
    let endpoint = EndpointView::new(endpoint, principal.role);
    let body = WithSecret { endpoint, secret: secret.expose().to_owned() };
    tx.commit(Reply::created(location, body).version(version)).await
}

/// Show an endpoint
///
/// Its secret is not shown.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The endpoint, with its `ETag`.", body = EndpointView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_webhook_endpoint(
    State(state): State<ApiState>,
    principal: Principal,
    Path(id): Path<Uuid>,
) -> Result<Reply, Problem> {
    let endpoint = notifications::endpoint(&state.db, id).await?;
    Ok(shown(endpoint.ok_or_else(|| unknown(id))?, &principal))
}

/// Change an endpoint
///
/// The settings are replaced whole. What waits to be delivered is attempted at once, at the address that is given. With `If-Match`,
/// only the version that was looked at is replaced.
#[utoipa::path(
    put, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", request_body = WebhookEndpointRequest,
    params(("id" = Uuid, Path), RequestKey, IfMatch),
    responses(
        (status = 200, description = "The endpoint is changed.", body = EndpointView),
        (status = 404, response = NotFound),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn put_webhook_endpoint(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<WebhookEndpointRequest>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let settings = settings(state.target_rules, request.body)?;
    let before = notifications::endpoint_for_change(&mut tx, id).await?.ok_or_else(|| unknown(id))?;
    if_match.check(before.version)?;
    let after = notifications::update(&mut tx, &before, &settings, &principal.by()).await?;
    tx.commit(shown(after, &principal)).await
}

/// Delete an endpoint
///
/// With its deliveries; what waits is not sent.
#[utoipa::path(
    delete, path = "/v1/webhook-endpoints/{id}", tag = "webhooks",
    params(("id" = Uuid, Path), RequestKey, IfMatch),
    responses(
        (status = 204, description = "The endpoint is gone."),
        (status = 404, response = NotFound),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn delete_webhook_endpoint(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let endpoint = notifications::endpoint_for_change(&mut tx, id).await?.ok_or_else(|| unknown(id))?;
    if_match.check(endpoint.version)?;
    notifications::delete(&mut tx, &endpoint, &principal.by()).await?;
    tx.commit(Reply::no_content()).await
}

/// Give an endpoint a new secret
///
/// The answer holds it; it is not shown again. For a day, notices are signed with the former secret as well.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{id}/rotate-secret", tag = "webhooks",
    params(("id" = Uuid, Path), RequestKey),
    responses(
        (status = 200, description = "The new secret signs from now on.", body = WithSecret),
        (status = 404, response = NotFound),
    ),
)]
async fn rotate_webhook_secret(
    State(state): State<ApiState>,
    principal: Principal,
    Path(id): Path<Uuid>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let rotated = notifications::rotate(&mut tx, &state.clock, id, &principal.by()).await?;
    let (endpoint, secret) = rotated.ok_or_else(|| unknown(id))?;
    let version = endpoint.version;
    let endpoint = EndpointView::new(endpoint, principal.role);
    let body = WithSecret { endpoint, secret: secret.expose().to_owned() };
    tx.commit(Reply::ok(body).version(version)).await
}

fn shown(endpoint: Endpoint, principal: &Principal) -> Reply {
    let version = endpoint.version;
    Reply::ok(EndpointView::new(endpoint, principal.role)).version(version)
}

pub(super) fn unknown(id: Uuid) -> Problem {
    Problem::not_found("webhook endpoint", id)
}

/// The settings of a request, if they can be used.
fn settings(rules: TargetRules, request: WebhookEndpointRequest) -> Result<EndpointSettings, Problem> {
    let mut faults = Vec::new();
    let url = rules.parse(&request.url);
    if let Err(fault) = &url {
        faults.push(FieldError::body("/url", fault));
    }
    let counts = [
        ("/events", request.events.as_ref().map(Vec::len)),
        ("/pipelines", request.pipelines.as_ref().map(Vec::len)),
    ];
    for (field, count) in counts {
        if count.is_some_and(|count| count == 0 || count > NAMES) {
            let message = format!("must name 1 to {NAMES}, or be left out for all");
            faults.push(FieldError::body(field, message));
        }
    }
    for (index, name) in request.pipelines.iter().flatten().enumerate() {
        if name.is_empty() || name.len() > 200 || name.contains('\0') {
            faults.push(FieldError::body(format!("/pipelines/{index}"), "must be the name of a pipeline"));
        }
    }
    match url {
        Ok(url) if faults.is_empty() => Ok(EndpointSettings {
            url,
            events: request.events,
            pipelines: request.pipelines,
            form: request.form,
            enabled: request.enabled,
        }),
        _ => Err(Problem::invalid(faults)),
    }
}
