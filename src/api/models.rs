//! Model versions: what a pipeline has served or may serve.

mod checkpoint;
mod lineage;

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::page::{Cursor, Limit, Page};
use super::problem::Problem;
use super::responses::NotFound;
use crate::models::{self, Availability, ModelVersion, Version, VersionStatus, availability};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_model_versions, checkpoint::register_model_version))
        .routes(routes!(get_model_version))
}

/// A model version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelVersion)]
struct VersionView {
    /// Its name among all versions.
    #[schema(example = "hook@1.4.0")]
    name: String,
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: String,
    /// MAJOR.MINOR.PATCH.
    #[schema(example = "1.4.0")]
    version: String,
    /// Where it stands.
    status: VersionStatus,
    /// Who serves it.
    #[schema(example = "openai")]
    provider: String,
    /// What applications call at the provider.
    model_id: String,
    /// What it was trained from.
    base_model: String,
    /// The run that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<Uuid>,
    /// The training that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    training_id: Option<Uuid>,
    /// The checkpoint of that training that it is; absent for the model that the training ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_id: Option<String>,
    /// What it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_digest: Option<String>,
    /// The version that was live when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// Figures of the training and of the evaluation: `final_loss`, `validation_loss`, `trained_tokens`, `quality`, …
    metrics: Value,
    /// What the provider says of its model.
    availability: AvailabilityView,
    /// When it was registered.
    created_at: DateTime<Utc>,
    /// When its status last changed.
    updated_at: DateTime<Utc>,
}

/// What the provider says of a version's model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelAvailability)]
struct AvailabilityView {
    /// When the provider last said whether it serves it; asked are those versions that serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_at: Option<DateTime<Utc>>,
    /// The day on which the provider stops serving it, as far as it has told.
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown_date: Option<NaiveDate>,
    /// The days until then; negative afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    days_left: Option<i64>,
    /// The run that was started on the configured successor because of that date.
    #[serde(skip_serializing_if = "Option::is_none")]
    successor_run_id: Option<Uuid>,
    /// Since when the provider says that it does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_since: Option<DateTime<Utc>>,
    /// Since when that is taken to be so, because it was said twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_at: Option<DateTime<Utc>>,
}

impl AvailabilityView {
    fn new(known: Availability, today: NaiveDate) -> Self {
        Self {
            checked_at: known.checked_at,
            shutdown_date: known.shutdown_date,
            days_left: known.shutdown_date.map(|date| availability::days_left(date, today)),
            successor_run_id: known.successor_run_id,
            missing_since: known.missing_since,
            gone_at: known.gone_at,
        }
    }
}

impl VersionView {
    fn new(version: ModelVersion, today: NaiveDate) -> Self {
        Self {
            name: version.name(),
            version: version.version.to_string(),
            parent: version.parent.map(|parent| parent.to_string()),
            pipeline: version.pipeline,
            status: version.status,
            provider: version.provider,
            model_id: version.provider_model_id,
            base_model: version.base_model,
            run_id: version.run_id,
            training_id: version.training_id,
            checkpoint_id: version.checkpoint_id,
            availability: AvailabilityView::new(version.availability, today),
            dataset_digest: version.dataset_digest,
            metrics: version.metrics,
            created_at: version.created_at,
            updated_at: version.updated_at,
        }
    }
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// Only versions with this status.
    status: Option<VersionStatus>,
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<Version>>,
}

/// List the versions of a pipeline, newest first
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/models", tag = "models",
    params(("pipeline" = String, Path), VersionQuery),
    responses(
        (status = 200, description = "One page of versions.", body = Page<VersionView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_model_versions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Page<VersionView>>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let below = query.cursor.map(|Cursor(version)| version);
    let versions = models::list(&state.db, &name, query.status, below, query.limit.rows()).await?;
    let page = Page::new(versions, query.limit, |version| version.version)?;
    let today = state.clock.now().date_naive();
    let items = page.items.into_iter().map(|version| VersionView::new(version, today)).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Show a model version with its lineage
///
/// What it was made of, what its test said, what it cost, and when it served.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/models/{version}", tag = "models",
    params(("pipeline" = String, Path), ("version" = String, Path, example = "1.4.0")),
    responses(
        (status = 200, description = "The version.", body = lineage::VersionDetail),
        (status = 404, response = NotFound),
    ),
)]
async fn get_model_version(
    State(state): State<ApiState>,
    Path((pipeline, version)): Path<(String, Version)>,
) -> Result<Json<lineage::VersionDetail>, Problem> {
    let found = models::by_version(&state.db, &pipeline, version).await?;
    let found = found.ok_or_else(|| Problem::not_found("model version", format!("{pipeline}@{version}")))?;
    let mut conn = state.db.acquire().await?;
    Ok(Json(lineage::detail(&mut conn, found, state.clock.now().date_naive()).await?))
}
