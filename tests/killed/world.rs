//! A database, a provider and posts for one scenario, and the people that use what is live.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::json;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::experiments::outcomes::{self, Outcome, Recording, Repeats};
use tuneloop::models::Version;
use tuneloop::pipelines::{self, PipelineConfig};
use tuneloop::runs::{self, Request, Run, RunStatus, Training};
use tuneloop::simulator::{Settings, Simulator};
use tuneloop::traffic;
use tuneloop::traffic::assignment::{bucket, share_of};
use uuid::Uuid;

use crate::database::{TestDatabase, fresh_database};
use crate::gate::Gate;
use crate::process::{LIMIT, Worker};

/// What differs between scenarios.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) training_seconds: f64,
    pub(crate) settle_seconds: f64,
    pub(crate) horizon_seconds: f64,
    pub(crate) watch_seconds: f64,
    /// Seconds until the provider answers.
    pub(crate) latency: f64,
    /// Whether people turn away from the candidate once it is live.
    pub(crate) harmful: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            training_seconds: 0.3,
            settle_seconds: 1.5,
            horizon_seconds: 1.0,
            watch_seconds: 1.0,
            latency: 0.0,
            harmful: false,
        }
    }
}

pub(crate) struct World {
    /// Held until the scenario is over.
    _seat: SemaphorePermit<'static>,
    pub(crate) database: TestDatabase,
    pub(crate) provider: Simulator,
    pub(crate) gate: Gate,
    pub(crate) directory: TempDir,
    pub(crate) provider_url: String,
    harmful: bool,
    serving: JoinHandle<()>,
    people: Option<JoinHandle<()>>,
}

/// Scenarios at once, over all tests of this binary. Each has a worker process and its people; with more of them two cores do not
/// get round before leases of seconds run out, and that would test the machine.
static SEATS: Semaphore = Semaphore::const_new(8);

impl World {
    pub(crate) async fn new(shape: Shape) -> Self {
        let seat = SEATS.acquire().await.unwrap();
        let settings = Settings {
            latency: Duration::from_secs_f64(shape.latency),
            training_time: Duration::from_secs_f64(shape.training_seconds),
            ..Settings::default()
        };
        let provider = Simulator::new(settings, Clock::system());
        let gate = Gate::open();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = gate.before(provider.router());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let database = fresh_database().await;
        seed(&database, shape).await;
        let directory = tempfile::tempdir().unwrap();
        let (harmful, people) = (shape.harmful, None);
        Self { _seat: seat, database, provider, gate, directory, provider_url, harmful, serving, people }
    }

    /// Triggers a run, and lets people come.
    pub(crate) async fn trigger(&mut self) -> Uuid {
        let mut tx = self.database.pool.begin().await.unwrap();
        let pipeline = pipelines::by_name(&mut *tx, "hook").await.unwrap().unwrap();
        let run = runs::by_api(&mut tx, &Clock::system(), &pipeline, &By::system()).await.unwrap();
        tx.commit().await.unwrap();
        self.people = Some(tokio::spawn(people(self.database.pool.clone(), self.harmful)));
        run
    }

    /// Lets no more people come, and waits until those that are here have left.
    pub(crate) async fn deserted(&mut self) {
        if let Some(people) = self.people.take() {
            people.abort();
            let _ = people.await;
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
        for variable in ["RUST_LOG", "TUNELOOP_HALT_AT", "TUNELOOP_HALT_UNTIL", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            command.env_remove(variable);
        }
        command
            .args(["serve", "--roles", "worker", "--listen", "127.0.0.1:0", "--worker-slots", "4"])
            .args(["--database-connections", "6", "--log-format", "text"])
            .env("TUNELOOP_LEASE_SECONDS", "5")
            .arg("--dataset-store")
            .arg(self.directory.path().join("datasets"))
            .env("DATABASE_URL", &self.database.url)
            .env("OPENAI_API_KEY", "sk-test")
            .env("OPENAI_BASE_URL", &self.provider_url)
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    /// A worker that looks at the table ten times a second.
    pub(crate) fn worker(&self) -> Worker {
        let mut command = self.command();
        command.args(["--poll-interval-ms", "100"]);
        Worker::start(command)
    }

    /// A worker that has come to a point and goes no further.
    pub(crate) async fn halted(&self, point: &str) -> Worker {
        self.halted_until(point, None).await
    }

    /// The same, until `file` exists.
    pub(crate) async fn halted_until(&self, point: &str, file: Option<&Path>) -> Worker {
        let mut command = self.command();
        command.args(["--poll-interval-ms", "100"]).env("TUNELOOP_HALT_AT", point);
        command.envs(file.map(|file| ("TUNELOOP_HALT_UNTIL", file)));
        let mut worker = Worker::start(command);
        worker.says(&format!("halted at {point}")).await;
        worker
    }

    pub(crate) async fn run(&self, id: Uuid) -> Run {
        runs::by_id(&self.database.pool, id).await.unwrap().unwrap()
    }

    pub(crate) async fn training(&self, id: Uuid) -> Training {
        let id = self.run(id).await.training_id.unwrap();
        runs::training_by_id(&self.database.pool, id).await.unwrap().unwrap()
    }

    /// Waits for something that has to happen.
    pub(crate) async fn until(&self, what: &str, happened: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !happened().await {
            assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the run is as `is` wants it.
    pub(crate) async fn run_where(&self, id: Uuid, what: &str, is: impl Fn(&Run) -> bool) -> Run {
        self.until(what, async || is(&self.run(id).await)).await;
        self.run(id).await
    }

    pub(crate) async fn ended(&self, id: Uuid) -> RunStatus {
        let run = self.run_where(id, "the run ends", |run| run.status.finished()).await;
        // What is cleaned up after it belongs to it.
        let left = "SELECT count(*) FROM jobs WHERE state IN ('ready', 'leased')";
        self.until("its jobs end", async || self.number(left).await == 0).await;
        run.status
    }

    pub(crate) async fn cancel(&self, id: Uuid) {
        let mut tx = self.database.pool.begin().await.unwrap();
        let run = runs::lock(&mut tx, id).await.unwrap();
        runs::request(&mut tx, run, Request::Cancel, None, &By::system()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One number from the database.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }

    /// The kind of every traffic revision, oldest first, with the candidate's weight.
    pub(crate) async fn revisions(&self) -> Vec<(String, i32)> {
        sqlx::query_as(
            "SELECT kind, coalesce(weight, 0) FROM traffic_revisions r
               LEFT JOIN experiments e ON e.id = r.experiment_id
               LEFT JOIN traffic_weights w ON w.pipeline = r.pipeline AND w.revision = r.revision
                                          AND w.model_version_id = e.candidate_id
              WHERE r.pipeline = 'hook' ORDER BY r.revision",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap()
    }

    /// Changes the configuration of the pipeline.
    pub(crate) async fn configure(&self, change: impl FnOnce(&mut PipelineConfig)) {
        let mut tx = self.database.pool.begin().await.unwrap();
        let mut config = pipelines::by_name(&mut *tx, "hook").await.unwrap().unwrap().config;
        change(&mut config);
        pipelines::save(&mut tx, &Clock::system(), "hook", &config, &By::system()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The content of every table, as one digest each.
    pub(crate) async fn content(&self) -> Vec<(String, String)> {
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&self.database.pool).await.unwrap();
        let mut content = Vec::new();
        for table in tables {
            let query = format!(
                "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM \"{table}\" t"
            );
            let digest = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&self.database.pool).await;
            content.push((table, digest.unwrap()));
        }
        content
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(people) = &self.people {
            people.abort();
        }
    }
}

async fn seed(database: &TestDatabase, shape: Shape) {
    sqlx::query(
        "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate)
         SELECT 'persona-' || n, 'About ' || n, 'Hook ' || n, 'Body ' || n, 0.1 FROM generate_series(1, 60) n",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let config = json!({
        "serving_model": "gpt-4o",
        // Enough is set aside for a file of its own.
        "dataset": {"minimum_examples": 10, "split": {"validation_share": 0.4}},
        "training": {
            "base_model": "gpt-4o-2024-08-06", "poll_seconds": 0.1, "maximum_poll_seconds": 0.5, "settle_seconds": shape.settle_seconds,
            "delete_files": true,
        },
        "evaluation": {
            "smoke": {"prompts": 2}, "comparison": {"by": "judge", "model": "gpt-4o", "examples": 3},
        },
        "schedule": {"enabled": false},
        "experiment": {
            "horizon_seconds": shape.horizon_seconds, "candidate_weight": 5000, "interval_seconds": 0.1,
            // Thousands of scenarios may run without one that is invalid by chance.
            "rules": {
                "minimum_outcomes": 10, "minimum_clusters": 5, "minimum_hours": 0, "sample_ratio_alpha": 1e-9,
                "harm_minimum_outcomes": 10, "harm_minimum_clusters": 5, "harm_alpha": 1e-6,
            },
        },
        "watch": {
            "duration_seconds": shape.watch_seconds, "interval_seconds": 0.1, "hold_back_weight": 3000,
        },
    });
    let config = serde_json::from_value(config).unwrap();
    let mut tx = database.pool.begin().await.unwrap();
    pipelines::save(&mut tx, &Clock::system(), "hook", &config, &By::system()).await.unwrap();
    tx.commit().await.unwrap();
}

/// People who are served by the traffic in force during tests and watches, and whose engagement is reported.
async fn people(pool: sqlx::PgPool, harmful: bool) {
    for round in 0_u32.. {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut tx = pool.begin().await.unwrap();
        let revision = traffic::current(&mut tx, "hook").await.unwrap().unwrap();
        if revision.experiment_id.is_none() {
            continue;
        }
        let promoted = revision.live().unwrap().version != Version::BASE;
        let batch = (0..40_u32).map(|n| {
            let unit = format!("unit-{round}-{n}");
            let weights = revision.shares.iter().map(|share| share.weight);
            let share = share_of(bucket(&revision.salt, &unit), weights).unwrap();
            let version = revision.shares[share].version;
            let mean = match (version == Version::BASE, promoted && harmful) {
                (true, _) => 0.05,
                (false, false) => 0.10,
                (false, true) => 0.01,
            };
            let noise = f64::from((round * 17 + n * 7) % 11) / 1000.0;
            outcome(&unit, version, revision.revision, mean + noise)
        });
        let how =
            Recording { now: Clock::system().now(), retention: TimeDelta::days(1), repeats: Repeats::Keep };
        outcomes::record(&mut tx, batch.map(Ok).collect(), how).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn outcome(unit: &str, version: Version, revision: i64, engagement_rate: f64) -> Outcome {
    serde_json::from_value(json!({
        "id": unit, "pipeline": "hook", "version": version, "unit": unit, "served_at": Clock::system().now(),
        "revision": revision, "engagement_rate": engagement_rate,
    }))
    .unwrap()
}
