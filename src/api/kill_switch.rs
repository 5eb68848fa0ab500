//! The kill switch of a pipeline: everything to the live version at once, and back.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::etag::IfMatch;
use super::extract::Path;
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::problem::Problem;
use super::reply::Reply;
use super::responses::{NotFound, PreconditionFailed};
use super::traffic::{TrafficView, revision_view};
use crate::{runs, traffic};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(put_kill_switch))
}

/// On or off, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KillSwitch {
    /// Whether everything goes to the live version.
    enabled: bool,
    /// For the traffic revision and the audit trail.
    #[schema(min_length = 1, max_length = 1000, example = "the candidate writes nonsense")]
    reason: String,
}

/// Send everything to the live version, or restore the split
///
/// While it is on, every unit gets the live version, pinned ones too, and nothing that is served is analysed. A test goes
/// on and sees no new outcomes; no test begins and no run promotes its model until it is off. What people and watches
/// change meanwhile changes what is restored: `withheld` in the answer. Where it is already as asked, nothing changes.
/// With `If-Match`, the `ETag` of the traffic that was looked at, it is switched only if that is still in force.
#[utoipa::path(
    put, path = "/v1/pipelines/{pipeline}/kill-switch", tag = "traffic", request_body = KillSwitch,
    params(("pipeline" = String, Path), RequestKey, IfMatch),
    responses(
        (status = 200, description = "The traffic as it is now.", body = TrafficView),
        (status = 404, response = NotFound),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn put_kill_switch(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(pipeline): Path<String>,
    request: Idempotent<KillSwitch>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let reason = super::required_reason(request.body.reason)?;
    if !traffic::lock(&mut tx, &pipeline).await? {
        return Err(Problem::not_found("pipeline", &pipeline));
    }
    if_match.check(revision_view(&mut tx, &pipeline).await?.revision)?;
    traffic::set_kill_switch(&mut tx, &pipeline, request.body.enabled, &reason, &principal.by()).await?;
    if !request.body.enabled {
        // A test or a promotion may be waiting for this.
        runs::wake_all(&mut tx, &pipeline).await?;
    }
    let view = revision_view(&mut tx, &pipeline).await?;
    let revision = view.revision;
    tx.commit(Reply::ok(view).version(revision)).await
}
