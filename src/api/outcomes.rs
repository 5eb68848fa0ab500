//! `POST /v1/outcomes`: what was observed of served versions.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use tower::ServiceBuilder;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::IntoParams;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Path, Query, data_fault, malformed_json, media_type, require_json};
use super::idempotency::{self, Begin, RawIdempotent, RequestKey};
use super::problem::{FieldError, Problem};
use super::reply::Reply;
use super::responses::NotFound;
use crate::experiments::outcomes::{
    self, JudgeState, MAX_BATCH, Outcome, PullState, Recorded, Recording, Repeats,
};

/// Room for a full batch, once it is unpacked.
const BODY_BYTES: usize = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    // What is packed otherwise reaches the handler, which says what is accepted.
    let unpack = RequestDecompressionLayer::new().gzip(true).pass_through_unaccepted(true);
    let layers = ServiceBuilder::new().layer(unpack).layer(DefaultBodyLimit::max(BODY_BYTES));
    OpenApiRouter::default()
        .routes(routes!(record_outcomes).layer(layers))
        .routes(routes!(get_pull))
        .routes(routes!(get_judge))
}

/// How to record.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecordQuery {
    /// What is done with outcomes whose ids were recorded before.
    #[serde(default)]
    #[param(value_type = Option<Repeats>, inline)]
    repeats: Repeats,
}

/// Record outcomes
///
/// Up to 10,000 at a time, as a JSON array or as NDJSON (`Content-Type: application/x-ndjson`), plain or with
/// `Content-Encoding: gzip`. Each is judged by itself: what is not valid is told with its index and reason, the others are
/// recorded. An id that was recorded before is never counted twice: with `repeats=keep` it is a duplicate and changes nothing,
/// with `repeats=replace` its measured values take the place of the former ones.
#[utoipa::path(
    post, path = "/v1/outcomes", tag = "experiments", params(RequestKey, RecordQuery), request_body = Vec<Outcome>,
    responses((status = 200, description = "What became of them.", body = Recorded)),
)]
async fn record_outcomes(
    State(state): State<ApiState>,
    principal: Principal,
    Query(query): Query<RecordQuery>,
    request: RawIdempotent,
) -> Result<Reply, Problem> {
    let batch = read_batch(&request.headers, &request.body)?;
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let how =
        Recording { now: state.clock.now(), retention: state.outcome_retention, repeats: query.repeats };
    let recorded = outcomes::record(&mut tx, batch, how).await?;
    tx.commit(Reply::ok(recorded)).await
}

/// The items of a body, each read by itself.
fn read_batch(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Result<Outcome, String>>, Problem> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-encoding",
            "The body is packed in an unknown way",
        )
        .detail("Send the body plain or with the header `Content-Encoding: gzip`."));
    }
    let items = match media_type(headers).as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => read_lines(body),
        _ => read_array(headers, body)?.into_iter().map(|item| read_outcome(item.get().as_bytes())).collect(),
    };
    if items.len() > MAX_BATCH {
        let message = format!("has {} outcomes; send at most {MAX_BATCH} at a time", items.len());
        return Err(Problem::invalid([FieldError::body("", message)]));
    }
    Ok(items)
}

fn read_array<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Vec<&'a RawValue>, Problem> {
    require_json(headers)?;
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => Problem::invalid([FieldError::body("", "must be an array of outcomes")]),
        _ => malformed_json(&error),
    })
}

fn read_lines(body: &[u8]) -> Vec<Result<Outcome, String>> {
    body.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(read_outcome)
        .collect()
}

fn read_outcome(item: &[u8]) -> Result<Outcome, String> {
    // An array would be read by position.
    if !item.trim_ascii_start().starts_with(b"{") {
        return Err("is not an outcome: it must be a JSON object with the fields of one".into());
    }
    serde_json::from_slice(item).map_err(|error| not_an_outcome(item, &error))
}

/// What is wrong with an item, with the field at fault. It is read a second time for that, because keeping the path costs every
/// good item time.
fn not_an_outcome(item: &[u8], error: &serde_json::Error) -> String {
    if error.classify() != Category::Data {
        return format!("is not an outcome: it cannot be read as JSON: {error}");
    }
    let read =
        serde_path_to_error::deserialize::<_, Outcome>(&mut serde_json::Deserializer::from_slice(item));
    let path = read.err().map(|error| error.path().to_string()).filter(|path| path != ".");
    let message = data_fault(error);
    match path {
        Some(path) => format!("is not an outcome: {path}: {message}"),
        None => format!("is not an outcome: {message}"),
    }
}

/// Show how far outcomes were read from the application's own database
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/outcomes/pull", tag = "experiments", params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "Where the pull stands.", body = PullState),
        (status = 404, response = NotFound),
    ),
)]
async fn get_pull(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<PullState>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let pull = outcomes::pull_state(&state.db, &name).await?;
    Ok(Json(pull.ok_or_else(|| Problem::not_found("pull of outcomes for the pipeline", &name))?))
}

/// Show how far the judge of live outcomes is
///
/// What it has scored, what waits, what failed, what it cost, and why it stands still where it does. All zero where the pipeline
/// has no judge.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/outcomes/judge", tag = "experiments", params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "Where the judge stands.", body = JudgeState),
        (status = 404, response = NotFound),
    ),
)]
async fn get_judge(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<JudgeState>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let mut conn = state.db.acquire().await?;
    Ok(Json(outcomes::judge_state(&mut conn, &name).await?))
}
