//! The REST API. One file per group of endpoints; the other files are what all of them stand on.
//!
//! To add a group: write `routes()` in a file of its own after the pattern of `audit.rs`, merge it in
//! [`guarded`], and explain its tag in `document.rs`.

mod around;
mod assignment;
mod audit;
pub mod auth;
mod costs;
mod datasets;
mod document;
mod domain_errors;
pub mod etag;
mod evaluations;
mod events;
mod experiments;
pub mod extract;
pub mod idempotency;
mod kill_switch;
mod known_keys;
pub mod limits;
pub mod memory;
mod metrics_layer;
mod models;
mod operations;
mod outcomes;
pub mod page;
mod pins;
mod pipelines;
mod plan;
mod preflight;
pub mod problem;
mod promote;
mod publications;
pub mod reply;
pub mod request_id;
pub mod responses;
mod run_view;
mod runs;
mod trace;
mod tracking;
mod traffic;
mod traffic_diff;
mod training_view;
mod trainings;
mod webhook_deliveries;
mod webhook_endpoints;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::around::Around;
use self::memory::Memory;
use self::metrics_layer::HttpMetrics;
use self::problem::{FieldError, Problem};
use crate::clock::Clock;
use crate::config::OUTCOME_RETENTION_DAYS;
use crate::dataset::{DatasetStore, Sources};
use crate::outbound::TargetRules;
use crate::preflight::PriceTable;
use crate::standard_webhooks::WebhookSecret;
use crate::telemetry::metrics::Metrics;
use crate::trainers::Trainers;

/// Preflight reports that a process makes at once.
const PREFLIGHTS_AT_ONCE: usize = 2;

/// What the endpoints share.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// The database.
    pub db: PgPool,
    /// Time, identifiers and randomness.
    pub clock: Clock,
    /// Every metric of the process, shown at `/metrics`.
    pub metrics: Metrics,
    /// The version of the newest migration of this build; `/readyz` compares it with the database's.
    pub schema_version: i64,
    /// Cancelled when the service is about to stop: streams end then.
    pub stop: CancellationToken,
    /// Where posts are read; in the service's own database only, unless changed.
    pub sources: Sources,
    /// Where datasets are kept.
    pub datasets: DatasetStore,
    /// What OpenAI signs its notices with; none are taken unless set.
    pub webhook_secret: Option<WebhookSecret>,
    /// What providers charge; nothing is known unless set.
    pub prices: PriceTable,
    /// The providers, who are asked for a model before it is promoted; none unless set.
    pub trainers: Trainers,
    /// Which addresses may be told what happens; public ones only, unless changed.
    pub target_rules: TargetRules,
    /// What is answered from memory; a service has it refreshed by [`Memory::run`].
    pub memory: Memory,
    /// Preflight reports read many posts: a process makes few at once.
    preflights: Arc<Semaphore>,
    /// How long outcomes are kept; [`OUTCOME_RETENTION_DAYS`] unless changed.
    pub outcome_retention: TimeDelta,
    /// How long a request may take, [`limits::REQUEST_TIME`] unless changed.
    pub request_time: Duration,
    http: HttpMetrics,
}

impl ApiState {
    /// The state of one API. Its own metrics are added to `metrics`, which fails when they are there already.
    pub fn new(
        db: PgPool,
        clock: Clock,
        metrics: Metrics,
        datasets: DatasetStore,
        schema_version: i64,
    ) -> prometheus::Result<Self> {
        let http = HttpMetrics::register(metrics.registry())?;
        let (stop, request_time) = (CancellationToken::new(), limits::REQUEST_TIME);
        let sources = Sources::new(db.clone());
        let memory = Memory::new(db.clone());
        memory.register(metrics.registry())?;
        let webhook_secret = None;
        Ok(Self {
            db,
            clock,
            metrics,
            schema_version,
            stop,
            sources,
            datasets,
            webhook_secret,
            prices: PriceTable::default(),
            trainers: Trainers::new(),
            target_rules: TargetRules::default(),
            outcome_retention: TimeDelta::days(OUTCOME_RETENTION_DAYS.into()),
            memory,
            preflights: Arc::new(Semaphore::new(PREFLIGHTS_AT_ONCE)),
            request_time,
            http,
        })
    }
}

/// Routes that everybody may use.
fn open() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().merge(operations::routes()).merge(webhooks::routes())
}

/// Routes that need an API key.
fn guarded() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(pipelines::routes())
        .merge(preflight::routes())
        .merge(runs::routes())
        .merge(events::routes())
        .merge(datasets::routes())
        .merge(evaluations::routes())
        .merge(trainings::routes())
        .merge(costs::routes())
        .merge(models::routes())
        .merge(promote::routes())
        .merge(traffic::routes())
        .merge(traffic_diff::routes())
        .merge(publications::routes())
        .merge(pins::routes())
        .merge(kill_switch::routes())
        .merge(outcomes::routes())
        .merge(experiments::routes())
        .merge(tracking::routes())
        .merge(plan::routes())
        .merge(audit::routes())
        .merge(webhook_endpoints::routes())
        .merge(webhook_deliveries::routes())
}

/// The OpenAPI document of all routes. Those of assignments have a state of their own: they answer from memory.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut with_key = guarded().into_openapi();
    with_key.merge(assignment::routes().into_openapi());
    document::assemble(open().into_openapi(), with_key)
}

/// The whole API as one service.
pub fn router(state: ApiState) -> Router {
    let (open, _) = open().split_for_parts();
    let (guarded, _) = guarded().split_for_parts();
    let guarded = guarded.route_layer(from_fn_with_state(state.db.clone(), auth::authenticate));
    let (assignment, _) = assignment::routes().split_for_parts();
    let assignment = assignment.with_state(state.memory.clone());
    let routes = open.merge(guarded).merge(assignment).merge(operations::documentation(openapi()));
    with_middleware(routes, &state).with_state(state)
}

/// Probes and metrics alone, for a process without the API's role.
pub fn operations(state: ApiState) -> Router {
    let (open, _) = open().split_for_parts();
    with_middleware(open, &state).with_state(state)
}

/// Adds the fallbacks and what every request passes, from the outside in.
fn with_middleware(routes: Router<ApiState>, state: &ApiState) -> Router<ApiState> {
    let middleware = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(Around::of(state))
        .layer(CatchPanicLayer::custom(limits::answer_panic))
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES));
    routes
        .fallback(async || unknown_route())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware)
}

/// The longest reason that a person may give, in characters.
const REASON_LENGTH: usize = 1_000;

/// A reason that may be left out.
fn valid_reason(reason: Option<String>) -> Result<Option<String>, Problem> {
    reason.map(required_reason).transpose()
}

/// A reason that must be given.
fn required_reason(reason: String) -> Result<String, Problem> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_LENGTH || reason.contains('\0') {
        let message = format!("must say why in 1 to {REASON_LENGTH} characters");
        return Err(Problem::invalid([FieldError::body("/reason", message)]));
    }
    Ok(reason)
}

fn unknown_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-route", "There is nothing at this path")
        .detail("Routes are listed at /openapi.json and explained at /docs.")
}

/// The router adds `Allow`, which is all that OPTIONS asks for.
async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method does not exist here")
        .detail(format_args!("This path has no {method}; the header `Allow` lists what it has."))
        .into_response()
}

#[cfg(test)]
mod tests;
