//! Who serves how much: the split in force, its history, and the way back.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::domain_errors::unknown_version;
use super::etag::IfMatch;
use super::extract::{Json, Path, Query, time};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Cursor, Limit, Page};
use super::problem::{FieldError, Problem};
use super::publications::{self, PublicationSummary};
use super::reply::Reply;
use super::responses::{Conflict, NotFound, PreconditionFailed, PreconditionRequired};
use crate::models::Version;
use crate::runs;
use crate::traffic::{self, Revision, RevisionKind, Share, TrafficError};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_traffic, put_traffic))
        .routes(routes!(list_traffic_revisions))
        .routes(routes!(roll_back))
}

/// A numbered state of a pipeline's traffic.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrafficRevision)]
pub(super) struct TrafficView {
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: String,
    /// Counts from 1 within the pipeline; the resource's `ETag`.
    pub(super) revision: i64,
    /// The live version.
    #[schema(example = "1.4.0")]
    live: Option<String>,
    /// Who serves how much, in the order in which weights are accumulated. They sum to 10,000.
    weights: Vec<WeightView>,
    /// Whether everything goes to the live version, pinned units too.
    kill_switch: bool,
    /// Under the kill switch, the split that comes into force when it is switched off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<WeightView>,
    /// Hashed with a unit to assign it.
    salt: String,
    /// The experiment that this traffic belongs to, through its watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: Option<Uuid>,
    /// The decision that it carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<Uuid>,
    /// Whether somebody overrode a safety check that had failed.
    forced: bool,
    /// How far it is published at each target; of the revision in force only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publications: Vec<PublicationSummary>,
    /// Why it was written.
    kind: RevisionKind,
    /// The same in one sentence.
    reason: String,
    /// Who wrote it.
    #[schema(example = "worker")]
    actor: String,
    /// When it came into force.
    created_at: DateTime<Utc>,
}

/// A version's part of the traffic.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrafficWeight)]
struct WeightView {
    /// The version.
    #[schema(example = "1.4.0")]
    version: String,
    /// What applications call at the provider.
    model_id: String,
    /// Basis points.
    #[schema(example = 1000)]
    weight: i32,
}

impl From<Share> for WeightView {
    fn from(share: Share) -> Self {
        Self { version: share.version.to_string(), model_id: share.provider_model_id, weight: share.weight }
    }
}

impl From<Revision> for TrafficView {
    fn from(revision: Revision) -> Self {
        Self {
            live: revision.live().map(|share| share.version.to_string()),
            weights: revision.shares.into_iter().map(WeightView::from).collect(),
            kill_switch: revision.kill_switch,
            withheld: revision.withheld.into_iter().map(WeightView::from).collect(),
            pipeline: revision.pipeline,
            revision: revision.revision,
            salt: revision.salt,
            experiment_id: revision.experiment_id,
            decision_id: revision.decision_id,
            forced: revision.forced,
            publications: Vec::new(),
            kind: revision.kind,
            reason: revision.reason,
            actor: revision.actor,
            created_at: revision.created_at,
        }
    }
}

/// The revision in force.
pub(super) async fn revision_view(conn: &mut PgConnection, pipeline: &str) -> Result<TrafficView, Problem> {
    let revision = traffic::current(&mut *conn, pipeline).await?;
    let mut view = TrafficView::from(revision.ok_or_else(|| Problem::not_found("pipeline", pipeline))?);
    view.publications = publications::summaries(conn, pipeline).await?;
    Ok(view)
}

/// Show the traffic split in force
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/traffic", tag = "traffic", params(("pipeline" = String, Path)),
    responses(
        (status = 200, description = "The revision in force.", body = TrafficView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_traffic(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Reply, Problem> {
    let mut conn = state.db.acquire().await?;
    let view = revision_view(&mut conn, &name).await?;
    let revision = view.revision;
    Ok(Reply::ok(view).version(revision))
}

/// A new split.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Split {
    /// Basis points by version; they sum to exactly 10,000 and include the live version.
    #[schema(value_type = BTreeMap<String, i32>, example = json!({"1.4.0": 9000, "1.3.0": 1000}))]
    #[serde(deserialize_with = "without_repeats")]
    weights: BTreeMap<String, i32>,
    /// For the revision and the audit trail.
    #[schema(min_length = 1, max_length = 1000, example = "slower start after the incident")]
    reason: String,
}

/// A map as JSON, in which of two equal names the second would otherwise count.
fn without_repeats<'de, D: Deserializer<'de>>(map: D) -> Result<BTreeMap<String, i32>, D::Error> {
    struct Weights;
    impl<'de> Visitor<'de> for Weights {
        type Value = BTreeMap<String, i32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("basis points by version")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut weights = BTreeMap::new();
            while let Some((version, weight)) = entries.next_entry::<String, i32>()? {
                if weights.contains_key(&version) {
                    return Err(A::Error::custom(format_args!("duplicate field `{version}`")));
                }
                weights.insert(version, weight);
            }
            Ok(weights)
        }
    }
    map.deserialize_map(Weights)
}

impl Split {
    fn versions(&self) -> Result<Vec<(Version, i32)>, Problem> {
        let mut faults = Vec::new();
        let mut versions = Vec::new();
        for (name, weight) in &self.weights {
            match name.parse() {
                Ok(version) => versions.push((version, *weight)),
                Err(error) => faults.push(FieldError::body(format!("/weights/{name}"), error)),
            }
        }
        if faults.is_empty() { Ok(versions) } else { Err(Problem::invalid(faults)) }
    }
}

/// Set the traffic split
///
/// `If-Match` with the `ETag` of the split that was read is required. The live version stays live; promote another
/// version to replace it. Under the kill switch this is the split that is restored when it is switched off.
#[utoipa::path(
    put, path = "/v1/pipelines/{pipeline}/traffic", tag = "traffic", request_body = Split,
    params(("pipeline" = String, Path), IfMatch),
    responses(
        (status = 200, description = "The new revision.", body = TrafficView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
        (status = 428, response = PreconditionRequired),
    ),
)]
async fn put_traffic(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(name): Path<String>,
    Json(split): Json<Split>,
) -> Result<Reply, Problem> {
    if_match.require()?;
    let versions = split.versions()?;
    let reason = super::required_reason(split.reason)?;
    let mut tx = state.db.begin().await?;
    traffic::lock(&mut tx, &name).await?;
    if_match.check(revision_view(&mut tx, &name).await?.revision)?;
    match traffic::set_split(&mut tx, &name, &versions, &reason, &principal.by()).await {
        Err(TrafficError::UnknownVersion(version)) => {
            return Err(unknown_version(version, format!("/weights/{version}")));
        }
        set => set?,
    };
    let view = revision_view(&mut tx, &name).await?;
    tx.commit().await?;
    let revision = view.revision;
    Ok(Reply::ok(view).version(revision))
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Only the revision that was in force at this time.
    #[serde(default, deserialize_with = "time")]
    at: Option<DateTime<Utc>>,
    /// The most items to return.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// List traffic revisions, newest first, or what was live at a time
///
/// A revision is in force from its `created_at` on, that moment included, until that of the next one. With `at` before the
/// first revision the answer is a 404.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/traffic/history", tag = "traffic",
    params(("pipeline" = String, Path), HistoryQuery),
    responses(
        (status = 200, description = "One page of revisions.", body = Page<TrafficView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_traffic_revisions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Page<TrafficView>>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let mut conn = state.db.acquire().await?;
    let below = query.cursor.map(|Cursor(revision)| revision);
    let revisions = if let Some(time) = query.at {
        let found = traffic::at(&mut conn, &name, time).await?;
        vec![found.ok_or_else(|| nothing_yet(&name, time))?]
    } else {
        traffic::history(&mut conn, &name, below, query.limit.rows()).await?
    };
    let views = revisions.into_iter().map(TrafficView::from).collect();
    Ok(Json(Page::new(views, query.limit, |view| view.revision)?))
}

fn nothing_yet(pipeline: &str, time: DateTime<Utc>) -> Problem {
    Problem::not_found("revision", time).detail(format_args!(
        "Nothing was live in `{pipeline}` at {}: its first traffic revision is younger.",
        time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    ))
}

/// Where to go back to, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// For the traffic revision and the audit trail.
    #[schema(min_length = 1, max_length = 1000, example = "complaints about tone")]
    reason: String,
    /// A version that was live before; the newest one that was not rolled back where absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1.3.0")]
    version: Option<Version>,
}

/// Put an earlier live version back
///
/// All traffic goes to it at once. What was live becomes `rolled_back` and never comes back by itself. A run that is
/// proving its model gives way. With `If-Match`, the `ETag` of the traffic that was looked at, a second rollback of the
/// same trouble by somebody else changes nothing.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/rollback", tag = "traffic", request_body = Rollback,
    params(("pipeline" = String, Path), RequestKey, IfMatch),
    responses(
        (status = 200, description = "The traffic as it is now.", body = TrafficView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn roll_back(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path(name): Path<String>,
    request: Idempotent<Rollback>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let reason = super::required_reason(request.body.reason)?;
    if !traffic::lock(&mut tx, &name).await? {
        return Err(Problem::not_found("pipeline", &name));
    }
    if_match.check(revision_view(&mut tx, &name).await?.revision)?;
    let by = principal.by();
    runs::yield_to_operator(&mut tx, &name, true, &reason, &by).await?;
    traffic::rollback(&mut tx, &name, request.body.version, &reason, &by).await?;
    let view = revision_view(&mut tx, &name).await?;
    let revision = view.revision;
    let reply = tx.commit(Reply::ok(view).version(revision)).await?;
    state.metrics.rolled_back(&name, "operator");
    tracing::warn!(pipeline = name, reason, "rolled back by an operator");
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_TYPE;

    use super::super::extract::parse_body;
    use super::*;

    #[test]
    fn a_version_with_two_weights_is_refused_by_its_name() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        let read = |weights: &str| {
            parse_body::<Split>(
                &headers,
                format!(r#"{{"weights": {weights}, "reason": "a try"}}"#).as_bytes(),
            )
        };
        let split = read(r#"{"1.0.0": 1000, "0.0.0": 9000}"#).unwrap();
        assert_eq!(split.weights, BTreeMap::from([("0.0.0".into(), 9000), ("1.0.0".into(), 1000)]));
        let refused = read(r#"{"0.0.0": 9000, "1.0.0": 4000, "1.0.0": 1000}"#).unwrap_err();
        assert_eq!(refused.details().errors[0].field, "/weights/1.0.0");
    }
}
