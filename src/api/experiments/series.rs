//! The series of an experiment's looks, for charts.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api::ApiState;
use crate::api::extract::{Json, Path, Query};
use crate::api::page::{Cursor, Page, PageQuery};
use crate::api::problem::Problem;
use crate::api::responses::NotFound;
use crate::experiments::{self, Look};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_experiment_looks))
}

/// List the looks at an experiment, oldest first
///
/// The effect and its sequence over time, of the test and of the watch. About 500 looks are kept from the start to the
/// horizon; the newest is always among them, and is replaced by the next one while it is too close to the look before it.
#[utoipa::path(
    get, path = "/v1/experiments/{id}/series", tag = "experiments",
    params(("id" = Uuid, Path), PageQuery<i64>),
    responses(
        (status = 200, description = "One page of looks.", body = Page<Look>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_experiment_looks(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery<i64>>,
) -> Result<Json<Page<Look>>, Problem> {
    let mut conn = state.db.acquire().await?;
    super::find(&mut conn, id).await?;
    let after = query.cursor.map_or(0, |Cursor(number)| number);
    let looks = experiments::looks(&mut conn, id, after, query.limit.rows()).await?;
    Ok(Json(Page::new(looks, query.limit, |look| look.number)?))
}
