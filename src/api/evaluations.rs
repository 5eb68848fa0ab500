//! What a run's new model showed before it met traffic.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path};
use super::problem::Problem;
use super::responses::NotFound;
use crate::evaluation::{self, Answer, Evaluation};
use crate::runs;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_evaluation))
}

/// The evaluation of a run's model.
#[derive(Debug, Serialize, ToSchema)]
struct EvaluationView {
    /// What was found; absent until the step `evaluate` has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Evaluation>,
    /// What the models answered so far, by line and model: two for each prompt at most.
    #[schema(max_items = 1000)]
    answers: Vec<Answer>,
}

/// Show what a run's model answered, and how it compared with the live one
#[utoipa::path(
    get, path = "/v1/runs/{id}/evaluation", tag = "runs", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "Answers, scores and findings.", body = EvaluationView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_evaluation(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<EvaluationView>, Problem> {
    runs::by_id(&state.db, id).await?.ok_or_else(|| Problem::not_found("run", id))?;
    let found = evaluation::found(&state.db, id).await?;
    let answers = evaluation::answers(&state.db, id).await?;
    Ok(Json(EvaluationView { found, answers }))
}
