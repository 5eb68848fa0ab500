//! The API on a test's database, with a route that has an effect.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt;
use tuneloop::api::auth::{Principal, Role, authenticate, create_key};
use tuneloop::api::idempotency::{self, Begin, Idempotent};
use tuneloop::api::problem::Problem;
use tuneloop::api::reply::Reply;
use tuneloop::api::{self, ApiState};
use tuneloop::audit::{self, Actor, AuditEvent};
use tuneloop::clock::Clock;
use tuneloop::database::MIGRATOR;
use tuneloop::dataset::DatasetStore;
use tuneloop::telemetry::metrics::Metrics;

use crate::harness::database::{TestDatabase, fresh_database};

pub(crate) fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap()
}

/// The API on the test's database, and a route of its own that has an effect.
pub(crate) struct Service {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) router: Router,
    /// Names this test's things and its keys.
    pub(crate) name: String,
    pub(crate) database: TestDatabase,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let database = fresh_database().await;
        let db = database.pool.clone();
        let clock = Clock::system();
        let state = ApiState::new(
            db.clone(),
            clock.clone(),
            Metrics::new().unwrap(),
            DatasetStore::in_memory(),
            newest_migration(),
        )
        .unwrap();
        let things = Router::new()
            .route("/things", post(make_thing))
            .route_layer(from_fn_with_state(db.clone(), authenticate))
            .with_state(db.clone());
        let name = format!("test-{}", clock.uuid());
        Self { db, clock, router: api::router(state).merge(things), name, database }
    }

    pub(crate) async fn key(&self, role: Role) -> (Principal, String) {
        let mut conn = self.db.acquire().await.unwrap();
        let key = create_key(&mut conn, &self.clock, &self.name, role, Actor::System).await.unwrap();
        let principal = Principal { key_id: key.id, name: self.name.clone(), role, request_id: None };
        (principal, key.plaintext)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, key: &str, uri: &str) -> Answer {
        let request = Request::get(uri).header("authorization", format!("Bearer {key}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn make(&self, key: &str, idempotency_key: &str, thing: &Thing) -> Answer {
        let request = Request::post("/things")
            .header("authorization", format!("Bearer {key}"))
            .header("idempotency-key", idempotency_key)
            .header(CONTENT_TYPE, "application/json");
        self.send(request.body(serde_json::to_vec(thing).unwrap().into()).unwrap()).await
    }

    pub(crate) fn thing(&self, note: &str) -> Thing {
        Thing { name: self.name.clone(), note: note.to_owned() }
    }

    /// How often a thing of this test was made.
    pub(crate) async fn effects(&self) -> i64 {
        let query = "SELECT count(*) FROM audit_events WHERE subject_kind = 'thing' AND subject_id = $1";
        sqlx::query_scalar(query).bind(&self.name).fetch_one(&self.db).await.unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn kind(&self) -> &str {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        self.body["type"].as_str().unwrap().strip_prefix("urn:tuneloop:problem:").unwrap()
    }

    pub(crate) fn replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) name: String,
    pub(crate) note: String,
}

async fn make_thing(
    State(db): State<PgPool>,
    principal: Principal,
    Idempotent { body, key }: Idempotent<Thing>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&db, &principal, &key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let event =
        AuditEvent { reason: Some(&body.note), ..principal.event("thing.make", ("thing", &body.name)) };
    audit::record(&mut tx, event).await?;
    if body.note == "refuse" {
        return Err(Problem::conflict("refused", "The thing was refused"));
    }
    let effects = sqlx::query_scalar("SELECT count(*) FROM audit_events WHERE subject_id = $1");
    let number: i64 = effects.bind(&body.name).fetch_one(&mut *tx).await?;
    let answer = json!({ "number": number, "share": 0.1, "zeta": null, "alpha": [1, "é"] });
    tx.commit(Reply::created(format!("/things/{number}"), answer).version(number)).await
}
