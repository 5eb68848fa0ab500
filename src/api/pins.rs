//! The allow-list of a pipeline: units that are pinned to a version, whatever the split says.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::etag::IfMatch;
use super::extract::{Json, Path, Query};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Cursor, Limit, Page};
use super::problem::{FieldError, Place, Problem};
use super::reply::Reply;
use super::responses::{Conflict, NotFound, PreconditionFailed};
use crate::models::{Version, VersionStatus};
use crate::traffic::{self, NewPin, Pin};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_pins)).routes(routes!(get_pin, put_pin, delete_pin))
}

/// A unit that is tied to a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pin)]
struct PinView {
    /// The unit.
    #[schema(example = "persona-17")]
    unit: String,
    /// The version it is pinned to.
    #[schema(example = "1.4.0", value_type = String)]
    version: Version,
    /// The version's present status.
    version_status: VersionStatus,
    /// Whether the pin has an effect: when the version cannot serve any more, the split decides.
    in_effect: bool,
    /// Why it was pinned.
    reason: String,
    /// Who pinned it.
    #[schema(example = "key:me")]
    actor: String,
    /// Since when.
    pinned_at: DateTime<Utc>,
}

impl From<Pin> for PinView {
    fn from(pin: Pin) -> Self {
        Self {
            unit: pin.unit,
            version: pin.version,
            version_status: pin.status,
            in_effect: pin.status.can_serve(),
            reason: pin.reason,
            actor: pin.actor,
            pinned_at: pin.pinned_at,
        }
    }
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PinsQuery {
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<String>>,
}

/// List the pins in force, by unit
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/pins", tag = "traffic",
    params(("pipeline" = String, Path), PinsQuery),
    responses(
        (status = 200, description = "One page of pins, in the order of the units' bytes.", body = Page<PinView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_pins(
    State(state): State<ApiState>,
    Path(pipeline): Path<String>,
    Query(query): Query<PinsQuery>,
) -> Result<Json<Page<PinView>>, Problem> {
    super::pipelines::find(&state, &pipeline).await?;
    let mut conn = state.db.acquire().await?;
    let after = query.cursor.as_ref().map(|Cursor(unit)| unit.as_str());
    let pins = traffic::pins(&mut conn, &pipeline, after, query.limit.rows()).await?;
    let pins = pins.into_iter().map(PinView::from).collect();
    Ok(Json(Page::new(pins, query.limit, |pin| pin.unit.clone())?))
}

/// Show the pin of a unit
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/pins/{unit}", tag = "traffic",
    params(("pipeline" = String, Path), ("unit" = String, Path)),
    responses(
        (status = 200, description = "The pin, with its `ETag`.", body = PinView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_pin(
    State(state): State<ApiState>,
    Path((pipeline, unit)): Path<(String, String)>,
) -> Result<Reply, Problem> {
    check(&unit)?;
    super::pipelines::find(&state, &pipeline).await?;
    let mut conn = state.db.acquire().await?;
    let pin = traffic::pin_of(&mut conn, &pipeline, &unit).await?;
    Ok(reply(pin.ok_or_else(|| Problem::not_found("pin", &unit))?))
}

/// Where to pin a unit, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PinRequest {
    /// A version that can serve: anything but a rejected, rolled back or unavailable one.
    #[schema(value_type = String, example = "1.4.0")]
    version: Version,
    /// For the audit trail.
    #[schema(min_length = 1, max_length = 1000, example = "our own account tries the candidate")]
    reason: String,
}

/// Pin a unit to a version
///
/// The unit is served by this version, whatever the split says, except under the kill switch and while the version
/// cannot serve. Its outcomes are not analysed. A pin that the unit has already is replaced. A pipeline has up to 10,000
/// pins. With `If-Match`, only the pin that was looked at is replaced.
#[utoipa::path(
    put, path = "/v1/pipelines/{pipeline}/pins/{unit}", tag = "traffic", request_body = PinRequest,
    params(("pipeline" = String, Path), ("unit" = String, Path, min_length = 1, max_length = 200), RequestKey, IfMatch),
    responses(
        (status = 200, description = "The unit is pinned.", body = PinView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn put_pin(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path((pipeline, unit)): Path<(String, String)>,
    request: Idempotent<PinRequest>,
) -> Result<Reply, Problem> {
    check(&unit)?;
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let reason = super::required_reason(request.body.reason)?;
    if !traffic::lock(&mut tx, &pipeline).await? {
        return Err(Problem::not_found("pipeline", &pipeline));
    }
    if_match.check(traffic::pin_of(&mut tx, &pipeline, &unit).await?.map(|pin| pin.id))?;
    let new = NewPin { unit: &unit, version: request.body.version, reason: &reason };
    let pin = traffic::pin(&mut tx, &pipeline, new, &principal.by()).await?;
    tx.commit(reply(pin)).await
}

/// Why a pin goes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UnpinQuery {
    /// For the audit trail.
    #[param(min_length = 1, max_length = 1000)]
    reason: Option<String>,
}

/// Release a unit from its pin
///
/// The split decides again. Outcomes of the time in which it was pinned are still not analysed.
#[utoipa::path(
    delete, path = "/v1/pipelines/{pipeline}/pins/{unit}", tag = "traffic",
    params(("pipeline" = String, Path), ("unit" = String, Path), UnpinQuery, RequestKey, IfMatch),
    responses(
        (status = 204, description = "The unit is not pinned any more."),
        (status = 404, response = NotFound),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn delete_pin(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path((pipeline, unit)): Path<(String, String)>,
    Query(query): Query<UnpinQuery>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    check(&unit)?;
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let reason = super::valid_reason(query.reason)?;
    if !traffic::lock(&mut tx, &pipeline).await? {
        return Err(Problem::not_found("pipeline", &pipeline));
    }
    if_match.check(traffic::pin_of(&mut tx, &pipeline, &unit).await?.map(|pin| pin.id))?;
    if !traffic::unpin(&mut tx, &pipeline, &unit, reason.as_deref(), &principal.by()).await? {
        return Err(Problem::not_found("pin", &unit));
    }
    tx.commit(Reply::no_content()).await
}

fn reply(pin: Pin) -> Reply {
    let id = pin.id;
    Reply::ok(PinView::from(pin)).version(id)
}

fn check(unit: &str) -> Result<(), Problem> {
    let checked = super::assignment::check(unit);
    checked.map_err(|fault| Problem::invalid([FieldError::new(Place::Path, "unit", fault)]))
}
