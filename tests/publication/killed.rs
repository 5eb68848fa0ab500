//! A worker process is killed between writing and reading back, and at the other places where it could.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::publication::{self, PublicationState};
use tuneloop::{pipelines, traffic};

use crate::harness::database::{TestDatabase, fresh_database};
use crate::kubernetes::Kubernetes;
use crate::process::{LIMIT, Worker};
use crate::service::{config_map, go_live};

struct World {
    database: TestDatabase,
    kubernetes: Kubernetes,
    directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (database, kubernetes) = (fresh_database().await, Kubernetes::start().await);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kubeconfig"), kubernetes.kubeconfig().to_string()).unwrap();
        std::fs::create_dir(directory.path().join("published")).unwrap();
        let web = json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": [{"name": "web"}]}}}});
        kubernetes.create("deployments", &web);
        let world = Self { database, kubernetes, directory };
        let mut cluster = config_map("cluster", "models");
        cluster["config_map"]["restart_deployments"] = json!(["web"]);
        let config = json!({
            "serving_model": "gpt-4o", "training": {"base_model": "gpt-4o-2024-08-06"}, "schedule": {"enabled": false},
            "publication": {
                "targets": [cluster, {"name": "disk", "file": {"path": "hook.json"}}],
                "check_seconds": 3600,
            },
        });
        let config = serde_json::from_value(config).unwrap();
        let mut tx = world.database.pool.begin().await.unwrap();
        let pipeline =
            pipelines::save(&mut tx, &Clock::system(), "hook", &config, &By::system()).await.unwrap();
        publication::changed(&mut tx, &pipeline, &By::system()).await.unwrap();
        tx.commit().await.unwrap();
        world
    }

    /// A worker that finds the cluster by the kubeconfig of its environment.
    fn worker(&self, halt_at: Option<&str>) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
        for variable in ["RUST_LOG", "TUNELOOP_HALT_AT", "TUNELOOP_HALT_UNTIL", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            command.env_remove(variable);
        }
        command
            .args(["serve", "--roles", "worker", "--listen", "127.0.0.1:0", "--poll-interval-ms", "100"])
            .args(["--database-connections", "6"])
            .arg("--dataset-store")
            .arg(self.directory.path().join("datasets"))
            .arg("--publication-dir")
            .arg(self.directory.path().join("published"))
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("TUNELOOP_LEASE_SECONDS", "5")
            .env("DATABASE_URL", &self.database.url)
            .env("OPENAI_API_KEY", "sk-test")
            .envs(halt_at.map(|point| ("TUNELOOP_HALT_AT", point)));
        Worker::start(command)
    }

    async fn state(&self, target: &str) -> PublicationState {
        publication::state(&self.database.pool, "hook", target).await.unwrap().unwrap()
    }

    async fn published(&self, revision: i64) {
        let start = Instant::now();
        for target in ["cluster", "disk"] {
            while self.state(target).await.published_revision != Some(revision) {
                assert!(start.elapsed() < LIMIT, "{target} never was: {:?}", self.state(target).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until the Deployment was restarted for the model, and that is written down.
    async fn restarted_for(&self, model: &str) {
        let start = Instant::now();
        while self.state("cluster").await.restarted_for.as_deref() != Some(model) {
            assert!(start.elapsed() < LIMIT, "never was: {:?}", self.state("cluster").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn file(&self) -> Value {
        let file = std::fs::read(self.directory.path().join("published/hook.json"));
        file.map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default()
    }

    async fn entries(&self) -> i64 {
        let query = "SELECT count(*) FROM publication_history";
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }
}

#[tokio::test]
async fn a_worker_killed_anywhere_leaves_what_the_next_one_completes() {
    for point in ["begun", "read", "writing", "written", "restarting", "committing"] {
        let world = World::new().await;
        // One slot for each: both jobs may be at the point, the process says so once or twice.
        let mut worker = world.worker(Some(&format!("publish.{point}")));
        worker.says(&format!("halted at publish.{point}")).await;
        worker.kill();
        if point == "written" {
            let cluster = world.kubernetes.traffic("models", "hook")["revision"] == 1;
            assert!(cluster || world.file()["revision"] == 1, "one of them is written");
            let recorded = [world.state("cluster").await, world.state("disk").await];
            assert!(
                recorded.iter().any(|state| state.published_revision.is_none()),
                "what was not read back is not published: {recorded:?}"
            );
        }
        let worker = world.worker(None);
        world.published(1).await;
        assert_eq!(world.kubernetes.traffic("models", "hook")["revision"], 1, "{point}");
        assert_eq!(world.file()["revision"], 1, "{point}");
        assert_eq!(world.entries().await, 2, "{point}");
        world.restarted_for("gpt-4o").await;
        let web = world.kubernetes.object("deployments", "web").unwrap();
        assert_eq!(web["metadata"]["generation"], 2, "restarted once: {point}");
        worker.stop().await;
    }
}

#[tokio::test]
async fn what_a_killed_worker_wrote_is_not_taken_for_somebody_elses_change() {
    let world = World::new().await;
    let worker = world.worker(None);
    world.published(1).await;
    worker.stop().await;
    let (pool, clock) = (&world.database.pool, Clock::system());
    go_live(pool, &clock, "hook", "ft:two").await;
    let mut worker = world.worker(Some("publish.written"));
    worker.says("halted at publish.written").await;
    // Both are written before the next revision comes.
    let start = Instant::now();
    while world.kubernetes.traffic("models", "hook")["revision"] != 2 || world.file()["revision"] != 2 {
        assert!(start.elapsed() < LIMIT, "{}", worker.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.kill();
    let newest = go_live(pool, &clock, "hook", "ft:three").await;
    let worker = world.worker(None);
    world.published(newest).await;
    worker.stop().await;
    for target in ["cluster", "disk"] {
        let state = world.state(target).await;
        assert_eq!((state.drifts, state.last_error), (0, None), "{target}");
    }
    let mut conn = pool.acquire().await.unwrap();
    let live = traffic::current(&mut conn, "hook").await.unwrap().unwrap();
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], live.live().unwrap().provider_model_id);
}
