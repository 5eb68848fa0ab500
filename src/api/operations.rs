//! What runs the service: `/healthz`, `/readyz`, `/metrics`, the OpenAPI document and its UI. No key needed.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::extract::Json;
use super::problem::Problem;
use super::responses::Internal;
use super::{ApiState, unknown_route};

/// A probe is answered within this time, whatever the pool is willing to wait.
const PROBE_TIME: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// `/openapi.json`, and Swagger UI with all of its assets under `/docs`. The UI keeps the key that was entered.
pub(super) fn documentation(document: OpenApi) -> Router<ApiState> {
    let config = Config::default().persist_authorization(true).display_request_duration(true);
    let ui = SwaggerUi::new("/docs").url("/openapi.json", document).config(config);
    Router::from(ui).layer(middleware::map_response(missing_asset))
}

/// The UI answers a missing asset without a body.
async fn missing_asset(response: Response) -> Response {
    if response.status() == StatusCode::NOT_FOUND { unknown_route().into_response() } else { response }
}

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The version of this build.
    version: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It is.", body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether requests can be served, with what was looked at.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Whether all checks passed.
    ready: bool,
    /// The checks, in the order they were made; the ones after a failure are left out.
    checks: Vec<Check>,
}

/// One thing that must be right to serve requests.
#[derive(Debug, Serialize, ToSchema)]
struct Check {
    /// `database` or `schema`.
    name: &'static str,
    /// Whether it is right.
    ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Check {
    fn new(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, ok: result.is_ok(), detail: result.err() }
    }
}

/// Whether the service can serve requests
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "All checks passed.", body = Readiness),
        (status = 503, description = "A check failed.", body = Readiness),
    ),
)]
async fn readyz(State(state): State<ApiState>) -> (StatusCode, Json<Readiness>) {
    let mut checks = vec![Check::new("database", reach(&state.db).await)];
    if checks.iter().all(|check| check.ok) {
        checks.push(Check::new("schema", compare_schema(&state.db, state.schema_version).await));
    }
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks }))
}

async fn reach(db: &PgPool) -> Result<(), String> {
    let query = sqlx::query("SELECT 1").execute(db);
    match tokio::time::timeout(PROBE_TIME, query).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the database cannot be reached");
            Err("The database cannot be reached; the log has the reason.".to_owned())
        }
        Err(_) => Err(format!("The database did not answer within {PROBE_TIME:?}.")),
    }
}

/// Compares the newest migration that was applied with the newest one of this build. The query is not checked at
/// compile time: sqlx's own table is made by migrating, not by a migration.
async fn compare_schema(db: &PgPool, expected: i64) -> Result<(), String> {
    let query = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(db);
    let found: Option<i64> = match tokio::time::timeout(PROBE_TIME, query).await {
        Ok(Ok(found)) => found,
        Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() == Some("42P01") => None,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the schema's version cannot be read");
            return Err("The schema's version cannot be read; the log has the reason.".to_owned());
        }
        Err(_) => return Err(format!("The database did not answer within {PROBE_TIME:?}.")),
    };
    match found {
        // A newer schema is that of a release being rolled out: it still serves this one, because migrations only
        // add until the release after. Starting up on it is another matter and refused.
        Some(found) if found >= expected => Ok(()),
        Some(found) => {
            Err(format!("The schema is at version {found}, not {expected}; run `tuneloop migrate`."))
        }
        None => Err("The database has no schema yet; run `tuneloop migrate`.".to_owned()),
    }
}

/// Metrics in the text format of Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        (status = 500, response = Internal),
    ),
)]
async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    state.metrics.refresh(&state.db).await;
    let text = state.metrics.encode().map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
