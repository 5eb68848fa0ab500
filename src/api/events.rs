//! `GET /v1/runs/{id}/events`: a run's history, as a list or as server-sent events while it happens.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::page::{Cursor, Limit, Page};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::runs::{self, RunEvent, Step};

/// How often a stream looks for new events.
const LOOK: Duration = Duration::from_millis(500);
/// Events that a stream reads at once.
const BATCH: i64 = 200;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_run_events))
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Only events after the one with this id.
    after: Option<i64>,
    /// The most items to return; a stream returns all.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// Where to go on: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor<i64>>,
}

/// One event of a run's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunEvent)]
struct EventView {
    /// Grows with time.
    id: i64,
    /// When.
    at: DateTime<Utc>,
    /// In which step.
    step: Step,
    /// `entered`, `progress`, `waiting`, `retry`, `requested` or `finished`.
    #[schema(example = "progress")]
    kind: String,
    /// What happened, in one sentence.
    message: String,
    /// The same in figures.
    data: Value,
}

impl From<RunEvent> for EventView {
    fn from(event: RunEvent) -> Self {
        Self {
            id: event.id,
            at: event.at,
            step: event.step,
            kind: event.kind,
            message: event.message,
            data: event.data,
        }
    }
}

/// List a run's events, oldest first, or stream them
///
/// With `Accept: text/event-stream` the events come as they happen, each with its id, until the run has finished;
/// `Last-Event-ID` continues a stream that was cut.
#[utoipa::path(
    get, path = "/v1/runs/{id}/events", tag = "runs",
    params(
        ("id" = Uuid, Path), EventQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "The last event that a stream delivered."),
    ),
    responses(
        (status = 200, description = "The events.", content(
            (Page<EventView> = "application/json"), (String = "text/event-stream"),
        )),
        (status = 404, response = NotFound),
    ),
)]
async fn list_run_events(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if runs::by_id(&state.db, id).await?.is_none() {
        return Err(Problem::not_found("run", id));
    }
    let after = query.cursor.map(|Cursor(id)| id).or(query.after).unwrap_or_default();
    if !wants_stream(&headers) {
        let events = runs::events_after(&state.db, id, after, query.limit.rows()).await?;
        let events: Vec<EventView> = events.into_iter().map(EventView::from).collect();
        return Ok(Json(Page::new(events, query.limit, |event| event.id)?).into_response());
    }
    let after = last_event_id(&headers)?.unwrap_or(after);
    Ok(Sse::new(follow(state.db, state.stop, id, after)).keep_alive(KeepAlive::default()).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|id| id.trim().parse().ok());
    id.map(Some).ok_or_else(|| {
        Problem::invalid([FieldError::new(Place::Header, "Last-Event-ID", "must be the id of an event")])
    })
}

/// The events after `after` as they happen, until the run has finished and all were sent, or the service stops.
fn follow(
    db: PgPool,
    stop: CancellationToken,
    run: Uuid,
    after: i64,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let ended = stop.cancelled_owned();
    stream::unfold(Some(after), move |position| {
        let db = db.clone();
        async move {
            let after = position?;
            loop {
                match look(&db, run, after).await {
                    Ok((events, finished)) if events.is_empty() && finished => return None,
                    Ok((events, _)) if events.is_empty() => tokio::time::sleep(LOOK).await,
                    Ok((events, _)) => {
                        let last = events.last().map_or(after, |event| event.id);
                        return Some((stream::iter(events.into_iter().map(render).map(Ok)), Some(last)));
                    }
                    // The client reconnects with the last id it saw.
                    Err(error) => {
                        tracing::warn!(%error, %run, "a stream of events was cut");
                        return None;
                    }
                }
            }
        }
    })
    .flatten()
    .take_until(ended)
}

/// Whether the run has finished is read first: then no event can come after those read next.
async fn look(db: &PgPool, run: Uuid, after: i64) -> sqlx::Result<(Vec<RunEvent>, bool)> {
    let finished = runs::by_id(db, run).await?.is_none_or(|run| run.status.finished());
    Ok((runs::events_after(db, run, after, BATCH).await?, finished))
}

fn render(event: RunEvent) -> Event {
    let message = Event::default().id(event.id.to_string()).event(event.kind.clone());
    // Neither numbers nor strings of an event can fail to be JSON.
    message.json_data(EventView::from(event)).unwrap_or_default()
}
