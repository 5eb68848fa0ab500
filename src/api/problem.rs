//! What an error looks like to a caller: RFC 9457 `application/problem+json`.
//!
//! Endpoints keep their errors as domain enums and turn them into a [`Problem`] in one `From` each.

mod database;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::request_id;
use crate::causes;

/// The media type of every error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which a caller may try again what was refused for want of a resource.
const RETRY_AFTER_SECONDS: u16 = 2;

/// An error as a caller sees it: a body, and headers that belong to it.
#[derive(Debug, Clone)]
pub struct Problem(Box<(ProblemDetails, HeaderMap)>);

/// The body of every error (RFC 9457). Unknown members may be added; `type` is stable.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// A stable name of the kind of problem, to branch on.
    #[serde(rename = "type")]
    #[schema(format = "uri", example = "urn:tuneloop:problem:run-active")]
    pub kind: String,
    /// The kind of problem in words; the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What went wrong this time, and what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The id of the request, as in the header `X-Request-Id`; quote it when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The parts of the request that are at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Related resources by name, such as the `run` that is in the way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// Further members that belong to this kind of problem.
    #[serde(flatten)]
    pub members: BTreeMap<String, Value>,
}

/// One part of a request that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where the field is.
    #[serde(rename = "in")]
    pub place: Place,
    /// In the body a JSON Pointer (`/schedule/cron`, empty for the whole body), elsewhere the field's name.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The part of a request that a field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FieldPlace)]
pub enum Place {
    /// The JSON body.
    Body,
    /// The query string.
    Query,
    /// A parameter of the path.
    Path,
    /// A header.
    Header,
}

impl FieldError {
    /// A fault in the body, at a JSON Pointer such as `/weights/0`.
    #[must_use]
    pub fn body(pointer: impl Into<String>, message: impl Display) -> Self {
        Self::new(Place::Body, pointer, message)
    }

    /// A fault at `field` of `place`.
    #[must_use]
    pub fn new(place: Place, field: impl Into<String>, message: impl Display) -> Self {
        Self { place, field: field.into(), message: message.to_string() }
    }
}

impl Problem {
    /// A problem of the kind `urn:tuneloop:problem:<slug>`. The title is the same for each occurrence; say
    /// what is particular in [`Problem::detail`].
    #[must_use]
    pub fn new(status: StatusCode, slug: &str, title: &str) -> Self {
        let details = ProblemDetails {
            kind: format!("urn:tuneloop:problem:{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: None,
            request_id: None,
            errors: Vec::new(),
            links: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        Self(Box::new((details, HeaderMap::new())))
    }

    /// Says what went wrong this time, in a sentence that names what to change.
    #[must_use]
    pub fn detail(mut self, detail: impl Display) -> Self {
        self.0.0.detail = Some(detail.to_string());
        self
    }

    /// Adds a fault of a field.
    #[must_use]
    pub fn error(mut self, error: FieldError) -> Self {
        self.0.0.errors.push(error);
        self
    }

    /// Adds a link to a related resource.
    #[must_use]
    pub fn link(mut self, name: &str, href: impl Display) -> Self {
        self.0.0.links.insert(name.to_owned(), href.to_string());
        self
    }

    /// Adds a member of this kind of problem, such as the `step` a run is in.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.1.insert(name, value);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body, without the request's id.
    #[must_use]
    pub fn details(&self) -> &ProblemDetails {
        &self.0.0
    }

    /// 400: the request cannot be read.
    #[must_use]
    pub fn malformed(detail: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-request", "The request cannot be read").detail(detail)
    }

    /// 401: who calls is unknown.
    #[must_use]
    pub fn unauthorized(challenge: &'static str, detail: impl Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid API key is needed")
            .detail(detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 403: the caller may not do this.
    #[must_use]
    pub fn forbidden(detail: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The API key does not allow this").detail(detail)
    }

    /// 404: there is no `kind` named `id`.
    #[must_use]
    pub fn not_found(kind: &str, id: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such resource")
            .detail(format_args!("There is no {kind} `{id}`."))
    }

    /// 409: the state of a resource does not allow this. The slug says which rule is in the way.
    #[must_use]
    pub fn conflict(slug: &str, title: &str) -> Self {
        Self::new(StatusCode::CONFLICT, slug, title)
    }

    /// 422: the request can be read, but fields of it are not acceptable.
    #[must_use]
    pub fn invalid(errors: impl IntoIterator<Item = FieldError>) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-request",
            "Some fields of the request are not acceptable",
        );
        errors.into_iter().fold(problem, Self::error)
    }

    /// 500: our fault. The error and its causes are logged, the caller learns only the request's id.
    #[must_use]
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = %causes::in_one_line(error), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side").detail(
            "The request failed by a fault of the service, which has been logged with this request id.",
        )
    }

    /// 503: something the request needs is not there at the moment. The error is logged, not shown.
    #[must_use]
    pub fn unavailable(detail: &'static str, error: &(dyn Error + 'static)) -> Self {
        tracing::warn!(error = %causes::in_one_line(error), "a request was refused: {detail}");
        Self::try_later("unavailable", "The service is not available at the moment").detail(detail)
    }

    /// 503 with `Retry-After`.
    pub(super) fn try_later(slug: &str, title: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, slug, title)
            .header(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let (mut details, headers) = *self.0;
        details.request_id = request_id::current();
        let content_type = (CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        (status, headers, [content_type], Json(details)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    async fn rendered(problem: Problem) -> (StatusCode, HeaderMap, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_shows_its_members_and_nothing_empty() {
        let problem = Problem::conflict("run-active", "A run is already building")
            .detail("Wait for run 7.")
            .link("run", "/v1/runs/7")
            .member("step", "train");
        let (status, headers, body) = rendered(problem).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        let expected = json!({
            "type": "urn:tuneloop:problem:run-active",
            "title": "A run is already building",
            "status": 409,
            "detail": "Wait for run 7.",
            "links": { "run": "/v1/runs/7" },
            "step": "train",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn bad_input_names_each_field() {
        let problem = Problem::invalid([
            FieldError::body("/weights/0", "must not be negative"),
            FieldError::new(Place::Query, "limit", "must be at most 200"),
        ]);
        let (status, _, body) = rendered(problem).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let expected = json!([
            { "in": "body", "field": "/weights/0", "message": "must not be negative" },
            { "in": "query", "field": "limit", "message": "must be at most 200" },
        ]);
        assert_eq!(body["errors"], expected);
    }

    #[tokio::test]
    async fn an_internal_error_keeps_its_cause_to_itself() {
        let (status, _, body) = rendered(Problem::internal(&std::io::Error::other("secret table"))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
