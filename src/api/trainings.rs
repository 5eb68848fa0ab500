//! Trainings: paid jobs at a provider, with what it reported about them.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::page::{Cursor, Limit, Page};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::runs::progress::{self, CurvePoint, StoredCheckpoint, StoredEvent};
use crate::runs::{self, Training};
use crate::trainers::Hyperparameters;

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

/// A paid job at a provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Training)]
pub(super) struct TrainingView {
    /// Names the job in its metadata at the provider.
    id: Uuid,
    /// The run it belongs to.
    run_id: Uuid,
    /// Its place among the trainings of a search, from 0.
    trial: i32,
    /// The trainer.
    #[schema(example = "openai")]
    provider: String,
    /// The model that is trained.
    base_model: String,
    /// What it was asked to train with; the provider chose the others.
    hyperparameters: Hyperparameters,
    /// What it is trained on.
    dataset_digest: String,
    /// What it is measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_digest: Option<String>,
    /// The provider's id of the training file.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<String>,
    /// The provider's id of the validation file.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_file_id: Option<String>,
    /// The provider's id of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// The job's status in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// The model it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
    /// Tokens that it is expected to be billed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_tokens: Option<i64>,
    /// Tokens that are billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_tokens: Option<i64>,
    /// What it is expected to cost; absent where the model has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_cost: Option<f64>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    /// The currency of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    currency: Option<String>,
    /// Training loss at the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_loss: Option<f64>,
    /// Loss on what was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f64>,
    /// Late duplicates of the job that were cancelled.
    duplicates: i32,
    /// Since when the provider holds the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_since: Option<DateTime<Utc>>,
    /// When it was written down, before the provider was called.
    created_at: DateTime<Utc>,
    /// When its job was seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
}

impl From<Training> for TrainingView {
    fn from(training: Training) -> Self {
        Self {
            id: training.id,
            run_id: training.run_id,
            trial: training.trial,
            provider: training.provider,
            base_model: training.base_model,
            hyperparameters: training.hyperparameters.0,
            dataset_digest: training.dataset_digest,
            validation_digest: training.validation_digest,
            file_id: training.provider_file_id,
            validation_file_id: training.validation_file_id,
            job_id: training.provider_job_id,
            status: training.provider_status,
            model_id: training.fine_tuned_model,
            expected_tokens: training.expected_tokens,
            trained_tokens: training.trained_tokens,
            expected_cost: training.expected_cost,
            cost: training.cost,
            currency: training.currency,
            final_loss: training.final_loss,
            validation_loss: training.validation_loss,
            duplicates: training.duplicates,
            paused_since: training.paused_since,
            created_at: training.created_at,
            finished_at: training.finished_at,
        }
    }
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

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// List what the provider reported about a training, in the order in which it was learned
#[utoipa::path(
    get, path = "/v1/trainings/{id}/events", tag = "trainings", params(("id" = Uuid, Path), EventQuery),
    responses(
        (status = 200, description = "One page of reports.", body = Page<StoredEvent>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_training_events(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<EventQuery>,
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
