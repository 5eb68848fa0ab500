//! A database with many pipelines, a provider with faults, and worker processes.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::pipelines;
use tuneloop::runs::{self, TriggerError};
use tuneloop::simulator::{FaultPlan, Settings, Simulator};

use crate::database::{TestDatabase, fresh_database};
use crate::process::Worker;

/// Only keeps a failing test from hanging.
const PATIENCE: Duration = Duration::from_mins(10);
/// Worker processes at once.
const WORKERS: usize = 3;
/// The most workers that are killed: where they start more slowly than they are killed, the runs end after the last kill.
const KILLS: u32 = 40;
/// The longest wait between two attempts: a run that meets ten faults one after the other would take ten minutes by itself.
const WAIT: &str = "interval '5 seconds'";

pub(crate) struct World {
    database: TestDatabase,
    pub(crate) provider: Simulator,
    provider_url: String,
    directory: TempDir,
    pipelines: usize,
    serving: JoinHandle<()>,
}

/// A training with how its run ended.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Trained {
    pub(crate) id: String,
    pub(crate) dataset_digest: String,
    pub(crate) validation_digest: Option<String>,
    pub(crate) duplicates: i32,
    pub(crate) status: String,
    #[expect(dead_code, reason = "shown where an assertion fails")]
    reason: Option<String>,
}

impl World {
    /// A provider whose time is `provider_time`: what a test hides and how far jobs are then depend on the test alone.
    pub(crate) async fn new(
        pipelines: usize,
        faults: FaultPlan,
        settle_seconds: f64,
        provider_time: Clock,
    ) -> Self {
        let settings = Settings { training_time: Duration::from_millis(300), faults, ..Settings::default() };
        let provider = Simulator::new(settings, provider_time);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider_url = format!("http://{}", listener.local_addr().unwrap());
        let router = provider.router();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let database = fresh_database().await;
        let directory = tempfile::tempdir().unwrap();
        let world = Self { database, provider, provider_url, directory, pipelines, serving };
        world.seed(settle_seconds).await;
        world
    }

    async fn seed(&self, settle_seconds: f64) {
        sqlx::query(
            "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate)
             SELECT 'persona-' || n, 'About ' || n, 'Hook ' || n, 'Body ' || n, 0.1 FROM generate_series(1, 60) n",
        )
        .execute(&self.database.pool)
        .await
        .unwrap();
        // Nobody is served: each test ends without evidence, and nobody decides.
        let config = json!({
            "serving_model": "gpt-4o",
            "dataset": {"minimum_examples": 10, "split": {"validation_share": 0.4}},
            "training": {
                "base_model": "gpt-4o-2024-08-06", "poll_seconds": 0.1, "maximum_poll_seconds": 0.5,
                "settle_seconds": settle_seconds,
            },
            "evaluation": {"smoke": {"prompts": 1}},
            "schedule": {"enabled": false},
            "experiment": {
                "horizon_seconds": 0.2, "interval_seconds": 0.1, "approval_seconds": 0.1,
                "rules": {"minimum_hours": 0},
            },
        });
        let config = serde_json::from_value(config).unwrap();
        for number in 0..self.pipelines {
            let mut tx = self.database.pool.begin().await.unwrap();
            pipelines::save(&mut tx, &Clock::system(), &format!("p{number}"), &config, &By::system())
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }

    fn worker(&self) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
        for variable in ["RUST_LOG", "TUNELOOP_HALT_AT", "TUNELOOP_HALT_UNTIL", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            command.env_remove(variable);
        }
        command
            .args(["serve", "--roles", "worker", "--listen", "127.0.0.1:0", "--worker-slots", "24"])
            .args(["--database-connections", "12", "--log-format", "text", "--poll-interval-ms", "200"])
            // Shorter than some answers take.
            .args(["--openai-timeout-seconds", "1", "--lease-seconds", "5"])
            .arg("--dataset-store")
            .arg(self.directory.path().join("datasets"))
            .env("DATABASE_URL", &self.database.url)
            .env("OPENAI_API_KEY", "sk-test")
            .env("OPENAI_BASE_URL", format!("{}/v1", self.provider_url))
            .env("NO_PROXY", "127.0.0.1");
        Worker::start(command)
    }

    /// Lets every pipeline have so many runs, one after the other, and waits until all have ended and nothing is left to do. With
    /// `moments` a worker is killed, and another started, at moments that they choose. Returns how many runs there were.
    pub(crate) async fn run_all(&self, each: usize, moments: Option<&Clock>) -> usize {
        let mut workers: Vec<Worker> = (0..WORKERS).map(|_| self.worker()).collect();
        let start = Instant::now();
        let mut wanted = vec![each; self.pipelines];
        let mut next_kill = Instant::now() + Duration::from_secs(3);
        let mut kills = 0;
        loop {
            for (number, left) in wanted.iter_mut().enumerate().filter(|(_, left)| **left > 0) {
                if self.trigger(number).await {
                    *left -= 1;
                }
            }
            if wanted.iter().all(|left| *left == 0) && self.number(LEFT).await == 0 {
                break;
            }
            self.shorten_waits().await;
            if let Some(moments) = moments.filter(|_| kills < KILLS && Instant::now() > next_kill) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "one of few")]
                let victim = (moments.fraction() * WORKERS as f64) as usize;
                std::mem::replace(&mut workers[victim], self.worker()).kill();
                kills += 1;
                next_kill = Instant::now() + Duration::from_secs(3).mul_f64(0.3 + moments.fraction());
            }
            let log = || workers.iter().map(Worker::log).collect::<Vec<_>>().join("\n");
            assert!(start.elapsed() < PATIENCE, "runs have not ended:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for worker in workers {
            worker.stop().await;
        }
        each * self.pipelines
    }

    async fn shorten_waits(&self) {
        let statement = format!(
            "UPDATE jobs SET run_at = now() + {WAIT} WHERE state = 'ready' AND run_at > now() + {WAIT}"
        );
        sqlx::query(AssertSqlSafe(statement)).execute(&self.database.pool).await.unwrap();
    }

    /// Whether a run could be started.
    async fn trigger(&self, number: usize) -> bool {
        let mut tx = self.database.pool.begin().await.unwrap();
        let pipeline = pipelines::by_name(&mut *tx, &format!("p{number}")).await.unwrap().unwrap();
        match runs::by_api(&mut tx, &Clock::system(), &pipeline, &By::system()).await {
            Ok(_) => {
                tx.commit().await.unwrap();
                true
            }
            Err(TriggerError::RunActive(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until there is nothing left that `query` counts.
    pub(crate) async fn until_none(&self, query: &str) {
        let none = async {
            while self.number(query).await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, none).await.is_ok(), "there always is some: {query}");
    }

    /// Changes what is stored, and wakes whatever waits for its time.
    pub(crate) async fn change(&self, statement: &str) {
        for statement in [statement, "UPDATE jobs SET run_at = now() WHERE state = 'ready'"] {
            sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.database.pool).await.unwrap();
        }
    }

    async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.database.pool).await.unwrap()
    }

    /// Every training.
    pub(crate) async fn trained(&self) -> Vec<Trained> {
        let query =
            "SELECT t.id::text, t.dataset_digest, t.validation_digest, t.duplicates, r.status, r.reason
                       FROM trainings t JOIN runs r ON r.id = t.run_id";
        sqlx::query_as(query).fetch_all(&self.database.pool).await.unwrap()
    }

    /// Faults that were dealt, by kind.
    pub(crate) async fn faults_dealt(&self) -> Value {
        let url = format!("{}/simulator/counts", self.provider_url);
        let counts: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        counts["faults"].clone()
    }
}

/// Runs that have not ended, and jobs that are left to do.
const LEFT: &str = "SELECT (SELECT count(*) FROM runs WHERE finished_at IS NULL)
                         + (SELECT count(*) FROM jobs WHERE state IN ('ready', 'leased'))";

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
