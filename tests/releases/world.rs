//! Two service processes on one database, with a provider that outlives them, and versions to release.

use std::process::Command;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tuneloop::api::auth::{Role, create_key};
use tuneloop::audit::{Actor, By};
use tuneloop::clock::Clock;
use tuneloop::pipelines;
use tuneloop::simulator::{Settings, Simulator};

use crate::database::{TestDatabase, fresh_database};
use crate::process::{LIMIT, Worker};

/// A version that can be released: its number, what the provider calls it, how it stands at first, and the verdict of its
/// test with the version it was tested against.
pub(crate) struct Candidate {
    pub(crate) version: &'static str,
    model: &'static str,
    pub(crate) status: &'static str,
    pub(crate) test: Option<(&'static str, &'static str)>,
}

pub(crate) const CANDIDATES: [Candidate; 5] = [
    Candidate {
        version: "1.0.0",
        model: "gpt-4o-mini",
        status: "candidate",
        test: Some(("promote", "0.0.0")),
    },
    Candidate { version: "1.1.0", model: "gpt-4.1", status: "candidate", test: Some(("promote", "1.0.0")) },
    Candidate {
        version: "1.2.0",
        model: "gpt-4.1-mini",
        status: "candidate",
        test: Some(("promote", "0.0.0")),
    },
    Candidate {
        version: "1.3.0",
        model: "gpt-3.5-turbo",
        status: "rejected",
        test: Some(("reject", "0.0.0")),
    },
    Candidate { version: "1.4.0", model: "gpt-4o-2024-08-06", status: "candidate", test: None },
];

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    directory: TempDir,
    provider_url: String,
    provider: JoinHandle<()>,
    replicas: [Replica; 2],
    /// The logs of processes that are no more.
    said: Mutex<Vec<String>>,
}

/// A service process and where it is to be found, which changes when it is started again.
struct Replica {
    url: Arc<RwLock<String>>,
    process: Mutex<Option<Worker>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let provider = Simulator::new(Settings::default(), Clock::system());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = provider.router();
        let provider = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let database = fresh_database().await;
        seed(&database.pool).await;
        let replica = || Replica { url: Arc::default(), process: Mutex::new(None) };
        let directory = tempfile::tempdir().unwrap();
        let (replicas, said) = ([replica(), replica()], Mutex::default());
        let world = Self { database, directory, provider_url, provider, replicas, said };
        tokio::join!(world.start(0), world.start(1));
        world
    }

    /// The addresses of the processes, in which a restart is seen.
    pub(crate) fn urls(&self) -> [Arc<RwLock<String>>; 2] {
        [self.replicas[0].url.clone(), self.replicas[1].url.clone()]
    }

    pub(crate) async fn key(&self, name: &str) -> String {
        let mut conn = self.database.pool.acquire().await.unwrap();
        create_key(&mut conn, &Clock::system(), name, Role::Operator, Actor::System).await.unwrap().plaintext
    }

    async fn start(&self, replica: usize) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
        for variable in ["RUST_LOG", "TUNELOOP_HALT_AT", "TUNELOOP_HALT_UNTIL", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        {
            command.env_remove(variable);
        }
        command
            .args(["serve", "--roles", "api", "--listen", "127.0.0.1:0", "--database-connections", "6"])
            .args(["--log-format", "json"])
            .arg("--dataset-store")
            .arg(self.directory.path())
            .env("DATABASE_URL", &self.database.url)
            .env("OPENAI_API_KEY", "sk-test")
            .env("OPENAI_BASE_URL", &self.provider_url)
            .env("NO_PROXY", "127.0.0.1");
        let mut process = Worker::start(command);
        process.says(r#""message":"started""#).await;
        let log = process.log();
        let started = log.lines().find(|line| line.contains(r#""message":"started""#)).unwrap();
        let started: Value = serde_json::from_str(started).unwrap();
        let address = started["address"].as_str().unwrap();
        *self.replicas[replica].url.write().unwrap() = format!("http://{address}");
        *self.replicas[replica].process.lock().unwrap() = Some(process);
    }

    /// SIGKILL, whatever the process is doing, and another in its place.
    pub(crate) async fn kill_and_restart(&self, replica: usize) {
        let process = self.replicas[replica].process.lock().unwrap().take().unwrap();
        self.said.lock().unwrap().push(process.log());
        process.kill();
        self.start(replica).await;
    }

    /// Waits until no transaction is left, also of processes that are no more.
    pub(crate) async fn quiet(&self) {
        let start = Instant::now();
        let open = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
                       AND backend_type = 'client backend'";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&self.database.pool).await.unwrap() > 0 {
            assert!(start.elapsed() < LIMIT, "a transaction is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.provider.abort();
        if std::thread::panicking() {
            let running =
                self.replicas.iter().filter_map(|replica| Some(replica.process.lock().ok()?.take()?.log()));
            let said: Vec<String> = self.said.lock().map(|said| said.clone()).unwrap_or_default();
            for log in said.into_iter().chain(running) {
                log.lines()
                    .filter(|line| line.contains("ERROR") || line.contains("WARN"))
                    .for_each(|line| println!("{line}"));
            }
        }
    }
}

async fn seed(pool: &PgPool) {
    let config = json!({
        "serving_model": "gpt-4o", "training": {"base_model": "gpt-4o-2024-08-06"}, "schedule": {"enabled": false},
    });
    let config = serde_json::from_value(config).unwrap();
    let mut tx = pool.begin().await.unwrap();
    pipelines::save(&mut tx, &Clock::system(), "hook", &config, &By::system()).await.unwrap();
    for candidate in &CANDIDATES {
        let numbers: Vec<i32> = candidate.version.split('.').map(|part| part.parse().unwrap()).collect();
        sqlx::query(
            "INSERT INTO model_versions
                    (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
             VALUES (gen_random_uuid(), 'hook', $1, $2, $3, $4, 'openai', $5, 'gpt-4o-2024-08-06')",
        )
        .bind(numbers[0])
        .bind(numbers[1])
        .bind(numbers[2])
        .bind(candidate.status)
        .bind(candidate.model)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    for candidate in &CANDIDATES {
        let Some((verdict, against)) = candidate.test else { continue };
        sqlx::query(
            "WITH versions AS (SELECT id, concat_ws('.', major, minor, patch) AS name FROM model_versions),
                  run AS (INSERT INTO runs (id, pipeline, config_version, trigger, status, finished_at)
                          VALUES (gen_random_uuid(), 'hook', 1, 'api', 'cancelled', now()) RETURNING id),
                  test AS (INSERT INTO experiments (id, pipeline, run_id, baseline_id, candidate_id, settings, status,
                                                    started_at, horizon_at, ended_at)
                           SELECT gen_random_uuid(), 'hook', run.id, baseline.id, candidate.id, '{}', 'decided',
                                  now() - interval '1 day', now(), now()
                             FROM run, versions baseline, versions candidate
                            WHERE candidate.name = $1 AND baseline.name = $2 RETURNING id)
             INSERT INTO decisions (id, experiment_id, verdict, record, digest)
             SELECT gen_random_uuid(), id, $3, '{}', repeat('0', 64) FROM test",
        )
        .bind(candidate.version)
        .bind(against)
        .bind(verdict)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}
