//! Trainings: paid jobs at a provider, with what it reported about them.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::page::{Cursor, Page, PageQuery};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use super::training_view::TrainingView;
use crate::runs::progress::{self, CurvePoint, StoredCheckpoint, StoredEvent};
use crate::runs::{self, Training};

/// Points of a curve unless asked for otherwise, and at most.
const POINTS: i64 = 500;
const MOST_POINTS: i64 = 10_000;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_trainings))
        .routes(routes!(get_training))
        .routes(routes!(list_training_events))
        .routes(routes!(get_training_curve))
        .routes(routes!(list_training_checkpoints))
}

/// A list that is shown whole.
#[derive(Debug, Serialize, ToSchema)]
struct Items<T> {
    /// Everything.
    #[schema(max_items = 10_000)]
    items: Vec<T>,
}

async fn find(state: &ApiState, id: Uuid) -> Result<Training, Problem> {
    runs::training_by_id(&state.db, id).await?.ok_or_else(|| Problem::not_found("training", id))
}

/// List the trainings of a run
///
/// More than one where the run searches for hyperparameters, or was retried after a training had failed.
#[utoipa::path(
    get, path = "/v1/runs/{id}/trainings", tag = "trainings", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "All of them.", body = Items<TrainingView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_trainings(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<Items<TrainingView>>, Problem> {
    runs::by_id(&state.db, id).await?.ok_or_else(|| Problem::not_found("run", id))?;
    let trainings = runs::trainings_of(&state.db, id).await?;
    Ok(Json(Items { items: trainings.into_iter().map(TrainingView::from).collect() }))
}

/// Show a training
#[utoipa::path(
    get, path = "/v1/trainings/{id}", tag = "trainings", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The training.", body = TrainingView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_training(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<TrainingView>, Problem> {
    Ok(Json(find(&state, id).await?.into()))
}

/// List what the provider reported about a training, in the order in which it was learned
#[utoipa::path(
    get, path = "/v1/trainings/{id}/events", tag = "trainings", params(("id" = Uuid, Path), PageQuery<i64>),
    responses(
        (status = 200, description = "One page of reports.", body = Page<StoredEvent>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_training_events(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery<i64>>,
) -> Result<Json<Page<StoredEvent>>, Problem> {
    find(&state, id).await?;
    let after = query.cursor.map_or(0, |Cursor(number)| number);
    let events = progress::events_of(&state.db, id, after, query.limit.rows()).await?;
    Ok(Json(Page::new(events, query.limit, |event| event.number)?))
}

/// How much of the curve to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CurveQuery {
    /// The most points, spread evenly over the steps; the last step is always shown.
    #[param(minimum = 1, maximum = 10_000, default = 500)]
    points: Option<i64>,
}

/// Show the loss curve of a training
#[utoipa::path(
    get, path = "/v1/trainings/{id}/curve", tag = "trainings", params(("id" = Uuid, Path), CurveQuery),
    responses(
        (status = 200, description = "Points by step.", body = Items<CurvePoint>),
        (status = 404, response = NotFound),
    ),
)]
async fn get_training_curve(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<CurveQuery>,
) -> Result<Json<Items<CurvePoint>>, Problem> {
    let points = query.points.unwrap_or(POINTS);
    if !(1..=MOST_POINTS).contains(&points) {
        let sentence = format!("must be between 1 and {MOST_POINTS}");
        return Err(Problem::invalid([FieldError::new(Place::Query, "points", sentence)]));
    }
    find(&state, id).await?;
    Ok(Json(Items { items: progress::curve_of(&state.db, id, points).await? }))
}

/// List the models that the provider kept along a training
#[utoipa::path(
    get, path = "/v1/trainings/{id}/checkpoints", tag = "trainings", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "All of them, the earliest first.", body = Items<StoredCheckpoint>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_training_checkpoints(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<Items<StoredCheckpoint>>, Problem> {
    find(&state, id).await?;
    Ok(Json(Items { items: progress::checkpoints_of(&state.db, id).await? }))
}
