//! What a run would train on and cost, before it is started or anything is uploaded.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Path};
use super::problem::Problem;
use super::responses::NotFound;
use crate::dataset::{self, DatasetError, DatasetStore};
use crate::pipelines::PipelineConfig;
use crate::preflight::{self, Plan, PreflightReport};
use crate::runs;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(preflight_pipeline)).routes(routes!(get_run_preflight))
}

/// Show what a run would train on and cost
///
/// Reads the posts as a run would; starts and keeps nothing. With a
/// configuration in the body, that one is tried in place of the pipeline's. 503 where as many reports as a process makes at once are being
/// made.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/preflight", tag = "pipelines",
    params(("pipeline" = String, Path)), request_body = Option<PipelineConfig>,
    responses(
        (status = 200, description = "The report.", body = PreflightReport),
        (status = 404, response = NotFound),
    ),
)]
async fn preflight_pipeline(
    State(state): State<ApiState>,
    _principal: Principal,
    Path(name): Path<String>,
    Json(tried): Json<Option<PipelineConfig>>,
) -> Result<Json<PreflightReport>, Problem> {
    let pipeline = super::pipelines::find(&state, &name).await?;
    let config = match tried {
        Some(config) => super::pipelines::checked(&state, config).await?,
        None => pipeline.config,
    };
    let Ok(_one_of_few) = state.preflights.try_acquire() else {
        return Err(Problem::try_later("preflight-busy", "Other preflight reports are being made")
            .detail("Try again in a few seconds."));
    };
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&state.db).await?;
    // Nobody asked to keep it: a run makes its own.
    let aside = tempfile::tempdir().map_err(DatasetError::File)?;
    let datasets = DatasetStore::local(aside.path())?;
    let snapshot = dataset::collect(&state.sources, &name, &config.dataset, now).await?;
    datasets.put(&snapshot).await?;
    let training = &config.training;
    let trials = training.trials();
    let plan = Plan {
        provider: &training.provider,
        base_model: &training.base_model,
        method: training.method,
        trials: &trials,
    };
    let report = preflight::examine(&datasets, &snapshot.manifest, plan, &state.prices, now).await?;
    Ok(Json(report))
}

/// Show a run's preflight report
#[utoipa::path(
    get, path = "/v1/runs/{id}/preflight", tag = "runs", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The report.", body = PreflightReport),
        (status = 404, response = NotFound),
    ),
)]
async fn get_run_preflight(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<PreflightReport>, Problem> {
    let run = runs::by_id(&state.db, id).await?.ok_or_else(|| Problem::not_found("run", id))?;
    let report = run.preflight.ok_or_else(|| Problem::not_found("preflight report of run", id))?;
    Ok(Json(report.0))
}
