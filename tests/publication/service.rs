//! A service whose pipelines may publish, and everything they may publish to.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::config::Secret;
use tuneloop::models;
use tuneloop::outbound::TargetRules;
use tuneloop::publication::{self, Reach};
use tuneloop::traffic::{self, Promotion, WHOLE};
use uuid::Uuid;

use crate::application::SECRET;
use crate::harness::service::{LOCAL, TestService};
use crate::kubernetes::{Kubernetes, NAMESPACE};

/// Bounds every wait: a machine that is busy with other things must not fail a test.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World {
    service: TestService,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) directory: TempDir,
}

impl Deref for World {
    type Target = TestService;

    fn deref(&self) -> &TestService {
        &self.service
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Where `change` may take something out of reach.
    pub(crate) async fn with(change: impl FnOnce(&mut Reach)) -> Self {
        Self::made(LOCAL, change).await
    }

    /// Where only public addresses are called.
    pub(crate) async fn guarded() -> Self {
        Self::made(TargetRules::default(), |_| {}).await
    }

    async fn made(target_rules: TargetRules, change: impl FnOnce(&mut Reach)) -> Self {
        let kubernetes = Kubernetes::start().await;
        let directory = tempfile::tempdir().unwrap();
        let mut reach = Reach {
            directory: Some(directory.path().to_owned()),
            kubernetes: publication::Kubernetes::at(kubernetes.config().await),
            lookup: Arc::new(|name: &str| (name == "PUBLICATION_SECRET_APP").then(|| Secret::new(SECRET))),
        };
        change(&mut reach);
        let service = TestService::start_with(Duration::from_millis(300), reach, target_rules, None).await;
        Self { service, kubernetes, directory }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a pipeline that publishes like this.
    pub(crate) async fn publishing(&self, name: &str, publication: Value) {
        self.pipeline(name, |config| config["publication"] = publication).await;
    }

    /// The state of a target once `wanted` holds of it.
    pub(crate) async fn wait(
        &self,
        pipeline: &str,
        target: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut state = Value::Null;
        let holds = async {
            loop {
                state = self.target(pipeline, target).await;
                if wanted(&state) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, holds).await.is_ok();
        assert!(in_time, "the target never was {what}: {state:#}");
        state
    }

    pub(crate) async fn target(&self, pipeline: &str, target: &str) -> Value {
        let states = self.read(&format!("/v1/pipelines/{pipeline}/publications")).await;
        let found = states["items"].as_array().unwrap().iter().find(|state| state["target"] == target);
        found.cloned().unwrap_or_default()
    }

    /// The state of a target once it has this revision.
    pub(crate) async fn published(&self, pipeline: &str, target: &str, revision: i64) -> Value {
        let is = |state: &Value| state["status"] == "published" && state["published_revision"] == revision;
        self.wait(pipeline, target, &format!("at revision {revision}"), is).await
    }

    /// The sentence with which a target fails, once it holds these words.
    pub(crate) async fn failing(&self, pipeline: &str, target: &str, words: &str) -> String {
        let says = |state: &Value| state["error"].as_str().is_some_and(|error| error.contains(words));
        let state = self.wait(pipeline, target, &format!("failing with {words:?}"), says).await;
        assert_eq!(state["status"], "failing");
        state["error"].as_str().unwrap().to_owned()
    }

    /// A new revision with the same live model; returns its number.
    pub(crate) async fn revise(&self, pipeline: &str) -> i64 {
        let path = format!("/v1/pipelines/{pipeline}");
        let enabled = self.read(&format!("{path}/traffic")).await["kill_switch"] == false;
        let body = json!({"enabled": enabled, "reason": "another revision"});
        let traffic = self.put(&format!("{path}/kill-switch"), &[], body).await.expect(200);
        traffic["revision"].as_i64().unwrap()
    }

    /// Makes another model live; returns the number of the revision.
    pub(crate) async fn go_live(&self, pipeline: &str, model: &str) -> i64 {
        go_live(&self.db, &self.clock, pipeline, model).await
    }

    pub(crate) async fn publish_again(&self, pipeline: &str, target: &str) {
        let path = format!("/v1/pipelines/{pipeline}/publications/{target}/publish");
        self.post(&path, Value::Null).await.expect(202);
    }

    /// The audit trail of a pipeline's publications, oldest first: action, subject and reason.
    pub(crate) async fn trail(&self, pipeline: &str) -> Vec<(String, String)> {
        sqlx::query_as(
            "SELECT action, coalesce(reason, '') FROM audit_events
              WHERE pipeline = $1 AND subject_kind = 'publication' ORDER BY id",
        )
        .bind(pipeline)
        .fetch_all(&self.db)
        .await
        .unwrap()
    }

    pub(crate) async fn actions(&self, pipeline: &str) -> Vec<String> {
        self.trail(pipeline).await.into_iter().map(|(action, _)| action).collect()
    }

    /// A metric's value, by its whole name with labels.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.text("/metrics", &[]).await;
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }

    pub(crate) async fn end(self) {
        self.service.end().await;
    }
}

/// Makes another model live; returns the number of the revision.
pub(crate) async fn go_live(db: &sqlx::PgPool, clock: &Clock, pipeline: &str, model: &str) -> i64 {
    let id: Uuid = clock.uuid();
    let mut tx = db.begin().await.unwrap();
    assert!(traffic::lock(&mut tx, pipeline).await.unwrap());
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
         SELECT $1, $2, 1 + max(major), 0, 0, 'candidate', 'openai', $3, $3 FROM model_versions WHERE pipeline = $2",
    )
    .bind(id)
    .bind(pipeline)
    .bind(model)
    .execute(&mut *tx)
    .await
    .unwrap();
    let version = models::by_id(&mut *tx, id).await.unwrap().unwrap();
    let reason = "it is the better one";
    let promotion =
        Promotion { version: &version, experiment_id: None, decision_id: None, weight: WHOLE, forced: false };
    let revision = traffic::promote(&mut tx, pipeline, promotion, reason, &By::system()).await.unwrap();
    tx.commit().await.unwrap();
    revision
}

/// A target that is a ConfigMap.
pub(crate) fn config_map(target: &str, name: &str) -> Value {
    json!({"name": target, "config_map": {"namespace": NAMESPACE, "name": name}})
}

/// Settings with one ConfigMap that is looked at often.
pub(crate) fn watched(correct_drift: bool) -> Value {
    json!({"targets": [config_map("cluster", "models")], "check_seconds": 0.1, "correct_drift": correct_drift})
}
