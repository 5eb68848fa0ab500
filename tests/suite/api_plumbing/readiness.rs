//! `/readyz` on databases with the right schema, another one and none.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tower::ServiceExt;
use tuneloop::api::{self, ApiState};
use tuneloop::clock::Clock;
use tuneloop::dataset::DatasetStore;
use tuneloop::telemetry::metrics::Metrics;

use super::service::{Service, newest_migration};

async fn readiness(db: PgPool, schema_version: i64) -> (StatusCode, Value) {
    let state = ApiState::new(
        db,
        Clock::system(),
        Metrics::new().unwrap(),
        DatasetStore::in_memory(),
        schema_version,
    )
    .unwrap();
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let (parts, body) = api::router(state).oneshot(request).await.unwrap().into_parts();
    (parts.status, serde_json::from_slice(&to_bytes(body, 10_000).await.unwrap()).unwrap())
}

#[tokio::test]
async fn readiness_needs_the_schema_of_this_build_or_of_one_being_rolled_out() {
    let service = Service::start().await;
    let version = newest_migration();
    for known in [version, version - 1] {
        let (status, body) = readiness(service.db.clone(), known).await;
        assert_eq!(status, StatusCode::OK);
        let checks = json!([{ "name": "database", "ok": true }, { "name": "schema", "ok": true }]);
        assert_eq!(body, json!({ "ready": true, "checks": checks }));
    }

    let (status, body) = readiness(service.db.clone(), version + 1).await;
    assert_eq!((status, &body["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert!(body["checks"][1]["detail"].as_str().unwrap().contains("run `tuneloop migrate`"), "{body}");

    let unmigrated: PgConnectOptions = service.database.url.parse().unwrap();
    let unmigrated = unmigrated.options([("search_path", "nowhere")]);
    let unmigrated = PgPoolOptions::new().connect_with(unmigrated).await.unwrap();
    let (status, body) = readiness(unmigrated, version).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["checks"][1]["detail"].as_str().unwrap().contains("no schema yet"), "{body}");
}
