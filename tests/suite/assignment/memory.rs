//! Assignments are answered from memory, which hears of changes, and outlives the database.

use std::time::{Duration, Instant};

use crate::harness::service::TestService;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tuneloop::api::auth::{Role, create_key, revoke_key};
use tuneloop::api::memory::Memory;
use tuneloop::api::{self, ApiState};
use tuneloop::audit::Actor;
use tuneloop::clock::Clock;
use tuneloop::database;
use tuneloop::dataset::DatasetStore;
use tuneloop::embedded::{Cluster, Options};
use tuneloop::telemetry::metrics::Metrics;
use uuid::Uuid;

use crate::harness::database::fresh_database;
use crate::harness::service::config;

/// So long that nobody is helped by polling.
const NEVER: Duration = Duration::from_hours(1);
/// What is promised.
const PROMISE: Duration = Duration::from_secs(1);

/// The API with a memory that polls at this interval.
struct Service {
    router: Router,
    db: PgPool,
    clock: Clock,
    admin: String,
    stop: CancellationToken,
}

impl Service {
    async fn start(db: PgPool, poll_interval: Duration) -> Self {
        let clock = Clock::system();
        let metrics = Metrics::new().unwrap();
        let mut state =
            ApiState::new(db.clone(), clock.clone(), metrics, DatasetStore::in_memory(), 1).unwrap();
        state.memory = Memory::with_poll_interval(db.clone(), poll_interval);
        let stop = CancellationToken::new();
        let (memory, ended) = (state.memory.clone(), stop.clone());
        tokio::spawn(async move { memory.run(ended).await });
        let mut service = Self { router: api::router(state), db, clock, admin: String::new(), stop };
        service.admin = service.key(Role::Admin).await.1;
        service.send("PUT", "/v1/pipelines/hook", config()).await.expect(StatusCode::CREATED);
        service
    }

    async fn key(&self, role: Role) -> (Uuid, String) {
        let mut conn = self.db.acquire().await.unwrap();
        let key = create_key(&mut conn, &self.clock, "test", role, Actor::System).await.unwrap();
        (key.id, key.plaintext)
    }

    async fn send(&self, method: &str, uri: &str, body: Value) -> Answer {
        self.send_as(&self.admin, method, uri, body).await
    }

    async fn send_as(&self, key: &str, method: &str, uri: &str, body: Value) -> Answer {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("authorization", format!("Bearer {key}"));
        let request = if body.is_null() {
            request.body(Body::empty())
        } else {
            request.header("content-type", "application/json").body(body.to_string().into())
        };
        let (parts, body) = self.router.clone().oneshot(request.unwrap()).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            stale: parts.headers.get("tuneloop-stale").is_some_and(|stale| stale == "true"),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    async fn assign(&self, unit: &str) -> Answer {
        self.send("GET", &format!("/v1/pipelines/hook/assignment?unit={unit}"), Value::Null).await
    }

    /// How long it takes until `holds` of the assignment of `a`.
    async fn until(&self, holds: impl Fn(&Answer) -> bool) -> Duration {
        let started = Instant::now();
        loop {
            let answer = self.assign("a").await;
            if holds(&answer) {
                return started.elapsed();
            }
            assert!(started.elapsed() < Duration::from_secs(30), "never: {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn pin(&self) {
        let body = json!({"version": "0.0.0", "reason": "a try"});
        self.send("PUT", "/v1/pipelines/hook/pins/a", body).await.expect(StatusCode::OK);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    /// The header.
    stale: bool,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

#[tokio::test]
async fn a_change_is_in_force_within_a_second_without_polling() {
    let database = fresh_database().await;
    let service = Service::start(database.pool.clone(), NEVER).await;
    service.until(|answer| answer.status == 200).await;
    service.pin().await;
    let took = service.until(|answer| answer.body["pinned"] == true).await;
    assert!(took < PROMISE, "a pin took {took:?}");
    let body = json!({"enabled": true, "reason": "a try"});
    service.send("PUT", "/v1/pipelines/hook/kill-switch", body).await.expect(StatusCode::OK);
    let took = service.until(|answer| answer.body["reason"] == "kill_switch").await;
    assert!(took < PROMISE, "the kill switch took {took:?}");
    // A status that changes without a revision is heard of too.
    let body = json!({"enabled": false, "reason": "a try"});
    service.send("PUT", "/v1/pipelines/hook/kill-switch", body).await.expect(StatusCode::OK);
    service.until(|answer| answer.body["reason"] == "pin").await;
    sqlx::query("UPDATE model_versions SET provider_model_id = 'other'").execute(&service.db).await.unwrap();
    let took = service.until(|answer| answer.body["model_id"] == "other").await;
    assert!(took < PROMISE, "a model's id took {took:?}");
}

#[tokio::test]
async fn polling_alone_finds_every_change() {
    let database = fresh_database().await;
    for (table, trigger) in [
        ("traffic_revisions", "traffic_revisions_notify"),
        ("unit_pins", "unit_pins_notify"),
        ("model_versions", "model_versions_notify"),
        ("api_keys", "api_keys_notify"),
    ] {
        let drop = sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger} ON {table}"));
        sqlx::query(drop).execute(&database.pool).await.unwrap();
    }
    let service = Service::start(database.pool.clone(), Duration::from_millis(200)).await;
    service.until(|answer| answer.status == 200).await;
    service.pin().await;
    service.until(|answer| answer.body["pinned"] == true).await;
    service.send("DELETE", "/v1/pipelines/hook/pins/a", Value::Null).await.expect(StatusCode::NO_CONTENT);
    service.until(|answer| answer.body["pinned"] == false).await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_a_second_and_a_new_one_let_in_at_once() {
    let database = fresh_database().await;
    let service = Service::start(database.pool.clone(), NEVER).await;
    service.until(|answer| answer.status == 200).await;
    let (id, viewer) = service.key(Role::Viewer).await;
    let path = "/v1/pipelines/hook/assignment";
    let units = json!({"units": ["a", "b", "a"]});
    let assigned = service.send_as(&viewer, "POST", path, units.clone()).await.expect(StatusCode::OK);
    let assigned: Vec<_> =
        assigned["assignments"].as_array().unwrap().iter().map(|item| &item["unit"]).collect();
    assert_eq!(assigned, ["a", "b", "a"]);
    let mut conn = service.db.acquire().await.unwrap();
    assert!(revoke_key(&mut conn, id, Actor::System).await.unwrap());
    let revoked = Instant::now();
    while service.send_as(&viewer, "POST", path, units.clone()).await.status != StatusCode::UNAUTHORIZED {
        assert!(revoked.elapsed() < PROMISE, "a revoked key lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let unknown = service.send_as("tl_nothing", "POST", path, units).await;
    unknown.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_pipeline_is_served_as_soon_as_it_is_there() {
    let service = TestService::start().await;
    for number in 0..20 {
        let name = format!("p{number}");
        service.pipeline(&name, |_| {}).await;
        let assigned = service.read(&format!("/v1/pipelines/{name}/assignment?unit=u")).await;
        assert_eq!(assigned["version"], "0.0.0");
    }
    service.end().await;
}

#[tokio::test]
async fn batches_have_bounds() {
    let database = fresh_database().await;
    let service = Service::start(database.pool.clone(), NEVER).await;
    service.until(|answer| answer.status == 200).await;
    let path = "/v1/pipelines/hook/assignment";
    let units = |count: usize| json!({"units": (0..count).map(|unit| unit.to_string()).collect::<Vec<_>>()});
    let most = service.send("POST", path, units(1000)).await.expect(StatusCode::OK);
    assert_eq!(most["assignments"].as_array().unwrap().len(), 1000);
    for refused in [units(1001), units(0), json!({"units": ["a", ""]}), json!({"units": ["x".repeat(201)]})] {
        service.send("POST", path, refused).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let tail = service.send("POST", "/v1/pipelines/tail/assignment", units(1)).await;
    tail.expect(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn units_are_assigned_while_postgres_is_stopped_and_the_answer_says_that_it_is_stale() {
    let binaries = std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into);
    let options = Options { binaries, fast: true, ..Options::default() };
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_database("away").await.unwrap();
    let db = database::connect(&cluster.url("away"), 5).await.unwrap();
    database::migrate(&db).await.unwrap();
    let service = Service::start(db, Duration::from_millis(200)).await;
    service.until(|answer| answer.status == 200).await;
    service.pin().await;
    service.until(|answer| answer.body["pinned"] == true).await;
    let before = service.assign("a").await;
    assert!(!before.stale && before.body["stale"] == false, "{before:?}");

    cluster.stop().await.unwrap();
    service.until(|answer| answer.body["stale"] == true).await;
    let started = Instant::now();
    let away = service.assign("a").await;
    assert!(started.elapsed() < Duration::from_millis(500), "nobody waits for the database");
    assert!(away.stale, "{away:?}");
    let mut expected = before.body;
    expected["stale"] = json!(true);
    assert_eq!(away.expect(StatusCode::OK), expected);
    let units = json!({"units": ["a", "b"]});
    let batch = service.send("POST", "/v1/pipelines/hook/assignment", units).await;
    assert!(batch.stale && batch.body["stale"] == true, "{batch:?}");

    // What needs the database says so, and readiness as ever.
    let unknown = service.send("GET", "/v1/pipelines/tail/assignment?unit=a", Value::Null).await;
    unknown.expect(StatusCode::SERVICE_UNAVAILABLE);
    let ready = service.send("GET", "/readyz", Value::Null).await;
    ready.expect(StatusCode::SERVICE_UNAVAILABLE);
}
