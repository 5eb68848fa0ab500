//! What trainings and evaluations have cost.

use axum::extract::State;
use chrono::NaiveDate;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Query};
use super::page::{Cursor, Limit, Page};
use super::problem::{FieldError, Place, Problem};
use crate::preflight::{self, MonthlyCost, MonthlyCostKey};

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
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<MonthlyCostKey>>,
}

/// Sum up what trainings and evaluations cost, by month and pipeline, the newest month first
#[utoipa::path(
    get, path = "/v1/costs", tag = "trainings", params(CostQuery),
    responses((status = 200, description = "One page of totals.", body = Page<MonthlyCost>)),
)]
async fn list_costs(
    State(state): State<ApiState>,
    Query(query): Query<CostQuery>,
) -> Result<Json<Page<MonthlyCost>>, Problem> {
    let month = match &query.month {
        Some(month) => Some(NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").map_err(|_| {
            Problem::invalid([FieldError::new(Place::Query, "month", "must be a month such as 2026-11")])
        })?),
        None => None,
    };
    let after = query.cursor.map(|Cursor(key)| key);
    let pipeline = query.pipeline.as_deref();
    let rows =
        preflight::monthly_costs(&state.db, pipeline, month, after.as_ref(), query.limit.rows()).await?;
    Ok(Json(Page::new(rows, query.limit, MonthlyCost::key)?))
}
