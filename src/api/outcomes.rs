//! `POST /v1/outcomes`: what was observed of served versions.

use axum::extract::{DefaultBodyLimit, State};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::problem::{FieldError, Problem};
use super::reply::Reply;
use crate::experiments::outcomes::{self, MAX_BATCH, Outcome, Recorded};

/// Room for a full batch.
const BODY_BYTES: usize = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(record_outcomes).layer(DefaultBodyLimit::max(BODY_BYTES)))
}

/// Record outcomes
///
/// Up to 10,000 at a time. Each is judged by itself: what is not valid is told with its index and reason, the others are
/// recorded. An id that was recorded before is counted as a duplicate and changes nothing.
#[utoipa::path(
    post, path = "/v1/outcomes", tag = "experiments", params(RequestKey), request_body = Vec<Outcome>,
    responses((status = 200, description = "What became of them.", body = Recorded)),
)]
async fn record_outcomes(
    State(state): State<ApiState>,
    principal: Principal,
    request: Idempotent<Vec<Outcome>>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    if request.body.len() > MAX_BATCH {
        let message = format!("has {} outcomes; send at most {MAX_BATCH} at a time", request.body.len());
        return Err(Problem::invalid([FieldError::body("", message)]));
    }
    let recorded = outcomes::record(&mut tx, request.body, state.clock.now()).await?;
    tx.commit(Reply::ok(recorded)).await
}
