//! The answer of an endpoint that changes something, in a form that can be stored and sent again.

use axum::Json;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::etag::ETag;
use super::problem::Problem;

/// Present, and `true`, on an answer that was stored by an earlier request with the same `Idempotency-Key`.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Status, `Location`, `ETag` and body of a success.
#[derive(Debug)]
pub struct Reply {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) etag: Option<ETag>,
    /// A body that cannot be JSON is found out when the reply is committed or sent.
    pub(super) body: Result<Option<Value>, serde_json::Error>,
    pub(super) replayed: bool,
}

impl Reply {
    /// 200 with a body.
    #[must_use]
    pub fn ok(body: impl Serialize) -> Self {
        Self::new(StatusCode::OK, serde_json::to_value(body).map(Some))
    }

    /// 201: a resource was made at `location`.
    #[must_use]
    pub fn created(location: impl Into<String>, body: impl Serialize) -> Self {
        let reply = Self::new(StatusCode::CREATED, serde_json::to_value(body).map(Some));
        Self { location: Some(location.into()), ..reply }
    }

    /// 202: work was started that can be followed at `location`.
    #[must_use]
    pub fn accepted(location: impl Into<String>, body: impl Serialize) -> Self {
        Self { status: StatusCode::ACCEPTED, ..Self::created(location, body) }
    }

    /// 204: done, nothing to tell.
    #[must_use]
    pub fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT, Ok(None))
    }

    /// Adds the version of the resource in the body as its `ETag`.
    #[must_use]
    pub fn version(self, version: i64) -> Self {
        Self { etag: Some(ETag(version)), ..self }
    }

    fn new(status: StatusCode, body: Result<Option<Value>, serde_json::Error>) -> Self {
        Self { status, location: None, etag: None, body, replayed: false }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Ok(Some(body)) => (self.status, Json(body)).into_response(),
            Ok(None) => self.status.into_response(),
            Err(error) => return Problem::internal(&error).into_response(),
        };
        let etag = self.etag.map(|etag| etag.to_string());
        for (name, value) in [(LOCATION, self.location), (ETAG, etag)] {
            let Some(value) = value else { continue };
            match HeaderValue::try_from(value) {
                Ok(value) => response.headers_mut().insert(name, value),
                Err(error) => return Problem::internal(&error).into_response(),
            };
        }
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_reply_carries_its_headers() {
        let response = Reply::created("/v1/runs/1", "x").version(3).into_response();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()[LOCATION], "/v1/runs/1");
        assert_eq!(response.headers()[ETAG], "\"3\"");
        assert!(!response.headers().contains_key(REPLAYED));
        assert_eq!(Reply::accepted("/v1/runs/1", "x").into_response().status(), StatusCode::ACCEPTED);
        assert_eq!(Reply::no_content().into_response().status(), StatusCode::NO_CONTENT);
    }

    #[test]
    fn a_body_that_cannot_be_json_is_our_fault() {
        let reply = Reply::ok(BTreeMap::from([((1, 2), 3)]));
        assert_eq!(reply.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
