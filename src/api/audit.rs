//! `GET /v1/audit`: who did what to what, when and why. The first group of endpoints, and the pattern for
//! others: routes, types, queries and errors in one file.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Query};
use super::page::{Cursor, Limit, Page};
use super::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_audit_events))
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
    /// Only what this actor did: `key:<name>`, `worker`, `scheduler` or `system`.
    actor: Option<String>,
    /// Only this action, such as `run.cancel`.
    action: Option<String>,
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
    /// Who did it: `key:<name>`, `worker`, `scheduler` or `system`.
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
            AND ($6::bigint IS NULL OR id < $6)
          ORDER BY id DESC
          LIMIT $7",
        query.subject_kind,
        query.subject_id,
        query.pipeline,
        query.actor,
        query.action,
        query.cursor.map(|Cursor(id)| id),
        query.limit.rows(),
    )
    .fetch_all(&state.db)
    .await?;
    Ok(Json(Page::new(events, query.limit, |event| event.id)?))
}
