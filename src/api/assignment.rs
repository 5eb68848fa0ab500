//! `GET /v1/pipelines/{pipeline}/assignment`: which version serves a unit.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::experiments::assignment::{bucket, share_of};
use crate::experiments::statistics::Arm;
use crate::traffic::{self, Revision, Share};
use crate::{experiments, models};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(assign_unit))
}

/// Who is to be served.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AssignmentQuery {
    /// What is assigned and stays with its version: a persona, a user, a post.
    #[param(min_length = 1, max_length = 200, example = "persona-17")]
    unit: String,
}

/// The version that serves a unit.
#[derive(Debug, Serialize, ToSchema)]
struct Assignment {
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: String,
    /// The unit.
    #[schema(example = "persona-17")]
    unit: String,
    /// The version.
    #[schema(example = "1.4.0", value_type = String)]
    version: models::Version,
    /// What to call at the provider.
    model_id: String,
    /// The version's part in the experiment, if it has one.
    arm: Option<Arm>,
    /// The experiment that the traffic belongs to.
    experiment_id: Option<Uuid>,
    /// The traffic revision; send it with the outcome.
    revision: i64,
}

/// Which version serves a unit
///
/// The same unit gets the same version for as long as the split does not change, and a larger share of a version moves
/// no unit away from it.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/assignment", tag = "traffic",
    params(("pipeline" = String, Path), AssignmentQuery),
    responses(
        (status = 200, description = "The version that serves it.", body = Assignment),
        (status = 404, response = NotFound),
    ),
)]
async fn assign_unit(
    State(state): State<ApiState>,
    Path(pipeline): Path<String>,
    Query(query): Query<AssignmentQuery>,
) -> Result<Json<Assignment>, Problem> {
    if query.unit.is_empty() || query.unit.len() > 200 || query.unit.contains('\0') {
        let message = "must have 1 to 200 bytes and no NUL";
        return Err(Problem::invalid([FieldError::new(Place::Query, "unit", message)]));
    }
    let mut conn = state.db.acquire().await?;
    let revision = traffic::current(&mut conn, &pipeline)
        .await?
        .ok_or_else(|| Problem::not_found("pipeline", &pipeline))?;
    let share = pick(&revision, &query.unit).ok_or_else(|| Problem::internal(&NoShare(revision.revision)))?;
    let arm = match revision.experiment_id {
        Some(id) => {
            experiments::by_id(&mut *conn, id).await?.and_then(|test| test.arm_of(share.model_version_id))
        }
        None => None,
    };
    Ok(Json(Assignment {
        version: share.version,
        model_id: share.provider_model_id.clone(),
        arm,
        experiment_id: revision.experiment_id,
        revision: revision.revision,
        unit: query.unit,
        pipeline,
    }))
}

/// The share that serves a unit.
fn pick<'a>(revision: &'a Revision, unit: &str) -> Option<&'a Share> {
    let weights = revision.shares.iter().map(|share| share.weight);
    share_of(bucket(&revision.salt, unit), weights).and_then(|index| revision.shares.get(index))
}

/// The weights of a revision do not reach 10,000, which the database forbids.
#[derive(Debug, thiserror::Error)]
#[error("traffic revision {0} has no share for a bucket")]
struct NoShare(i64);
