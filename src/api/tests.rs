//! What holds for every route, without a database.

use axum::body::{Body, to_bytes};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Request};
use axum::routing::{get, post};
use chrono::DateTime;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tower::ServiceExt;

use super::extract::Json;
use super::*;

fn state() -> ApiState {
    // Nothing listens on port 1.
    let db = PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let clock = Clock::fixed(DateTime::UNIX_EPOCH, 1);
    ApiState::new(db, clock, Metrics::new().unwrap(), DatasetStore::in_memory(), 1).unwrap()
}

/// Routes that misbehave, behind the middleware of the API.
fn misbehaving(state: ApiState) -> Router {
    let routes = Router::new()
        .route("/echo", post(async |Json(body): Json<Value>| Json(body)))
        .route(
            "/large",
            post(async |Json(body): Json<Value>| Json(body))
                .layer(DefaultBodyLimit::max(2 * limits::BODY_BYTES)),
        )
        .route("/panic", get(panics))
        .route("/never", get(std::future::pending::<()>));
    with_middleware(routes, &state).with_state(state)
}

async fn panics() {
    panic!("secret")
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is a well-formed problem, and returns its `type` without the prefix.
    fn problem(&self) -> String {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        body["type"].as_str().unwrap().strip_prefix("urn:tuneloop:problem:").unwrap().to_owned()
    }
}

async fn send(router: Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn call(method: &str, uri: &str) -> Answer {
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    send(router(state()), request).await
}

async fn post_to(path: &str, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let request = Request::post(path);
    let request =
        content_type.into_iter().fold(request, |request, value| request.header(CONTENT_TYPE, value));
    send(misbehaving(state()), request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn unknown_routes_are_404() {
    for path in ["/", "/v1", "/v1/nothing", "/healthz/", "/docs/no-such-asset.js"] {
        let answer = call("GET", path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.problem(), "unknown-route");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_and_name_the_right_ones() {
    for path in ["/healthz", "/v1/audit", "/openapi.json", "/docs/"] {
        let answer = call("DELETE", path).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers[ALLOW], "GET,HEAD");
        assert_eq!(answer.problem(), "method-not-allowed");
    }
}

#[tokio::test]
async fn options_names_the_methods_and_head_is_get_without_a_body() {
    let options = call("OPTIONS", "/healthz").await;
    assert_eq!(options.status, StatusCode::NO_CONTENT);
    assert_eq!(options.headers[ALLOW], "GET,HEAD");
    let head = call("HEAD", "/healthz").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(call("OPTIONS", "/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn unreadable_bodies_are_problems() {
    let json = Some("application/json");
    let malformed = post_to("/echo", json, "{").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    assert_eq!(malformed.problem(), "malformed-json");
    let untyped = post_to("/echo", None, "{}").await;
    assert_eq!(untyped.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(untyped.problem(), "unsupported-media-type");
    assert_eq!(post_to("/echo", json, "{}").await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_have_a_limit_that_a_route_can_raise() {
    let of_bytes = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let json = Some("application/json");
    assert_eq!(post_to("/echo", json, of_bytes(limits::BODY_BYTES)).await.status, StatusCode::OK);
    let over = of_bytes(limits::BODY_BYTES + 1);
    let refused = post_to("/echo", json, over.clone()).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.problem(), "body-too-large");
    assert_eq!(post_to("/large", json, over).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_is_500_and_keeps_its_message_to_itself() {
    let request = Request::get("/panic").body(Body::empty()).unwrap();
    let answer = send(misbehaving(state()), request).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.problem(), "internal");
    assert!(!String::from_utf8(answer.body).unwrap().contains("secret"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_503() {
    let state = ApiState { request_time: Duration::ZERO, ..state() };
    let answer = send(misbehaving(state), Request::get("/never").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.problem(), "timeout");
    assert!(answer.headers.contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn guarded_routes_need_a_key_and_open_ones_do_not() {
    let answer = call("GET", "/v1/audit").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.problem(), "unauthorized");
    assert!(answer.headers[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(call("GET", "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_documented_route_answers_and_is_guarded_as_documented() {
    for (path, item) in openapi().paths.paths {
        let operations = [
            ("GET", item.get),
            ("PUT", item.put),
            ("POST", item.post),
            ("DELETE", item.delete),
            ("PATCH", item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let guarded = operation.responses.responses.contains_key("401");
            let answer = call(method, &path.replace(['{', '}'], "x")).await;
            assert_eq!(
                answer.status == StatusCode::UNAUTHORIZED,
                guarded,
                "{method} {path}: {}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn request_ids_are_returned_and_bad_ones_replaced() {
    let sent = |id: &str| Request::get("/healthz").header("x-request-id", id).body(Body::empty()).unwrap();
    let kept = send(router(state()), sent("abc-1")).await;
    assert_eq!(kept.headers["x-request-id"], "abc-1");
    let replaced = send(router(state()), sent("not sane")).await;
    assert_eq!(replaced.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn requests_are_measured_by_route() {
    let router = router(state());
    for (method, path) in
        [("GET", "/healthz"), ("GET", "/made/up/1"), ("GET", "/made/up/2"), ("BREW", "/healthz")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        send(router.clone(), request).await;
    }
    let answer = send(router, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; version=0.0.4");
    let text = String::from_utf8(answer.body).unwrap();
    for (method, route, status, count) in
        [("GET", "/healthz", 200, 1), ("GET", "unmatched", 404, 2), ("other", "/healthz", 405, 1)]
    {
        let line = format!(
            "tuneloop_http_request_duration_seconds_count{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} \
             {count}\n"
        );
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn readiness_without_a_database_says_what_is_missing() {
    let answer = call("GET", "/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let body = answer.json();
    assert_eq!(body["ready"], false);
    assert_eq!(body["checks"][0]["name"], "database");
    assert_eq!(body["checks"][0]["ok"], false);
}

#[tokio::test]
async fn the_document_is_served_and_its_ui_comes_with_its_assets() {
    let document = call("GET", "/openapi.json").await;
    assert_eq!(document.json(), serde_json::to_value(openapi()).unwrap());
    assert!(call("GET", "/docs").await.status.is_redirection());
    let page = call("GET", "/docs/").await;
    let page = String::from_utf8(page.body).unwrap();
    let assets = page.split('"').filter_map(|text| text.strip_prefix("./"));
    let assets: Vec<_> = assets.filter(|asset| asset.contains('.')).collect();
    assert!(assets.iter().any(|asset| asset.starts_with("swagger-ui-bundle")), "{page}");
    for asset in assets {
        assert_eq!(call("GET", &format!("/docs/{asset}")).await.status, StatusCode::OK, "{asset}");
    }
    let setup = String::from_utf8(call("GET", "/docs/swagger-initializer.js").await.body).unwrap();
    assert!(setup.contains("/openapi.json"), "{setup}");
    assert!(setup.contains("\"persistAuthorization\": true"), "{setup}");
}

#[tokio::test]
async fn a_registry_takes_one_api() {
    let state = state();
    assert!(ApiState::new(state.db, state.clock, state.metrics, state.datasets, 1).is_err());
}
