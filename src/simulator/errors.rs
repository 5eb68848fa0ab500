//! Errors as OpenAI's API reports them: `{"error": {"message", "type", "param", "code"}}`.

use axum::extract::rejection::BytesRejection;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, extract::multipart::MultipartError};
use serde::Serialize;

/// A refused request. `ErrorResponse` in the specification.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
struct Envelope {
    error: Body,
}

impl ApiError {
    /// An error with a status of the caller's choice; the type is what the real service sends for all
    /// mistakes of a caller.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let body = Body { message: message.into(), r#type: "invalid_request_error", param: None, code: None };
        Self { status, body }
    }

    /// The request itself is wrong (400).
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What the address names does not exist (404).
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Names the field at fault.
    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    /// Adds the code that programs compare.
    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(Envelope { error: self.body })).into_response()
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        Self::new(error.status(), error.body_text())
    }
}

/// Answers an address that is not in the protocol.
pub(super) async fn unknown_url(method: Method, uri: Uri) -> ApiError {
    ApiError::missing(format!("Invalid URL ({method} {})", uri.path()))
}

/// Answers an address of the protocol that was called with another method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("Not allowed to {method} on {}. Use another HTTP method.", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_supported")
}
