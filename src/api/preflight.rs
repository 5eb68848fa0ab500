//! What a run would train on and cost, before it is started or anything is uploaded.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Nested, Path};
use super::problem::Problem;
use super::responses::NotFound;
use crate::dataset::{self, DatasetError, DatasetStore};
use crate::pipelines::PipelineConfig;
use crate::preflight::{self, PreflightReport};
use crate::runs;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(preflight_pipeline)).routes(routes!(get_run_preflight))
}

/// Show what a run would train on and cost
///
/// Reads the posts as a run would; starts and keeps nothing. With a
/// configuration in the body, that one is tried in place of the pipeline's. 422 with `preflight-too-large` for more than 256 MiB, or what
/// does not get done within the time of a request: a run has no such limit. 503 where as many reports as a process makes at once are being
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
    Nested(tried): Nested<Option<PipelineConfig>>,
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
    let report = make(&state, &name, &config, now);
    // Answered before the limit of all requests, which would say less.
    Ok(Json(in_time(state.request_time.mul_f64(0.9), report).await?))
}

/// The largest dataset that a report is made of within a request; its bytes are on this process's disk twice.
const LARGEST: u64 = 256 << 20;

async fn make(
    state: &ApiState,
    name: &str,
    config: &PipelineConfig,
    now: DateTime<Utc>,
) -> Result<PreflightReport, Problem> {
    let snapshot = dataset::collect(&state.sources, name, &config.dataset, now).await?;
    let parts = snapshot.manifest.parts.as_ref();
    let validation = parts.and_then(|parts| parts.validation.as_ref()).map_or(0, |part| part.bytes);
    small_enough(snapshot.manifest.bytes + validation)?;
    // Nobody asked to keep it: a run makes its own.
    let aside = tempfile::tempdir().map_err(DatasetError::File)?;
    let datasets = DatasetStore::local(aside.path())?;
    datasets.put(&snapshot).await?;
    Ok(preflight::examine(&datasets, &snapshot.manifest, (&config.training).into(), &state.prices, now)
        .await?)
}

/// What takes longer or is larger is no less a run's: its step `preflight` has neither limit.
fn too_large(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "preflight-too-large",
        "The report is too large for a request",
    )
    .detail(format!("{why}; look back on fewer days, or start a run, which reports on any number of posts"))
}

fn small_enough(bytes: u64) -> Result<(), Problem> {
    if bytes <= LARGEST {
        return Ok(());
    }
    Err(too_large(&format!("the dataset has {bytes} bytes, and a report by request takes up to {LARGEST}")))
}

async fn in_time<T>(limit: Duration, report: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = || too_large(&format!("making it takes longer than {} s", limit.as_secs()));
    tokio::time::timeout(limit, report).await.unwrap_or_else(|_| Err(late()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_too_large_or_takes_too_long_is_told_and_not_waited_for() {
        assert!(small_enough(LARGEST).is_ok());
        let never = std::future::pending::<Result<(), Problem>>();
        let late = in_time(Duration::from_millis(1), never).await;
        for (refused, why) in [(small_enough(LARGEST + 1), "bytes"), (late, "longer than")] {
            let said = format!("{:?}", refused.expect_err(why));
            assert!(said.contains("preflight-too-large") && said.contains(why), "{said}");
        }
        assert!(in_time(Duration::from_mins(1), async { Ok(()) }).await.is_ok());
    }
}
