//! `/v1/pipelines/{pipeline}/assignment`: which version serves a unit, or each of many. Answered from memory.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::extract::{Json, Path, Query};
use super::memory::{Memory, Readable, Reading};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::experiments::statistics::Arm;
use crate::models::Version;
use crate::traffic::snapshot::{AssignedBy, PipelineTraffic, ServingVersion};

/// The path, as routes are named.
pub(super) const PATH: &str = "/v1/pipelines/{pipeline}/assignment";

/// The most units in one call.
const MOST_UNITS: usize = 1_000;

/// Present, and `true`, on an answer that may be out of date.
const STALE: HeaderName = HeaderName::from_static("tuneloop-stale");

pub(super) fn routes() -> OpenApiRouter<Memory> {
    OpenApiRouter::default().routes(routes!(assign_unit, assign_units))
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

/// What decided which version serves a unit.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AssignmentReason {
    /// The traffic split.
    Split,
    /// The unit is pinned to the version; its outcomes are not analysed.
    Pin,
    /// The kill switch sends everything to the live version; outcomes are not analysed.
    KillSwitch,
}

/// The version that serves a unit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AssignedUnit)]
struct Assigned<'a> {
    /// The unit.
    #[schema(example = "persona-17")]
    unit: &'a str,
    /// The version.
    #[schema(example = "1.4.0", value_type = String)]
    version: Version,
    /// What to call at the provider.
    model_id: &'a str,
    /// The version's part in the experiment, if it has one and the unit takes part.
    arm: Option<Arm>,
    /// The experiment that the unit takes part in, through its watch.
    experiment_id: Option<Uuid>,
    /// Whether the unit is pinned to the version.
    pinned: bool,
    /// What decided it.
    reason: AssignmentReason,
}

/// The version that serves a unit of a pipeline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnitAssignment)]
struct Assignment<'a> {
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: &'a str,
    /// The traffic revision; send it with the outcome.
    revision: i64,
    /// Whether this may be out of date because the database is away; the header `Tuneloop-Stale` says so too.
    stale: bool,
    #[serde(flatten)]
    assigned: Assigned<'a>,
}

/// Who is to be served.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Units {
    /// Each with 1 to 200 bytes.
    #[schema(min_items = 1, max_items = 1000, example = json!(["persona-17", "persona-18"]))]
    units: Vec<String>,
}

/// The versions that serve the units of a call, all of them by one revision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnitAssignments)]
struct AssignedUnits<'a> {
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: &'a str,
    /// The traffic revision; send it with the outcomes.
    revision: i64,
    /// Whether this may be out of date because the database is away; the header `Tuneloop-Stale` says so too.
    stale: bool,
    /// One for each unit, in the order of the call.
    assignments: Vec<Assigned<'a>>,
}

/// Which version serves a unit
///
/// The same unit gets the same version for as long as the split does not change, and a larger share of a version moves
/// no unit away from it. Answered from memory, also while the database is away, and up to date within a second.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/assignment", tag = "traffic",
    params(("pipeline" = String, Path), AssignmentQuery),
    responses(
        (status = 200, description = "The version that serves it.", body = Assignment, headers(
            ("Tuneloop-Stale" = bool, description = "Present, and `true`, when this may be out of date."),
        )),
        (status = 404, response = NotFound),
    ),
)]
async fn assign_unit(
    Readable(memory): Readable,
    Path(pipeline): Path<String>,
    Query(query): Query<AssignmentQuery>,
) -> Result<Response, Problem> {
    check(&query.unit).map_err(|fault| Problem::invalid([FieldError::new(Place::Query, "unit", fault)]))?;
    let reading = memory.read_for(&pipeline).await?;
    let traffic = traffic(&reading, &pipeline)?;
    let assignment = Assignment {
        pipeline: &pipeline,
        revision: traffic.revision,
        stale: reading.stale,
        assigned: assign(traffic, &query.unit)?,
    };
    answer(&assignment, reading.stale)
}

/// Which version serves each of many units
///
/// Up to 1,000 units, in one answer by one traffic revision. A viewer's key suffices: nothing is changed.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/assignment", tag = "traffic", request_body = Units,
    params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "The versions that serve them.", body = AssignedUnits, headers(
            ("Tuneloop-Stale" = bool, description = "Present, and `true`, when this may be out of date."),
        )),
        (status = 404, response = NotFound),
    ),
)]
async fn assign_units(
    Readable(memory): Readable,
    Path(pipeline): Path<String>,
    Json(Units { units }): Json<Units>,
) -> Result<Response, Problem> {
    if units.is_empty() || units.len() > MOST_UNITS {
        let message = format_args!("must have 1 to {MOST_UNITS} units");
        return Err(Problem::invalid([FieldError::body("/units", message)]));
    }
    let faults = units
        .iter()
        .enumerate()
        .filter_map(|(index, unit)| Some(FieldError::body(format!("/units/{index}"), check(unit).err()?)));
    let faults: Vec<FieldError> = faults.collect();
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let reading = memory.read_for(&pipeline).await?;
    let traffic = traffic(&reading, &pipeline)?;
    let assignments = units.iter().map(|unit| assign(traffic, unit)).collect::<Result<_, _>>()?;
    let assigned =
        AssignedUnits { pipeline: &pipeline, revision: traffic.revision, stale: reading.stale, assignments };
    answer(&assigned, reading.stale)
}

/// What is wrong with a unit.
pub(super) fn check(unit: &str) -> Result<(), &'static str> {
    if unit.is_empty() || unit.len() > 200 || unit.contains('\0') {
        return Err("must have 1 to 200 bytes and no NUL");
    }
    Ok(())
}

/// The traffic of a pipeline. What is stale cannot tell whether there is such a pipeline by now.
fn traffic<'a>(reading: &'a Reading, pipeline: &str) -> Result<&'a PipelineTraffic, Problem> {
    reading.traffic().and_then(|traffic| traffic.pipeline(pipeline)).ok_or_else(|| {
        if reading.stale {
            Problem::try_later("database-unavailable", "The database cannot be reached")
                .detail("The pipeline is not among those known from before the database was lost; try again.")
        } else {
            Problem::not_found("pipeline", pipeline)
        }
    })
}

fn assign<'a>(traffic: &'a PipelineTraffic, unit: &'a str) -> Result<Assigned<'a>, Problem> {
    let (serving, by) = traffic.assign(unit).ok_or_else(|| Problem::internal(&NoShare(traffic.revision)))?;
    let reason = match by {
        AssignedBy::Split => AssignmentReason::Split,
        AssignedBy::Pin => AssignmentReason::Pin,
        AssignedBy::KillSwitch => AssignmentReason::KillSwitch,
    };
    // Whoever was not assigned by chance takes no part.
    let experiment = traffic.experiment.filter(|_| by == AssignedBy::Split);
    Ok(Assigned {
        unit,
        version: serving.version,
        model_id: &serving.provider_model_id,
        arm: experiment.and_then(|experiment| arm(serving, experiment.baseline, experiment.candidate)),
        experiment_id: experiment.map(|experiment| experiment.id),
        pinned: by == AssignedBy::Pin,
        reason,
    })
}

fn arm(serving: &ServingVersion, baseline: Uuid, candidate: Uuid) -> Option<Arm> {
    match serving.id {
        id if id == candidate => Some(Arm::Candidate),
        id if id == baseline => Some(Arm::Baseline),
        _ => None,
    }
}

fn answer(body: &impl Serialize, stale: bool) -> Result<Response, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let json = HeaderValue::from_static("application/json");
    let mut response = ([(CONTENT_TYPE, json)], body).into_response();
    if stale {
        response.headers_mut().insert(STALE, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The weights of a revision do not reach 10,000, which the database forbids.
#[derive(Debug, thiserror::Error)]
#[error("traffic revision {0} has no share for a bucket")]
struct NoShare(i64);
