//! `GET /v1/audit`: who did what to what, when and why. The first group of endpoints, and the pattern for
//! others: routes, types, queries and errors in one file.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Query, time};
use super::page::{Cursor, Limit, Page};
use super::problem::Problem;
use crate::audit::{self, Filter, Line};

/// The media type of one JSON object a line.
const NDJSON: &str = "application/x-ndjson";

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_audit_events))
        .routes(routes!(get_audit_head))
        .routes(routes!(export_audit_events))
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only what was done to subjects of this kind, such as `run` or `pipeline`.
    subject_kind: Option<String>,
    /// Only what was done to the subject with this identifier.
    subject_id: Option<String>,
    /// Only what concerns this pipeline.
    pipeline: Option<String>,
    /// Only what this actor did: `key:<name>`, `provider:<name>`, `worker`, `scheduler` or `system`.
    actor: Option<String>,
    /// Only this action, such as `run.cancel`.
    action: Option<String>,
    /// Only what was done at this time or later.
    #[serde(default, deserialize_with = "time")]
    since: Option<DateTime<Utc>>,
    /// Only what was done before this time.
    #[serde(default, deserialize_with = "time")]
    until: Option<DateTime<Utc>>,
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// One change, as it was recorded.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEvent {
    /// Grows with time.
    id: i64,
    /// When it was done.
    at: DateTime<Utc>,
    /// Who did it: `key:<name>`, `provider:<name>`, `worker`, `scheduler` or `system`.
    #[schema(example = "key:ci")]
    actor: String,
    /// What was done.
    #[schema(example = "run.cancel")]
    action: String,
    /// The kind of what it was done to.
    #[schema(example = "run")]
    subject_kind: String,
    /// The identifier of what it was done to.
    subject_id: String,
    /// The pipeline it concerns.
    pipeline: Option<String>,
    /// What changed, before the change.
    before: Option<Value>,
    /// What changed, after the change.
    after: Option<Value>,
    /// Why.
    reason: Option<String>,
    /// The request it was done by.
    request_id: Option<String>,
    /// The trace it was part of.
    trace_id: Option<String>,
}

/// List the audit trail, newest first
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "One page of events.", body = Page<AuditEvent>)),
)]
async fn list_audit_events(
    State(state): State<ApiState>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditEvent>>, Problem> {
    let events = sqlx::query_as!(
        AuditEvent,
        "SELECT id, at, actor, action, subject_kind, subject_id, pipeline, before, after, reason, request_id,
                trace_id
           FROM audit_events
          WHERE ($1::text IS NULL OR subject_kind = $1)
            AND ($2::text IS NULL OR subject_id = $2)
            AND ($3::text IS NULL OR pipeline = $3)
            AND ($4::text IS NULL OR actor = $4)
            AND ($5::text IS NULL OR action = $5)
            AND ($6::timestamptz IS NULL OR at >= $6)
            AND ($7::timestamptz IS NULL OR at < $7)
            AND ($8::bigint IS NULL OR id < $8)
          ORDER BY id DESC
          LIMIT $9",
        query.subject_kind,
        query.subject_id,
        query.pipeline,
        query.actor,
        query.action,
        query.since,
        query.until,
        query.cursor.map(|Cursor(id)| id),
        query.limit.rows(),
    )
    .fetch_all(&state.db)
    .await?;
    Ok(Json(Page::new(events, query.limit, |event| event.id)?))
}

/// The end of the chain over the trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditHead)]
struct HeadView {
    /// How many events are sealed.
    seq: i64,
    /// The hash of the newest of them: 64 hexadecimal digits, zeros where none is sealed.
    #[schema(min_length = 64, max_length = 64)]
    hash: String,
    /// How many events wait to be sealed, which takes some seconds.
    unsealed: i64,
}

/// Show the end of the chain
///
/// Keep it elsewhere: `tuneloop audit verify --expect SEQ:HASH` finds by it whether the end of the trail was cut off or all of it
/// written anew.
#[utoipa::path(
    get, path = "/v1/audit/head", tag = "audit",
    responses((status = 200, description = "The newest sealed event.", body = HeadView)),
)]
async fn get_audit_head(State(state): State<ApiState>) -> Result<Json<HeadView>, Problem> {
    let head = audit::head(&state.db).await?;
    let unsealed = audit::unsealed(&state.db).await?;
    Ok(Json(HeadView { seq: head.seq, hash: head.hash.to_string(), unsealed }))
}

/// What to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// Only what was done to subjects of this kind, such as `run` or `pipeline`.
    subject_kind: Option<String>,
    /// Only what was done to the subject with this identifier.
    subject_id: Option<String>,
    /// Only what concerns this pipeline.
    pipeline: Option<String>,
    /// Only what this actor did.
    actor: Option<String>,
    /// Only this action.
    action: Option<String>,
    /// Only what was done at this time or later.
    #[serde(default, deserialize_with = "time")]
    since: Option<DateTime<Utc>>,
    /// Only what was done before this time.
    #[serde(default, deserialize_with = "time")]
    until: Option<DateTime<Utc>>,
    /// Only from this place in the chain on: one more than the `seq` of the last line that you have.
    from_seq: Option<i64>,
}

/// Export the sealed trail, oldest first
///
/// One JSON object a line: `seq`, `previous` and `hash`, and the `event` that is hashed, in which `before` and `after` are texts of
/// JSON. Events that are not sealed yet come with a later export. An export that breaks off was not complete.
#[utoipa::path(
    get, path = "/v1/audit/export", tag = "audit", params(ExportQuery),
    responses((status = 200, description = "One event per line.", body = String, content_type = "application/x-ndjson")),
)]
async fn export_audit_events(State(state): State<ApiState>, Query(query): Query<ExportQuery>) -> Response {
    let filter = Filter {
        subject_kind: query.subject_kind,
        subject_id: query.subject_id,
        pipeline: query.pipeline,
        actor: query.actor,
        action: query.action,
        since: query.since,
        until: query.until,
        from_seq: query.from_seq,
    };
    let lines = audit::lines(state.db, filter).map_err(std::io::Error::other);
    let lines = lines.and_then(async |lines| text(&lines).map_err(std::io::Error::other));
    ([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

fn text(lines: &[Line]) -> serde_json::Result<Bytes> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text.into())
}
