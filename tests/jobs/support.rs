//! Workers with handlers made of closures, and looks at the table.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tuneloop::clock::Clock;
use tuneloop::jobs::{self, Done, Handler, JobError, Lease, Worker, WorkerSettings};
use tuneloop::telemetry::metrics::Metrics;

pub(crate) const KIND: &str = "test";

/// Only keeps a failing test from hanging. Shorter than [`RARELY`], so that what needs a poll fails.
const LIMIT: Duration = Duration::from_mins(1);

/// A poll interval that no test lives to see.
pub(crate) const RARELY: Duration = Duration::from_mins(10);

type Work = dyn for<'a> Fn(&'a Lease) -> BoxFuture<'a, Result<Done, JobError>> + Send + Sync;

/// A handler for [`KIND`] that writes what its hooks are told into the table `notes`.
pub(crate) struct Script {
    work: Box<Work>,
    hook_fails: bool,
}

impl Script {
    pub(crate) fn new(
        work: impl for<'a> Fn(&'a Lease) -> BoxFuture<'a, Result<Done, JobError>> + Send + Sync + 'static,
    ) -> Self {
        Self { work: Box::new(work), hook_fails: false }
    }

    /// The hook `failed` writes its note and then fails.
    pub(crate) fn with_failing_hook(mut self) -> Self {
        self.hook_fails = true;
        self
    }
}

async fn note(conn: &mut PgConnection, lease: &Lease, note: String) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO notes VALUES ($1, $2)").bind(&lease.subject).bind(note).execute(conn).await?;
    Ok(())
}

impl Handler for Script {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        (self.work)(lease)
    }

    fn retried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        lease: &'a Lease,
        message: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        note(conn, lease, format!("retried: {message}")).boxed()
    }

    fn failed<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        lease: &'a Lease,
        code: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), JobError>> {
        async move {
            note(conn, lease, format!("{code}: {message}")).await?;
            if self.hook_fails { Err(retryable("the hook failed")) } else { Ok(()) }
        }
        .boxed()
    }
}

pub(crate) fn retryable(message: &str) -> JobError {
    JobError::Retryable { message: message.into(), retry_after: None }
}

/// A worker in this process.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub(crate) metrics: Metrics,
}

impl Running {
    pub(crate) fn start(db: &PgPool, settings: WorkerSettings, script: Script) -> Self {
        let metrics = Metrics::new().unwrap();
        let worker =
            Worker::new(db.clone(), Clock::system(), metrics.clone(), settings, vec![Arc::new(script)]);
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run(stop.clone()));
        Self { stop, task, metrics }
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        within("the worker stops", self.task).await.unwrap();
    }
}

/// Looks at the table only when it is told to.
pub(crate) fn settings() -> WorkerSettings {
    WorkerSettings { slots: 4, lease: Duration::from_mins(2), poll_interval: RARELY, grace: LIMIT }
}

pub(crate) fn polling() -> WorkerSettings {
    WorkerSettings { poll_interval: Duration::from_millis(20), ..settings() }
}

/// A gate in a handler: the test learns that the handler is there, and lets it go on.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    arrived: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    pub(crate) async fn pass(&self) {
        self.arrived.notify_one();
        self.opened.notified().await;
    }

    pub(crate) async fn arrival(&self) {
        within("the handler begins", self.arrived.notified()).await;
    }

    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

pub(crate) async fn enqueue(db: &PgPool, subject: &str) -> bool {
    enqueue_in(db, subject, Duration::ZERO).await
}

pub(crate) async fn enqueue_in(db: &PgPool, subject: &str, after: Duration) -> bool {
    let mut tx = db.begin().await.unwrap();
    let added = jobs::enqueue(&mut tx, KIND, subject, &Value::Null, after).await.unwrap();
    tx.commit().await.unwrap();
    added
}

pub(crate) async fn wake(db: &PgPool, subject: &str) {
    let mut tx = db.begin().await.unwrap();
    jobs::wake(&mut tx, KIND, subject).await.unwrap();
    tx.commit().await.unwrap();
}

/// Runs a statement about the job `$1` and returns how many rows it touched.
pub(crate) async fn sql(db: &PgPool, statement: &'static str, subject: &str) -> u64 {
    sqlx::query(statement).bind(subject).execute(db).await.unwrap().rows_affected()
}

/// What the next look of any worker takes for the trace of one that is gone.
pub(crate) async fn expire(db: &PgPool, subject: &str) {
    let statement =
        "UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE subject = $1 AND state = 'leased'";
    assert_eq!(sql(db, statement, subject).await, 1, "{subject} is leased");
}

/// The job's row, all of it.
pub(crate) async fn row(db: &PgPool, subject: &str) -> Value {
    sqlx::query_scalar("SELECT to_jsonb(jobs) FROM jobs WHERE subject = $1")
        .bind(subject)
        .fetch_one(db)
        .await
        .unwrap()
}

pub(crate) async fn until_state(db: &PgPool, subject: &str, state: &str) -> Value {
    within(&format!("{subject} is {state}"), async {
        loop {
            let row = row(db, subject).await;
            if row["state"] == state {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Where hooks write.
pub(crate) async fn create_notes(db: &PgPool) {
    sqlx::raw_sql("CREATE TABLE notes (subject text, note text)").execute(db).await.unwrap();
}

pub(crate) async fn notes(db: &PgPool, subject: &str) -> Vec<String> {
    sqlx::query_scalar("SELECT note FROM notes WHERE subject = $1 ORDER BY ctid")
        .bind(subject)
        .fetch_all(db)
        .await
        .unwrap()
}
