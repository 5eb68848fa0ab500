//! Where a pipeline's traffic is published, and how far each of these places is.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Path, Query};
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::page::{Cursor, Page, PageQuery};
use super::problem::Problem;
use super::reply::Reply;
use super::responses::NotFound;
use crate::publication::{self, HistoryEntry, PublicationState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_publications))
        .routes(routes!(publish_again))
        .routes(routes!(list_publication_history))
}

/// How a place stands to the traffic in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PublicationStatus {
    /// The revision in force stands there and was read back, or was accepted.
    Published,
    /// It is about to.
    Pending,
    /// The last attempt failed, and it is tried again.
    Failing,
    /// Somebody changed what was published.
    Drifted,
}

/// How far a place is, in short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublicationSummary {
    /// What the configuration calls it.
    target: String,
    /// How it stands to the revision in force.
    status: PublicationStatus,
    /// The revision that was published there last.
    #[serde(skip_serializing_if = "Option::is_none")]
    published_revision: Option<i64>,
}

/// A place where a pipeline's traffic is published.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Publication)]
struct PublicationView {
    /// What the configuration calls it.
    #[schema(example = "shop")]
    target: String,
    /// `config_map`, `file` or `http`.
    kind: String,
    /// The place in words.
    #[schema(example = "the ConfigMap shop/models")]
    place: String,
    /// How it stands to the revision in force.
    status: PublicationStatus,
    /// The revision in force.
    current_revision: i64,
    /// The revision that was published there last: written and read back as written, or accepted.
    published_revision: Option<i64>,
    /// When.
    published_at: Option<DateTime<Utc>>,
    /// SHA-256 of what was published.
    digest: Option<String>,
    /// When it was last looked at.
    checked_at: Option<DateTime<Utc>>,
    /// Attempts that failed since the last that did not.
    failures: i32,
    /// Why the last attempt failed, and what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_at: Option<DateTime<Utc>>,
    /// How often somebody changed what was published.
    drifts: i64,
    /// What somebody changed and is not as published now.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<String>,
    /// When that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    drifted_at: Option<DateTime<Utc>>,
}

fn status(state: &PublicationState) -> PublicationStatus {
    if state.last_error.is_some() {
        PublicationStatus::Failing
    } else if state.drift.is_some() {
        PublicationStatus::Drifted
    } else if state.published_revision == Some(state.current_revision) && state.answered == state.requests {
        PublicationStatus::Published
    } else {
        PublicationStatus::Pending
    }
}

impl From<PublicationState> for PublicationView {
    fn from(state: PublicationState) -> Self {
        Self {
            status: status(&state),
            target: state.target,
            kind: state.kind,
            place: state.place,
            current_revision: state.current_revision,
            published_revision: state.published_revision,
            published_at: state.published_at,
            digest: state.digest,
            checked_at: state.checked_at,
            failures: state.failures,
            error: state.last_error,
            failed_at: state.failed_at,
            drifts: state.drifts,
            drift: state.drift,
            drifted_at: state.drifted_at,
        }
    }
}

/// How far all places of a pipeline are.
pub(super) async fn summaries(
    conn: &mut PgConnection,
    pipeline: &str,
) -> Result<Vec<PublicationSummary>, Problem> {
    let states = publication::states(conn, pipeline).await?;
    let summary = |state: PublicationState| PublicationSummary {
        status: status(&state),
        target: state.target,
        published_revision: state.published_revision,
    };
    Ok(states.into_iter().map(summary).collect())
}

/// List the places where a pipeline's traffic is published, by name
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/publications", tag = "traffic",
    params(("pipeline" = String, Path), PageQuery<String>),
    responses(
        (status = 200, description = "One page of places.", body = Page<PublicationView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_publications(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery<String>>,
) -> Result<Json<Page<PublicationView>>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let after = query.cursor.map(|Cursor(target)| target).unwrap_or_default();
    let states = publication::states(&state.db, &name).await?;
    let rows = usize::try_from(query.limit.rows()).unwrap_or_default();
    let views = states.into_iter().filter(|state| state.target > after).take(rows);
    let views = views.map(PublicationView::from).collect();
    Ok(Json(Page::new(views, query.limit, |view| view.target.clone())?))
}

/// Publish at a place again, now
///
/// A place that can be read is looked at and written where it is not as it should be; an application is called again. What
/// other field managers own is not taken over unless the configuration corrects drift.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/publications/{target}/publish", tag = "traffic",
    params(("pipeline" = String, Path), ("target" = String, Path), RequestKey),
    responses(
        (status = 202, description = "It is being done; the place as it was.", body = PublicationView),
        (status = 404, response = NotFound),
    ),
)]
async fn publish_again(
    State(state): State<ApiState>,
    principal: Principal,
    Path((name, target)): Path<(String, String)>,
    request: Idempotent<()>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let asked = publication::request(&mut tx, &name, &target, &principal.by()).await?;
    let after = publication::state(&mut *tx, &name, &target).await?.filter(|_| asked);
    let after = after.ok_or_else(|| Problem::not_found("publication target", &target))?;
    let location = format!("/v1/pipelines/{name}/publications");
    tx.commit(Reply::accepted(location, PublicationView::from(after))).await
}

/// A revision that was published at a place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicationEntry)]
struct HistoryView {
    /// Grows with time.
    id: i64,
    /// The revision.
    revision: i64,
    /// The place in words.
    place: String,
    /// SHA-256 of what was published.
    digest: String,
    /// When it had been read back, or was accepted.
    published_at: DateTime<Utc>,
}

impl From<HistoryEntry> for HistoryView {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { id, revision, place, digest, published_at } = entry;
        Self { id, revision, place, digest, published_at }
    }
}

/// List what was published at a place, newest first
///
/// Revisions that came and went before they could be published are not among them.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/publications/{target}/history", tag = "traffic",
    params(("pipeline" = String, Path), ("target" = String, Path), PageQuery<i64>),
    responses(
        (status = 200, description = "One page of revisions.", body = Page<HistoryView>),
        (status = 404, response = NotFound),
    ),
)]
async fn list_publication_history(
    State(state): State<ApiState>,
    Path((name, target)): Path<(String, String)>,
    Query(query): Query<PageQuery<i64>>,
) -> Result<Json<Page<HistoryView>>, Problem> {
    super::pipelines::find(&state, &name).await?;
    let below = query.cursor.map(|Cursor(id)| id);
    let entries = publication::history(&state.db, &name, &target, below, query.limit.rows()).await?;
    // A place that was removed from the configuration keeps its history.
    if entries.is_empty() && publication::state(&state.db, &name, &target).await?.is_none() {
        return Err(Problem::not_found("publication target", &target));
    }
    let views = entries.into_iter().map(HistoryView::from).collect();
    Ok(Json(Page::new(views, query.limit, |view| view.id)?))
}
