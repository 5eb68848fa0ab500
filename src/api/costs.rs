//! What trainings have cost.

use axum::extract::State;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Query};
use super::problem::{FieldError, Place, Problem};
use crate::preflight::{self, MonthlyCost};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_costs))
}

/// What to sum up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CostQuery {
    /// Only this pipeline.
    pipeline: Option<String>,
    /// Only this month (UTC).
    #[param(example = "2026-11")]
    month: Option<String>,
}

/// Totals.
#[derive(Debug, Serialize, ToSchema)]
struct Costs {
    /// By month, pipeline and currency, the newest month first.
    #[schema(max_items = 100_000)]
    items: Vec<MonthlyCost>,
}

/// Sum up what trainings cost, by month and pipeline
#[utoipa::path(
    get, path = "/v1/costs", tag = "trainings", params(CostQuery),
    responses((status = 200, description = "The totals.", body = Costs)),
)]
async fn list_costs(
    State(state): State<ApiState>,
    Query(query): Query<CostQuery>,
) -> Result<Json<Costs>, Problem> {
    let month = match &query.month {
        Some(month) => Some(NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").map_err(|_| {
            Problem::invalid([FieldError::new(Place::Query, "month", "must be a month such as 2026-11")])
        })?),
        None => None,
    };
    let items = preflight::monthly_costs(&state.db, query.pipeline.as_deref(), month).await?;
    Ok(Json(Costs { items }))
}
