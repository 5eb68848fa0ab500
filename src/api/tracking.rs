//! Where the delivery of a pipeline to MLflow stands.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Path};
use super::problem::Problem;
use super::responses::NotFound;
use crate::tracking::{self, TrackingState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_tracking))
}

/// Show whether MLflow has been told of everything
///
/// Nothing waits for MLflow: while it is away, runs go on, and it is told of them afterwards.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/tracking", tag = "pipelines", params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "Where the delivery stands.", body = TrackingState),
        (status = 404, response = NotFound),
    ),
)]
async fn get_tracking(
    State(state): State<ApiState>,
    Path(pipeline): Path<String>,
) -> Result<Json<TrackingState>, Problem> {
    let found = tracking::state(&state.db, &pipeline).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("pipeline", pipeline))
}
