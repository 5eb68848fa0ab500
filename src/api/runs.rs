//! `/v1/runs` and what starts, stops and approves them.

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::etag::IfMatch;
use super::extract::{Json, Path, Query};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Cursor, Limit, Page};
use super::problem::Problem;
use super::reply::Reply;
use super::responses::{Conflict, NotFound, PreconditionFailed};
use super::run_view::{RunView, view};
use crate::runs::{self, Request, RunStatus};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(trigger_run))
        .routes(routes!(list_runs))
        .routes(routes!(get_run))
        .routes(routes!(cancel_run))
        .routes(routes!(approve_run))
        .routes(routes!(reject_run))
        .routes(routes!(retry_run))
}

/// A run takes its settings from its pipeline: the body is empty, or an empty object.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

/// Start a run
///
/// 409 with a link to the other run where the pipeline is building one already.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/runs", tag = "runs",
    params(("pipeline" = String, Path), RequestKey), request_body = Option<NoSettings>,
    responses(
        (status = 202, description = "The run was queued; follow it at `Location`.", body = RunView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
async fn trigger_run(
    State(state): State<ApiState>,
    principal: Principal,
    Path(name): Path<String>,
    request: Idempotent<Option<NoSettings>>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let pipeline = crate::pipelines::by_name(&mut *tx, &name)
        .await?
        .ok_or_else(|| Problem::not_found("pipeline", &name))?;
    let id = runs::by_api(&mut tx, &state.clock, &pipeline, &principal.by()).await?;
    let run = runs::by_id(&mut *tx, id).await?.ok_or_else(|| Problem::not_found("run", id))?;
    let version = run.version;
    let view = view(&mut tx, run).await?;
    tx.commit(Reply::accepted(format!("/v1/runs/{id}"), view).version(version)).await
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunQuery {
    /// Only runs of this pipeline.
    pipeline: Option<String>,
    /// Only runs with this status.
    status: Option<RunStatus>,
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<Uuid>>,
}

/// List runs, newest first
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs", params(RunQuery),
    responses((status = 200, description = "One page of runs.", body = Page<RunView>)),
)]
async fn list_runs(
    State(state): State<ApiState>,
    Query(query): Query<RunQuery>,
) -> Result<Json<Page<RunView>>, Problem> {
    let before = query.cursor.map(|Cursor(id)| id);
    let mut conn = state.db.acquire().await?;
    let runs =
        runs::list(&mut *conn, query.pipeline.as_deref(), query.status, before, query.limit.rows()).await?;
    let mut views = Vec::with_capacity(runs.len());
    for run in runs {
        views.push(view(&mut conn, run).await?);
    }
    Ok(Json(Page::new(views, query.limit, |run| run.id)?))
}

/// Show a run
#[utoipa::path(
    get, path = "/v1/runs/{id}", tag = "runs", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_run(State(state): State<ApiState>, Path(id): Path<Uuid>) -> Result<Reply, Problem> {
    let mut conn = state.db.acquire().await?;
    let run = runs::by_id(&mut *conn, id).await?.ok_or_else(|| Problem::not_found("run", id))?;
    let version = run.version;
    Ok(Reply::ok(view(&mut conn, run).await?).version(version))
}

/// Why something is asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    /// For the run's history and the audit trail.
    #[schema(max_length = 1000, example = "the campaign was stopped")]
    reason: Option<String>,
}

/// How a run is retried, and why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HowToRetry {
    /// For the run's history and the audit trail.
    #[schema(max_length = 1000, example = "the provider was down")]
    reason: Option<String>,
    /// Whether what is trained again is paid for whatever the budget says, without another approval.
    #[serde(default)]
    force: bool,
}

/// What is asked of a run.
enum Ask {
    Request(Request),
    Retry { force: bool },
}

async fn ask(
    state: &ApiState,
    principal: &Principal,
    if_match: &IfMatch,
    id: Uuid,
    key: &RequestKey,
    reason: Option<String>,
    ask: Ask,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, principal, key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let reason = super::valid_reason(reason)?;
    let run = runs::lock(&mut tx, id).await?;
    if_match.check(run.version)?;
    let by = principal.by();
    let run = match ask {
        Ask::Request(wanted) => runs::request(&mut tx, run, wanted, reason.as_deref(), &by).await?,
        Ask::Retry { force } => runs::retry(&mut tx, run, force, reason.as_deref(), &by).await?,
    };
    let version = run.version;
    let view = view(&mut tx, run).await?;
    tx.commit(Reply::accepted(format!("/v1/runs/{id}"), view).version(version)).await
}

/// Cancel a run
///
/// Its job at the provider is cancelled, its test ended. A run whose model was promoted cannot be cancelled: roll
/// the pipeline back instead.
#[utoipa::path(
    post, path = "/v1/runs/{id}/cancel", tag = "runs",
    params(("id" = Uuid, Path), RequestKey, IfMatch), request_body = Option<Why>,
    responses(
        (status = 202, description = "It will be cancelled; follow it at `Location`.", body = RunView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn cancel_run(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<Option<Why>>,
) -> Result<Reply, Problem> {
    let why = request.body.unwrap_or_default();
    let wanted = Ask::Request(Request::Cancel);
    ask(&state, &principal, &if_match, id, &request.key, why.reason, wanted).await
}

/// Let a run go on that waits for a person
///
/// In preflight, its training may cost what was reported. After an inconclusive test its model is promoted: that needs a
/// `reason`, and the traffic's revision is marked as forced and names who approved it.
#[utoipa::path(
    post, path = "/v1/runs/{id}/approve", tag = "runs",
    params(("id" = Uuid, Path), RequestKey, IfMatch), request_body = Option<Why>,
    responses(
        (status = 202, description = "It will go on; follow it at `Location`.", body = RunView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn approve_run(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<Option<Why>>,
) -> Result<Reply, Problem> {
    let why = request.body.unwrap_or_default();
    let wanted = Ask::Request(Request::Approve);
    ask(&state, &principal, &if_match, id, &request.key, why.reason, wanted).await
}

/// Turn down a run that waits for a person
///
/// In preflight, nothing is paid for; after an inconclusive test, its model is rejected.
#[utoipa::path(
    post, path = "/v1/runs/{id}/reject", tag = "runs",
    params(("id" = Uuid, Path), RequestKey, IfMatch), request_body = Option<Why>,
    responses(
        (status = 202, description = "It will be rejected; follow it at `Location`.", body = RunView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn reject_run(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<Option<Why>>,
) -> Result<Reply, Problem> {
    let why = request.body.unwrap_or_default();
    let wanted = Ask::Request(Request::Reject);
    ask(&state, &principal, &if_match, id, &request.key, why.reason, wanted).await
}

/// Start a failed run again where it failed
///
/// Where the provider's job ended without a model, the run goes back to preflight and trains again, all of a search of which
/// nothing came: at today's prices, and within the budget unless it is forced.
#[utoipa::path(
    post, path = "/v1/runs/{id}/retry", tag = "runs",
    params(("id" = Uuid, Path), RequestKey, IfMatch), request_body = Option<HowToRetry>,
    responses(
        (status = 202, description = "It goes on; follow it at `Location`.", body = RunView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn retry_run(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(id): Path<Uuid>,
    request: Idempotent<Option<HowToRetry>>,
) -> Result<Reply, Problem> {
    let how = request.body.unwrap_or_default();
    let ask_for = Ask::Retry { force: how.force };
    ask(&state, &principal, &if_match, id, &request.key, how.reason, ask_for).await
}
