//! `/v1/datasets`: what models were trained on.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::page::{Cursor, Page, PageQuery};
use super::problem::{Problem, ProblemDetails};
use super::responses::NotFound;
use crate::dataset::{self, DatasetError, Manifest, Recorded};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_dataset))
        .routes(routes!(list_examples))
        .routes(routes!(get_content))
}

/// An immutable snapshot of training examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Dataset)]
struct DatasetView {
    /// SHA-256 of its JSONL: its name.
    digest: String,
    /// The pipeline it was made for first. The same posts and settings make the same dataset again.
    #[schema(example = "hook")]
    pipeline: String,
    /// Its lines.
    examples: i64,
    /// Length of its JSONL.
    bytes: i64,
    /// What it was made of, when it was made first.
    manifest: Manifest,
    /// When it was made first.
    created_at: DateTime<Utc>,
}

/// One line of a dataset.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatasetExample)]
struct ExampleView {
    /// Its number in the file, from 1.
    line: u64,
    /// The conversation, in the order in which it is trained on; of a pair, what is asked.
    messages: Vec<MessageView>,
    /// The better answer of a pair.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    preferred_output: Vec<MessageView>,
    /// The worse answer of a pair.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    non_preferred_output: Vec<MessageView>,
}

/// One message of an example.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = DatasetMessage)]
struct MessageView {
    /// `system`, `user` or `assistant`.
    #[schema(example = "user")]
    role: String,
    /// Its text.
    content: String,
}

/// A line of either kind of dataset.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Example { messages: Vec<MessageView> },
    Pair { input: Input, preferred_output: Vec<MessageView>, non_preferred_output: Vec<MessageView> },
}

#[derive(Deserialize)]
struct Input {
    messages: Vec<MessageView>,
}

impl ExampleView {
    fn new(number: u64, line: Line) -> Self {
        let (messages, preferred_output, non_preferred_output) = match line {
            Line::Example { messages } => (messages, Vec::new(), Vec::new()),
            Line::Pair { input, preferred_output, non_preferred_output } => {
                (input.messages, preferred_output, non_preferred_output)
            }
        };
        Self { line: number, messages, preferred_output, non_preferred_output }
    }
}

/// Show a dataset's manifest
#[utoipa::path(
    get, path = "/v1/datasets/{digest}", tag = "datasets",
    params(("digest" = String, Path, description = "SHA-256 of the JSONL, in hexadecimal.")),
    responses(
        (status = 200, description = "The dataset.", body = DatasetView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_dataset(
    State(state): State<ApiState>,
    Path(digest): Path<String>,
) -> Result<Json<DatasetView>, Problem> {
    let Recorded { pipeline, examples, bytes, manifest, created_at } = find(&state, &digest).await?;
    Ok(Json(DatasetView { digest, pipeline, examples, bytes, manifest, created_at }))
}

async fn find(state: &ApiState, digest: &str) -> Result<Recorded, Problem> {
    dataset::by_digest(&state.db, digest).await?.ok_or_else(|| Problem::not_found("dataset", digest))
}

/// List a dataset's examples in the order of the file
#[utoipa::path(
    get, path = "/v1/datasets/{digest}/examples", tag = "datasets",
    params(("digest" = String, Path), PageQuery<(u64, u64)>),
    responses(
        (status = 200, description = "One page of examples.", body = Page<ExampleView>),
        (status = 404, response = NotFound),
        (status = 410, description = "Its bytes are lost or were changed.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
async fn list_examples(
    State(state): State<ApiState>,
    Path(digest): Path<String>,
    Query(query): Query<PageQuery<(u64, u64)>>,
) -> Result<Json<Page<ExampleView>>, Problem> {
    find(&state, &digest).await?;
    // Lines before the page, and where it begins in the file.
    let (before, offset) = query.cursor.map_or((0, 0), |Cursor(key)| key);
    let rows = usize::try_from(query.limit.rows()).map_err(|error| Problem::internal(&error))?;
    let lines = state.datasets.lines(&digest, offset, rows).await?;
    let ends: Vec<u64> = lines.iter().map(dataset::StoredLine::end).collect();
    let mut items = Vec::with_capacity(lines.len());
    let first = before.checked_add(1).ok_or_else(bad_cursor)?;
    for (number, line) in (first..).zip(lines) {
        // From its beginning every line is one, unless the file was changed; else a cursor was made up that points into
        // the midst of a line.
        let refused = || if offset == 0 { altered() } else { bad_cursor() };
        let line: Line = serde_json::from_slice(&line.bytes).map_err(|_| refused())?;
        items.push(ExampleView::new(number, line));
    }
    let end = |example: &ExampleView| {
        let index = usize::try_from(example.line - before - 1).unwrap_or_default();
        (example.line, ends.get(index).copied().unwrap_or_default())
    };
    Ok(Json(Page::new(items, query.limit, end)?))
}

fn altered() -> Problem {
    Problem::new(
        axum::http::StatusCode::GONE,
        "dataset-altered",
        "The dataset's bytes are no longer those that were written",
    )
    .detail("Something changed the file in the store; a new run makes it anew.")
}

fn bad_cursor() -> Problem {
    let place = super::problem::Place::Query;
    Problem::invalid([super::problem::FieldError::new(
        place,
        "cursor",
        "must be `next_cursor` of the previous page of this list",
    )])
}

/// Download a dataset as JSONL
///
/// The bytes are those whose SHA-256 is the dataset's name. An answer that is cut off before its `Content-Length` was
/// found to differ from it.
#[utoipa::path(
    get, path = "/v1/datasets/{digest}/content", tag = "datasets", params(("digest" = String, Path)),
    responses(
        (status = 200, description = "One example per line.", body = String, content_type = "application/jsonl"),
        (status = 404, response = NotFound),
        (status = 410, description = "Its bytes are lost.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
async fn get_content(State(state): State<ApiState>, Path(digest): Path<String>) -> Result<Response, Problem> {
    find(&state, &digest).await?;
    let (size, chunks) = state.datasets.stream(&digest).await?;
    let headers = [
        (CONTENT_TYPE, "application/jsonl".to_owned()),
        (CONTENT_LENGTH, size.to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{digest}.jsonl\"")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

impl From<DatasetError> for Problem {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Database(error) => error.into(),
            DatasetError::Source(error) => error.into(),
            DatasetError::Store(object_store::Error::NotFound { .. }) => Self::new(
                axum::http::StatusCode::GONE,
                "dataset-lost",
                "The dataset's bytes are no longer in the store",
            )
            .detail("Look whether this process uses the same DATASET_STORE_URL as the workers."),
            error => Self::internal(&error),
        }
    }
}
