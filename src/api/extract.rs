//! `Json`, `Path` and `Query` whose refusals are problems that name the field at fault.
//!
//! Handlers take these, never those of axum.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::problem::{FieldError, Place, Problem};

const NOT_AN_ARRAY: &str = "must be an object, not an array";

/// A JSON body, read or answered.
///
/// Refusals: 400 for what is not JSON, 413 for too much of it, 415 for another content type, 422 with a JSON
/// pointer for a value of the wrong type and for a missing or unknown field. A request without a body reads as `null`, so
/// that `Json<Option<T>>` makes the body optional.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// Parameters of the path. A value of the wrong form is a 422 that names the parameter.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

/// The query string. A value of the wrong form is a 422 that names the parameter; so is an unknown one when
/// `T` has `deny_unknown_fields`, as it should.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let bytes = read_body(request, state).await?;
        parse_body(&headers, &bytes).map(Self)
    }
}

/// A JSON body with objects within it: as [`Json`], and an array in the place of an object is refused wherever it stands. Its values
/// would be taken for fields by their position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nested<T>(pub(super) T);

impl<T: DeserializeOwned + Serialize, S: Send + Sync> FromRequest<S> for Nested<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let bytes = read_body(request, state).await?;
        let read: T = parse_body(&headers, &bytes)?;
        if bytes.is_empty() {
            return Ok(Self(read));
        }
        let sent: Value = serde_json::from_slice(&bytes).map_err(|error| malformed_json(&error))?;
        let known = serde_json::to_value(&read).map_err(|error| Problem::internal(&error))?;
        match by_position(&sent, &known) {
            Some(pointer) => Err(Problem::invalid([FieldError::body(pointer, NOT_AN_ARRAY)])),
            None => Ok(Self(read)),
        }
    }
}

/// Where an array was sent for what is known as an object.
fn by_position(sent: &Value, known: &Value) -> Option<String> {
    let within = |name: &str, sent: &Value, known: &Value| {
        let inner = by_position(sent, known)?;
        Some(format!("/{}{inner}", name.replace('~', "~0").replace('/', "~1")))
    };
    match (sent, known) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Object(sent), Value::Object(known)) => {
            sent.iter().find_map(|(name, value)| within(name, value, known.get(name)?))
        }
        (Value::Array(sent), Value::Array(known)) => {
            let mut pairs = sent.iter().zip(known).enumerate();
            pairs.find_map(|(index, (sent, known))| within(&index.to_string(), sent, known))
        }
        _ => None,
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_problem(rejection, parts.extensions.get::<MatchedPath>())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if let Some(field) = not_utf8(query) {
            return Err(Problem::invalid([FieldError::new(Place::Query, field, "must be valid UTF-8")]));
        }
        let pairs = form_urlencoded::parse(query.as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map(Self).map_err(
            |error| {
                let message = error.inner().to_string();
                let field = pointer(error.path(), &message).trim_start_matches('/').to_owned();
                let missing = message.starts_with("missing field");
                let message = if missing { "is missing".to_owned() } else { message };
                Problem::invalid([FieldError::new(Place::Query, field, message)])
            },
        )
    }
}

/// The first parameter of a query that is not UTF-8, which would be read with replacement characters.
fn not_utf8(query: &str) -> Option<&str> {
    let bad = |pair: &&str| percent_decode_str(pair).decode_utf8().is_err();
    query.split('&').find(bad).map(|pair| pair.split('=').next().unwrap_or_default())
}

/// A time in a query, for `deserialize_with`: chrono does not say what it takes.
pub(super) fn time<'de, D: Deserializer<'de>>(text: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(text)?;
    // In a query `+` is a space.
    text.replace(' ', "+")
        .parse()
        .map(Some)
        .map_err(|_| D::Error::custom("must be a time with its offset, such as 2026-11-26T12:00:00Z"))
}

/// Reads the whole body, up to the limit of the route.
pub(super) async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large")
                .detail("The body is larger than this endpoint takes; send it in smaller parts.")
        } else {
            Problem::malformed("The body could not be read to its end: it was cut off, or it is not packed as Content-Encoding says.")
        }
    })
}

/// Reads a body as JSON, see [`Json`].
pub(super) fn parse_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return serde_json::from_str("null")
            .map_err(|_| Problem::malformed("This request needs a JSON body, and none was sent."));
    }
    require_json(headers)?;
    if body.trim_ascii_start().starts_with(b"[") {
        // Its values would be taken for fields by their position.
        return Err(Problem::invalid([FieldError::body("", NOT_AN_ARRAY)]));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| body_problem(&error, body))?;
    json.end().map_err(|error| malformed_json(&error))?;
    Ok(value)
}

/// The content type without its parameters, in lower case; empty where there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// 415 unless the content type is `application/json` or `application/<something>+json`.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let essence = media_type(headers);
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
        .detail("Send the body with the header `Content-Type: application/json`."))
}

fn body_problem(error: &serde_path_to_error::Error<serde_json::Error>, body: &[u8]) -> Problem {
    let is_data = error.inner().classify() == Category::Data;
    // A number where one of several words is asked for is told as if it were no JSON.
    if !is_data && serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return malformed_json(error.inner());
    }
    let message = if is_data {
        data_fault(error.inner())
    } else {
        "is not one of the values that it may have".to_owned()
    };
    Problem::invalid([FieldError::body(pointer(error.path(), &message), message)])
}

/// What is wrong with a value in JSON, without its place in the text and in words that callers of an HTTP API know.
pub(super) fn data_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    match message.rsplit_once(", expected ") {
        Some((found, _)) if found.starts_with("invalid value: integer") => {
            format!("{found}, which is out of range")
        }
        Some((found, wanted)) => format!("{found}, expected {}", type_in_words(wanted)),
        None => message.to_owned(),
    }
}

/// 400: the body is not JSON.
pub(super) fn malformed_json(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-json", "The body is not JSON")
        .detail(format_args!("The body cannot be read as JSON: {error}."))
}

/// The JSON Pointer (RFC 6901) of the value at `path`. For a missing or repeated field that is the object around
/// it, and only serde's message has the field's name, so it is taken from there.
fn pointer(path: &serde_path_to_error::Path, message: &str) -> String {
    let segments = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Cow::from(index.to_string())),
        Segment::Map { key } => Some(key.into()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let segments = segments.chain(named.map(Cow::from));
    segments.flat_map(|segment| ["/".to_owned(), segment.replace('~', "~0").replace('/', "~1")]).collect()
}

fn path_problem(rejection: PathRejection, route: Option<&MatchedPath>) -> Problem {
    let PathRejection::FailedToDeserializePathParams(error) = rejection else {
        return Problem::internal(&rejection);
    };
    let name = |index| parameter(route, index).unwrap_or_default();
    let wanted = |value: &str, expected: &str| format!("`{value}` is not a {}", type_in_words(expected));
    let (field, message) = match error.kind() {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            (key.clone(), wanted(value, expected_type))
        }
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            (name(*index), wanted(value, expected_type))
        }
        ErrorKind::ParseError { value, expected_type } => (name(0), wanted(value, expected_type)),
        ErrorKind::DeserializeError { key, message, .. } => (key.clone(), message.clone()),
        ErrorKind::InvalidUtf8InPathParam { key } => (key.clone(), "must be valid UTF-8".to_owned()),
        ErrorKind::Message(message) => (name(0), message.clone()),
        _ => return Problem::internal(&error),
    };
    Problem::invalid([FieldError::new(Place::Path, field, message)])
}

/// The name of the parameter at `index` of a route such as `/v1/pipelines/{pipeline}/models/{version}`.
fn parameter(route: Option<&MatchedPath>, index: usize) -> Option<String> {
    let segments = route?.as_str().split('/');
    let mut names = segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.nth(index).map(ToOwned::to_owned)
}

/// A Rust type in words that callers of an HTTP API know.
fn type_in_words(rust: &str) -> &str {
    match rust {
        "bool" => "boolean (true or false)",
        "f32" | "f64" => "number",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "whole number",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "whole number of 0 or more",
        "a sequence" => "array",
        "a map" => "object",
        "unit" => "no body",
        object if object.starts_with("struct ") => "object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::{get, post};
    use serde::Deserialize;
    use serde_json::json;
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::models::Version;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        count: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        limit: Option<u32>,
    }

    fn parse(body: &str) -> Result<Outer, Problem> {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())]);
        parse_body(&headers, body.as_bytes())
    }

    fn fault(body: &str) -> (String, String) {
        let problem = parse(body).unwrap_err();
        assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let [error] = problem.details().errors.as_slice() else { panic!("one error expected") };
        assert_eq!(error.place, Place::Body);
        (error.field.clone(), error.message.clone())
    }

    #[test]
    fn a_good_body_is_read() {
        let read = parse(r#"{"inner":{"count":1},"list":[{"count":2}]}"#).unwrap();
        assert_eq!((read.inner.count, read.list[0].count, read.count.is_none()), (1, 2, true));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_pointer() {
        let (field, message) = fault(r#"{"inner":{"count":1},"list":[{"count":1},{"count":"x"}]}"#);
        assert_eq!(field, "/list/1/count");
        assert_eq!(message, "invalid type: string \"x\", expected whole number of 0 or more");
        for array in ["[]", r#" [{"count":1}]"#] {
            assert_eq!(fault(array), (String::new(), "must be an object, not an array".to_owned()));
        }
        let object_for_array = r#"{"inner":{"count":1},"list":{}}"#;
        assert_eq!(fault(object_for_array).1, "invalid type: map, expected array");
        assert_eq!(fault(r#"{"inner":null}"#).0, "/inner");
    }

    #[test]
    fn what_is_no_word_where_one_of_several_is_asked_for_is_named() {
        #[derive(Debug, Deserialize)]
        struct Choice {
            when: When,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum When {
            Now,
            Later,
        }
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        for value in ["true", "1", "null", "{}", "[]", r#""never""#] {
            let body = format!(r#"{{"when": {value}}}"#);
            let problem = parse_body::<Choice>(&headers, body.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY, "{value}");
            assert_eq!(problem.details().errors[0].field, "/when", "{value}");
        }
        let choice = parse_body::<Choice>(&headers, br#"{"when": "later"}"#).unwrap();
        assert!(matches!(choice.when, When::Later));
        assert!(matches!(parse_body::<Choice>(&headers, br#"{"when": "now"}"#).unwrap().when, When::Now));
    }

    #[test]
    fn missing_unknown_and_repeated_fields_are_named_by_their_pointer() {
        assert_eq!(fault("{}").0, "/inner");
        assert_eq!(fault(r#"{"inner":{}}"#).0, "/inner/count");
        assert_eq!(fault(r#"{"inner":{"count":1},"count":{}}"#).0, "/count/count");
        assert_eq!(fault(r#"{"inner":{"inner":1}}"#).0, "/inner/inner");
        assert_eq!(fault(r#"{"inner":{"count":1,"a/b":2}}"#).0, "/inner/a~1b");
        assert_eq!(fault(r#"{"inner":{"count":1},"list":[{"count":1,"x":2}]}"#).0, "/list/0/x");
        assert_eq!(fault(r#"{"inner":{"count":1,"count":1}}"#).0, "/inner/count");
    }

    #[test]
    fn what_is_not_json_is_400() {
        for body in ["{", "{\"inner\":}", "{\"inner\":{\"count\":1}} x", " "] {
            let problem = parse(body).unwrap_err();
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(problem.details().kind, "urn:tuneloop:problem:malformed-json");
        }
    }

    #[test]
    fn a_body_may_be_absent_only_where_it_is_optional() {
        assert_eq!(parse("").unwrap_err().status(), StatusCode::BAD_REQUEST);
        parse_body::<()>(&HeaderMap::new(), b"").unwrap();
        assert!(parse_body::<Option<Outer>>(&HeaderMap::new(), b"").unwrap().is_none());
    }

    #[test]
    fn other_content_types_are_refused() {
        for content_type in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded"] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            let problem = parse_body::<Value>(&headers, b"{}").unwrap_err();
            assert_eq!(problem.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
        }
        let none = parse_body::<Value>(&HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(none.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/merge-patch+json".parse().unwrap())]);
        parse_body::<Value>(&headers, b"{}").unwrap();
    }

    #[test]
    fn an_array_for_an_object_is_found_wherever_it_stands() {
        let known = json!({"a": {"b": [1, 2]}, "list": [{"c": 1}, {"c": 2}], "x/y": {"d": null}});
        let found = |sent: Value| by_position(&sent, &known);
        assert_eq!(found(known.clone()), None);
        assert_eq!(found(json!({"a": {"b": [1, 2]}, "unknown": []})), None);
        assert_eq!(found(json!({"a": [[1, 2]]})).as_deref(), Some("/a"));
        assert_eq!(found(json!({"list": [{"c": 1}, [2]]})).as_deref(), Some("/list/1"));
        assert_eq!(found(json!({"x/y": []})).as_deref(), Some("/x~1y"));
    }

    async fn errors(uri: &str) -> Value {
        let router = Router::new()
            .route("/runs/{id}", get(async |_: Path<Uuid>| ()))
            .route("/pages/{page}", get(async |_: Path<u32>| ()))
            .route("/a/{first}/b/{second}", get(async |_: Path<(String, u64)>| ()))
            .route("/models/{pipeline}/{version}", get(async |_: Path<(String, Version)>| ()))
            .route("/list", get(async |Query(filter): Query<Filter>| Json(filter.limit)))
            .route("/body", post(async |_: Json<Outer>| ()));
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{uri}");
        let body: Value =
            serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
        let error = &body["errors"][0];
        json!([error["in"], error["field"]])
    }

    #[tokio::test]
    async fn parameters_of_path_and_query_are_named() {
        assert_eq!(errors("/runs/7").await, json!(["path", "id"]));
        assert_eq!(errors("/pages/x").await, json!(["path", "page"]));
        assert_eq!(errors("/a/x/b/y").await, json!(["path", "second"]));
        assert_eq!(errors("/a/%ff/b/1").await, json!(["path", "first"]));
        assert_eq!(errors("/list?limit=x").await, json!(["query", "limit"]));
        assert_eq!(errors("/list?a=%C3%A9&limit=%C3").await, json!(["query", "limit"]));
        assert_eq!(errors("/list?%ff=1").await, json!(["query", "%ff"]));
        assert_eq!(errors("/models/hook/abc").await, json!(["path", "version"]));
        assert_eq!(errors("/list?lim=1").await, json!(["query", "lim"]));
        assert_eq!(errors("/list?limit=1&limit=2").await, json!(["query", "limit"]));
    }
}
