//! `/v1/pipelines`: the named slots and how their models are improved.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::etag::IfMatch;
use super::extract::{Json, Nested, Path, Query};
use super::page::{Cursor, Page, PageQuery};
use super::problem::{FieldError, Problem};
use super::reply::Reply;
use super::responses::{NotFound, PreconditionFailed};
use crate::dataset::{OutcomeQuery, SourceError};
use crate::outcome_pull;
use crate::pipelines::cron::Cron;
use crate::pipelines::{self, Pipeline, PipelineConfig};
use crate::publication;
use crate::traffic;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_pipelines)).routes(routes!(get_pipeline, put_pipeline))
}

/// A pipeline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipeline)]
struct PipelineView {
    /// Its name.
    #[schema(example = "hook")]
    name: String,
    /// Counts changes of the configuration; the resource's `ETag`.
    config_version: i32,
    /// The configuration in force.
    config: PipelineConfig,
    /// What serves when nothing is under test.
    live: Option<LiveView>,
    /// The next scheduled run; absent where the schedule is off.
    next_run_at: Option<DateTime<Utc>>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When its configuration last changed.
    updated_at: DateTime<Utc>,
}

/// A live version.
#[derive(Debug, Serialize, ToSchema)]
struct LiveView {
    /// The version.
    #[schema(example = "1.4.0")]
    version: String,
    /// What applications call at the provider.
    #[schema(example = "gpt-4o")]
    model_id: String,
}

async fn view(state: &ApiState, pipeline: Pipeline) -> Result<PipelineView, Problem> {
    let mut conn = state.db.acquire().await?;
    let revision = traffic::current(&mut conn, &pipeline.name).await?;
    Ok(render(pipeline, revision.as_ref(), state.clock.now()))
}

fn render(pipeline: Pipeline, revision: Option<&traffic::Revision>, now: DateTime<Utc>) -> PipelineView {
    let live = revision.and_then(traffic::Revision::live).map(|share| LiveView {
        version: share.version.to_string(),
        model_id: share.provider_model_id.clone(),
    });
    let schedule = &pipeline.config.schedule;
    let cron = Cron::new(&schedule.cron, &schedule.timezone).ok().filter(|_| schedule.enabled);
    PipelineView {
        live,
        next_run_at: cron.and_then(|cron| cron.next_after(now)),
        name: pipeline.name,
        config_version: pipeline.config_version,
        config: pipeline.config,
        created_at: pipeline.created_at,
        updated_at: pipeline.updated_at,
    }
}

/// List pipelines by name
#[utoipa::path(
    get, path = "/v1/pipelines", tag = "pipelines", params(PageQuery<String>),
    responses((status = 200, description = "One page of pipelines.", body = Page<PipelineView>)),
)]
async fn list_pipelines(
    State(state): State<ApiState>,
    Query(query): Query<PageQuery<String>>,
) -> Result<Json<Page<PipelineView>>, Problem> {
    let after = query.cursor.map(|Cursor(name)| name);
    let mut views = Vec::new();
    for pipeline in pipelines::all(&state.db, after.as_deref(), query.limit.rows()).await? {
        views.push(view(&state, pipeline).await?);
    }
    Ok(Json(Page::new(views, query.limit, |pipeline| pipeline.name.clone())?))
}

/// Show a pipeline
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}", tag = "pipelines", params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "The pipeline.", body = PipelineView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_pipeline(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Reply, Problem> {
    let pipeline = find(&state, &name).await?;
    let version = i64::from(pipeline.config_version);
    Ok(Reply::ok(view(&state, pipeline).await?).version(version))
}

/// The pipeline of a path.
pub(super) async fn find(state: &ApiState, name: &str) -> Result<Pipeline, Problem> {
    pipelines::by_name(&state.db, name).await?.ok_or_else(|| Problem::not_found("pipeline", name))
}

/// A configuration that could be saved.
pub(super) async fn checked(state: &ApiState, config: PipelineConfig) -> Result<PipelineConfig, Problem> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Problem::invalid(
            faults.into_iter().map(|(field, message)| FieldError::body(field, message)),
        ));
    }
    check_sources(state, &config).await?;
    Ok(config)
}

/// Whether what a configuration reads can be read.
async fn check_sources(state: &ApiState, config: &PipelineConfig) -> Result<(), Problem> {
    state.sources.check(&config.dataset).await?;
    let Some(pull) = &config.outcomes.pull else { return Ok(()) };
    let query = OutcomeQuery::new(pull.url_env.as_deref(), &pull.query, pull.timeout_seconds);
    match state.sources.check_outcomes(&query).await {
        Err(SourceError::Unusable(faults)) => {
            Err(Problem::invalid(faults.into_iter().map(|(field, fault)| {
                let field = field.strip_prefix("/source").unwrap_or(&field);
                FieldError::body(format!("/outcomes/pull{field}"), fault)
            })))
        }
        Err(error @ SourceError::Unreachable { .. }) => {
            Err(Problem::invalid([FieldError::body("/outcomes/pull/url_env", error)]))
        }
        checked => Ok(checked?),
    }
}

/// Create a pipeline, or change its configuration
///
/// The configuration is validated as a whole, and its dataset's source is looked at; an accepted change makes a new version of it. With `If-Match` it
/// applies only to the version that was read, with `If-None-Match: *` only where there is no such pipeline.
#[utoipa::path(
    put, path = "/v1/pipelines/{pipeline}", tag = "pipelines", request_body = PipelineConfig,
    params(
        ("pipeline" = String, Path), IfMatch,
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create, never change."),
    ),
    responses(
        (status = 200, description = "The pipeline as it is now.", body = PipelineView),
        (status = 201, description = "The pipeline was created.", body = PipelineView),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn put_pipeline(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(name): Path<String>,
    headers: HeaderMap,
    Nested(config): Nested<PipelineConfig>,
) -> Result<Reply, Problem> {
    // Before the pipeline is locked: another database may take its time. Other faults are told first.
    if config.faults().is_empty() {
        check_sources(&state, &config).await?;
    }
    let mut tx = state.db.begin().await?;
    let former = pipelines::lock(&mut tx, &name).await?;
    let before = former.as_ref().map(|former| former.config_version);
    if_match.check(before.map(i64::from))?;
    if before.is_some() && headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*") {
        let problem = Problem::new(
            axum::http::StatusCode::PRECONDITION_FAILED,
            "pipeline-exists",
            "The pipeline exists already",
        );
        return Err(problem.detail("Leave `If-None-Match` out to change its configuration."));
    }
    let pipeline = pipelines::save(&mut tx, &state.clock, &name, &config, &principal.by()).await?;
    outcome_pull::changed(&mut tx, former.as_ref().map(|former| &former.config), &pipeline).await?;
    publication::changed(&mut tx, &pipeline, &principal.by()).await?;
    tx.commit().await?;
    let version = i64::from(pipeline.config_version);
    let view = view(&state, pipeline).await?;
    let reply = match before {
        Some(_) => Reply::ok(view),
        None => Reply::created(format!("/v1/pipelines/{name}"), view),
    };
    Ok(reply.version(version))
}
