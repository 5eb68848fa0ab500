//! The whole service in the test's own process, on a database of its own, with a simulated provider.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tuneloop::api::auth::{Role, create_key};
use tuneloop::audit::Actor;
use tuneloop::clock::Clock;
use tuneloop::config::Secret;
use tuneloop::dataset::{DatasetStore, Sources};
use tuneloop::jobs::{self, WorkerSettings};
use tuneloop::notifications::NotificationSettings;
use tuneloop::outbound::TargetRules;
use tuneloop::preflight::PriceTable;
use tuneloop::publication::Reach;
use tuneloop::service::{Service, ServiceError};
use tuneloop::simulator::{Settings, Simulator};
use tuneloop::standard_webhooks::WebhookSecret;
use tuneloop::telemetry::metrics::Metrics;
use tuneloop::tracking::MlflowSettings;
use tuneloop::trainers::{ApiKey, OpenAiSettings, OpenAiTrainer, Trainers};

use super::client::Client;
use super::database::{TestDatabase, fresh_database};

/// Bounds every wait: a machine that is busy with other things must not fail a test.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the provider charges: a token costs a dollar, so that the small datasets of tests cost something.
const PRICES: &str = r#"{"currency": "USD", "models": {"gpt-4o-2024-08-06": {"training_per_million_tokens": 1000000},
        "gpt-4o": {"input_per_million_tokens": 1000000, "output_per_million_tokens": 2000000}}}"#;

/// What the provider signs its notices with.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_dHVuZWxvb3AncyB0ZXN0cw==";

/// Time between two looks at what a test waits for.
const LOOK: Duration = Duration::from_millis(100);

/// A running service. [`TestService::end`] stops it and must be called.
pub(crate) struct TestService {
    /// With an admin key.
    client: Client,
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) simulator: Simulator,
    /// The variables that sources may name, in place of the environment's.
    pub(crate) variables: Arc<Mutex<HashMap<String, String>>>,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), ServiceError>>>,
    _datasets: tempfile::TempDir,
    _database: TestDatabase,
}

/// Receivers of tests are on this machine.
pub(crate) const LOCAL: TargetRules = TargetRules { allow_private: true };

impl TestService {
    /// A service whose provider trains in a moment.
    pub(crate) async fn start() -> Self {
        Self::with_training_time(Duration::from_millis(300)).await
    }

    /// A service that tells an MLflow server of what it does.
    pub(crate) async fn with_mlflow(mlflow: MlflowSettings, training_time: Duration) -> Self {
        Self::start_with(training_time, Reach::default(), LOCAL, Some(mlflow)).await
    }

    /// A service whose provider takes this long for a training.
    pub(crate) async fn with_training_time(training_time: Duration) -> Self {
        Self::start_with(training_time, Reach::default(), LOCAL, None).await
    }

    /// A service whose pipelines may publish to what is in reach, which calls what these rules allow, and which tells an MLflow server if there is one.
    pub(crate) async fn start_with(
        training_time: Duration,
        reach: Reach,
        target_rules: TargetRules,
        mlflow: Option<MlflowSettings>,
    ) -> Self {
        let database = fresh_database().await;
        let clock = Clock::system();
        let stop = CancellationToken::new();
        let settings = Settings { training_time, ..Settings::default() };
        let simulator = Simulator::new(settings, clock.clone());
        let (listener, provider) = listen().await;
        let (serving, end) = (simulator.clone(), stop.clone().cancelled_owned());
        tokio::spawn(async move { serving.serve(listener, end).await });

        let openai = OpenAiSettings::new(format!("{provider}/v1"), ApiKey::new("sk-test"));
        let openai = OpenAiTrainer::new(&openai, &clock).expect("reaches the provider");
        let datasets = tempfile::tempdir().expect("makes a directory");
        let db = tuneloop::database::connect(&database.url, 10).await.expect("connects");
        // What the environment would say.
        let variables = Arc::new(Mutex::new(HashMap::<String, String>::new()));
        let looked_up = variables.clone();
        let lookup =
            move |name: &str| looked_up.lock().expect("is not poisoned").get(name).cloned().map(Secret::new);
        let service = Service {
            sources: Sources::new(db.clone()).with_lookup(Arc::new(lookup)),
            db,
            clock: clock.clone(),
            metrics: Metrics::new().expect("makes the metrics"),
            datasets: DatasetStore::local(datasets.path()).expect("opens the store"),
            trainers: Trainers::new().with_openai(openai),
            prices: PriceTable::parse(PRICES).expect("is a price table"),
            outcome_retention: chrono::TimeDelta::days(400),
            target_rules,
            notifications: NotificationSettings::default(),
            webhook_secret: Some(WebhookSecret::new(WEBHOOK_SECRET).expect("is a secret")),
            reach,
            mlflow,
            roles: "api,worker,scheduler".parse().expect("names roles"),
            worker: WorkerSettings {
                slots: 8,
                // Longer than a test waits: a lease that is left to run out fails it.
                lease: Duration::from_mins(10),
                poll_interval: Duration::from_millis(500),
                grace: Duration::from_secs(20),
            },
        };
        let (listener, base) = listen().await;
        let running = tokio::spawn(service.run(listener, stop.clone()));
        let db = database.pool.clone();
        let client = Client::new(base, new_key(&db, &clock, "admin", Role::Admin).await);
        Self {
            client,
            db,
            clock,
            simulator,
            variables,
            stop,
            running: Some(running),
            _datasets: datasets,
            _database: database,
        }
    }

    /// A client with a new key of this role; the key's name is the role's.
    pub(crate) async fn client_as(&self, role: Role) -> Client {
        self.client.with_key(new_key(&self.db, &self.clock, role.as_str(), role).await)
    }

    /// A pipeline with short times whose test and approval last until the test ends them; `change` may set
    /// more.
    pub(crate) async fn pipeline(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut config = config();
        change(&mut config);
        self.put(&format!("/v1/pipelines/{name}"), &[], config).await.expect(201);
    }

    /// Adds posts with texts of their own and this engagement.
    pub(crate) async fn posts(&self, count: i32, engagement_rate: f64) {
        sqlx::query(
            "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate)
             SELECT 'persona-' || n % 7, 'input ' || n || ' of ' || $2, 'hook ' || n || ' of ' || $2,
                    'body ' || n || ' of ' || $2, $2
               FROM generate_series(1, $1) n",
        )
        .bind(count)
        .bind(engagement_rate)
        .execute(&self.db)
        .await
        .expect("inserts posts");
    }

    /// Triggers a run and returns its id.
    pub(crate) async fn trigger(&self, pipeline: &str) -> String {
        let run = self.post(&format!("/v1/pipelines/{pipeline}/runs"), Value::Null).await.expect(202);
        run["id"].as_str().expect("a run has an id").to_owned()
    }

    pub(crate) async fn run(&self, id: &str) -> Value {
        self.read(&format!("/v1/runs/{id}")).await
    }

    /// The run once `condition` holds of it.
    pub(crate) async fn wait_for(&self, id: &str, wanted: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut run = Value::Null;
        let holds = async {
            loop {
                run = self.run(id).await;
                if condition(&run) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, holds).await.is_ok();
        assert!(in_time, "the run never was {wanted}: {run:#}");
        run
    }

    /// The run once it has this status.
    pub(crate) async fn wait_until(&self, id: &str, status: &str) -> Value {
        // A run that has ended another way is not going to change.
        let ended = |run: &Value| run["status"] == status || run.get("finished_at").is_some();
        let run = self.wait_for(id, status, ended).await;
        assert_eq!(run["status"], status, "{run:#}");
        run
    }

    /// The run once its test has begun.
    pub(crate) async fn wait_for_test(&self, id: &str) -> Value {
        self.wait_for(id, "in test", |run| run["step"] == "test" && run.get("experiment_id").is_some()).await
    }

    /// The run once its model is live and watched.
    pub(crate) async fn wait_for_watch(&self, id: &str) -> Value {
        self.wait_for(id, "watched", |run| run["step"] == "watch").await
    }

    /// Moves the horizon of the run's test to now, so that nothing depends on how fast outcomes arrive.
    pub(crate) async fn reach_horizon(&self, run: &str) {
        let mut tx = self.db.begin().await.expect("begins");
        let moved =
            sqlx::query("UPDATE experiments SET horizon_at = clock_timestamp() WHERE run_id = $1::uuid")
                .bind(run)
                .execute(&mut *tx)
                .await
                .expect("moves the horizon");
        assert_eq!(moved.rows_affected(), 1);
        tx.commit().await.expect("commits");
        self.wake(run).await;
    }

    /// Moves every change of traffic a thousand seconds back, so that a step of that length is over when the test says so
    /// and not while it still sends outcomes.
    pub(crate) async fn let_a_step_pass(&self) {
        let moved = "SET session_replication_role = replica;
                     UPDATE traffic_revisions SET created_at = created_at - interval '1000 seconds';
                     RESET session_replication_role";
        sqlx::raw_sql(moved).execute(&self.db).await.expect("moves the changes");
    }

    /// Time for a run to look several times, at the interval of [`config`].
    pub(crate) async fn some_looks(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Approves a run whose test was inconclusive.
    pub(crate) async fn approve(&self, run: &str) {
        self.post(&format!("/v1/runs/{run}/approve"), json!({"reason": "it reads better"})).await.expect(202);
    }

    /// Has the run look at its test now.
    pub(crate) async fn wake(&self, run: &str) {
        let mut tx = self.db.begin().await.expect("begins");
        jobs::wake(&mut tx, tuneloop::runs::JOB_KIND, run).await.expect("wakes the run");
        tx.commit().await.expect("commits");
    }

    /// Waits until another session waits for a lock of the session with this process id.
    pub(crate) async fn until_blocked_by(&self, pid: i32) {
        self.until(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))",
            pid,
        )
        .await;
    }

    /// Waits until the session with this process id waits for a lock.
    pub(crate) async fn until_blocked(&self, pid: i32) {
        self.until("SELECT pg_blocking_pids($1) <> '{}'", pid).await;
    }

    async fn until(&self, holds: &'static str, pid: i32) {
        let holds = async {
            while !sqlx::query_scalar::<_, bool>(holds).bind(pid).fetch_one(&self.db).await.expect("asks") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, holds).await.is_ok(), "nobody waits for a lock");
    }

    /// The versions of a pipeline and their statuses, newest first.
    pub(crate) async fn versions(&self, pipeline: &str) -> Vec<(String, String)> {
        let models = self.read(&format!("/v1/pipelines/{pipeline}/models")).await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let items = models["items"].as_array().expect("a list");
        items.iter().map(|model| (text(&model["version"]), text(&model["status"]))).collect()
    }

    /// The weights in force, in the order of accumulation.
    pub(crate) async fn weights(&self, pipeline: &str) -> Vec<(String, i64)> {
        let traffic = self.read(&format!("/v1/pipelines/{pipeline}/traffic")).await;
        let weights = traffic["weights"].as_array().expect("a list").iter();
        weights
            .map(|share| (share["version"].as_str().expect("a version").to_owned(), share["weight"].as_i64()))
            .map(|(version, weight)| (version, weight.expect("a weight")))
            .collect()
    }

    /// Waits until the jobs that are left are those of runs that go on, then stops the service, which must
    /// end without an error.
    pub(crate) async fn end(mut self) {
        let amiss = "SELECT coalesce(j.kind || ' ' || j.subject, 'none for ' || r.id)
                       FROM (SELECT * FROM jobs WHERE state IN ('ready', 'leased') AND kind NOT IN ('outcome_pull', 'outcome_judge', 'model_check', 'publish', 'tracking')) j
                       FULL JOIN (SELECT id FROM runs WHERE finished_at IS NULL) r
                         ON j.kind = 'run' AND j.subject = r.id::text
                      WHERE j.id IS NULL OR r.id IS NULL";
        let mut left: Vec<String> = Vec::new();
        let drained = async {
            loop {
                left = sqlx::query_scalar(amiss).fetch_all(&self.db).await.expect("reads the jobs");
                if left.is_empty() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let drained = tokio::time::timeout(PATIENCE, drained).await.is_ok();
        assert!(drained, "jobs and runs do not belong together: {left:?}");
        self.stop.cancel();
        let running = self.running.take().expect("ends once");
        let ended = tokio::time::timeout(PATIENCE, running).await.expect("the service ends");
        ended.expect("no part panics").expect("the service ends without an error");
        let leased = "SELECT count(*) FROM jobs WHERE state = 'leased'";
        let leased: i64 = sqlx::query_scalar(leased).fetch_one(&self.db).await.expect("reads the jobs");
        assert_eq!(leased, 0, "a worker that ends gives its leases back");
    }
}

impl Deref for TestService {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        let ended = self.running.is_none() || std::thread::panicking();
        assert!(ended, "the test must call `end`, which checks how the service ended");
    }
}

/// A configuration with short times. The horizon is far away: see [`TestService::reach_horizon`]. Chance alone
/// would fail one valid test in a thousand at the default level of the sample-ratio check.
pub(crate) fn config() -> Value {
    json!({
        "serving_model": "gpt-4o",
        "dataset": {"minimum_examples": 10, "split": {"validation_share": 0}},
        "training": {"base_model": "gpt-4o-2024-08-06", "poll_seconds": 0.1, "maximum_poll_seconds": 0.5, "settle_seconds": 1.0},
        "schedule": {"enabled": false},
        "experiment": {
            "horizon_seconds": 3600.0, "candidate_weight": 5000, "interval_seconds": 0.25,
            "approval_seconds": 3600.0,
            "rules": {
                "minimum_hours": 0.0, "minimum_outcomes": 20, "minimum_clusters": 10,
                "harm_minimum_outcomes": 20, "harm_minimum_clusters": 10, "sample_ratio_alpha": 1e-9,
            },
        },
        "watch": {"duration_seconds": 0.5, "interval_seconds": 0.25, "hold_back_weight": 1000},
    })
}

async fn new_key(db: &PgPool, clock: &Clock, name: &str, role: Role) -> String {
    let mut conn = db.acquire().await.expect("connects");
    create_key(&mut conn, clock, name, role, Actor::System).await.expect("creates a key").plaintext
}

/// A free port of this machine, and its address as a URL.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let base = format!("http://{}", listener.local_addr().expect("has an address"));
    (listener, base)
}
