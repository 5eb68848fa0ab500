//! A service, and what tests of webhooks do with it.

use std::ops::Deref;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tuneloop::audit::{self, Actor, AuditEvent};
use tuneloop::jobs;
use tuneloop::notifications::DELIVERY_JOB;

use crate::harness::service::TestService;

/// Only keeps a failing test from hanging.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World(TestService);

impl Deref for World {
    type Target = TestService;

    fn deref(&self) -> &TestService {
        &self.0
    }
}

/// Records an event that is told, committed by itself.
pub(crate) async fn promote(db: &PgPool, pipeline: &str, revision: i64) {
    let event = AuditEvent {
        pipeline: Some(pipeline),
        before: Some(json!({"revision": revision - 1, "live": "0.0.0"})),
        after: Some(json!({"revision": revision, "live": "1.0.0", "weights": {"1.0.0": 10_000}})),
        reason: Some("it is better"),
        ..AuditEvent::new(Actor::Worker, "traffic.promotion", ("pipeline", pipeline))
    };
    audit::record(&mut db.acquire().await.unwrap(), event).await.unwrap();
}

/// Has a job run now.
pub(crate) async fn wake(db: &PgPool, kind: &str, subject: &str) {
    let mut tx = db.begin().await.unwrap();
    jobs::wake(&mut tx, kind, subject).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn until(what: &str, happened: impl AsyncFn() -> bool) {
    let waiting = async {
        while !happened().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain until {what}");
}

impl World {
    pub(crate) async fn start() -> Self {
        Self(TestService::start().await)
    }

    /// Makes an endpoint; its id and its secret.
    pub(crate) async fn endpoint(&self, settings: Value) -> (String, String) {
        let made = self.post("/v1/webhook-endpoints", settings).await.expect(201);
        (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
    }

    /// Something that is told, and sealed at once.
    pub(crate) async fn promotion(&self, pipeline: &str, revision: i64) {
        promote(&self.db, pipeline, revision).await;
        wake(&self.db, "audit_seal", "all").await;
    }

    pub(crate) async fn deliveries(&self, endpoint: &str) -> Vec<Value> {
        let listed = self.read(&format!("/v1/webhook-endpoints/{endpoint}/deliveries?limit=200")).await;
        listed["items"].as_array().unwrap().clone()
    }

    /// Waits until the endpoint has so many deliveries of this status.
    pub(crate) async fn until_deliveries(&self, endpoint: &str, status: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} deliveries are {status}"), async || {
            let deliveries = self.deliveries(endpoint).await;
            deliveries.iter().filter(|delivery| delivery["status"] == status).count() == count
        })
        .await;
        self.deliveries(endpoint).await
    }

    /// Waits until so many attempts were made of the newest delivery.
    pub(crate) async fn until_attempts(&self, endpoint: &str, count: usize) -> Value {
        until(&format!("{count} attempts are made"), async || {
            let deliveries = self.deliveries(endpoint).await;
            deliveries.first().is_some_and(|newest| newest["attempts"].as_array().unwrap().len() >= count)
        })
        .await;
        self.deliveries(endpoint).await.remove(0)
    }

    /// Has what waits for the endpoint attempted now, in place of the wait.
    pub(crate) async fn hurry(&self, endpoint: &str) {
        let waits = "UPDATE webhook_deliveries SET next_attempt_at = now()
                      WHERE endpoint_id = $1::uuid AND status = 'pending'";
        sqlx::query(waits).bind(endpoint).execute(&self.db).await.unwrap();
        wake(&self.db, DELIVERY_JOB, endpoint).await;
    }

    /// The value of a metric of webhooks; `labels` are those after the endpoint.
    pub(crate) async fn metric(&self, name: &str, endpoint: &str, labels: &str) -> Option<f64> {
        let series = format!("tuneloop_webhook_{name}{{endpoint=\"{endpoint}\"{labels}}} ");
        let text = self.text("/metrics", &[]).await;
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
    }

    pub(crate) async fn end(self) {
        self.0.end().await;
    }
}
