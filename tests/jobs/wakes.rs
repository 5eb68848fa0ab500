//! When a job runs: at once, at its time, once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgPool;
use tuneloop::jobs::{Done, JobError, Lease};

use crate::database::fresh_database;
use crate::support::{
    Gate, Running, Script, create_notes, enqueue, enqueue_in, polling, retryable, row, settings, sql,
    until_state, wake,
};

fn finishing() -> Script {
    Script::new(|_| async { Ok(Done::Finished) }.boxed())
}

/// A worker that has looked, found nothing more, and does not poll while the test lives.
async fn idle_worker(db: &PgPool, script: Script) -> Running {
    enqueue(db, "first").await;
    let worker = Running::start(db, settings(), script);
    until_state(db, "first", "done").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    worker
}

#[tokio::test]
async fn a_notification_wakes_a_worker_long_before_its_poll() {
    let database = fresh_database().await;
    let db = &database.pool;
    let worker = idle_worker(db, finishing()).await;
    enqueue(db, "second").await;
    until_state(db, "second", "done").await;
    worker.stop().await;
}

#[tokio::test]
async fn polling_finds_what_was_not_announced() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "first").await;
    let worker = Running::start(db, polling(), finishing());
    until_state(db, "first", "done").await;
    sql(db, "INSERT INTO jobs (kind, subject) VALUES ('test', $1)", "silent").await;
    until_state(db, "silent", "done").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_runs_at_its_time_without_a_poll() {
    let database = fresh_database().await;
    let db = &database.pool;
    let worker = idle_worker(db, finishing()).await;
    enqueue_in(db, "later", Duration::from_millis(300)).await;
    let done = until_state(db, "later", "done").await;
    worker.stop().await;
    let early = "SELECT FROM jobs WHERE subject = $1 AND finished_at < created_at + interval '300 ms'";
    assert_eq!(sql(db, early, "later").await, 0, "{done}");
}

#[tokio::test]
async fn a_wake_brings_a_waiting_job_forward_and_adds_a_missing_one() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue_in(db, "tomorrow", Duration::from_hours(24)).await;
    let worker = idle_worker(db, finishing()).await;
    assert_eq!(row(db, "tomorrow").await["state"], "ready");
    wake(db, "tomorrow").await;
    until_state(db, "tomorrow", "done").await;
    wake(db, "missing").await;
    until_state(db, "missing", "done").await;
    worker.stop().await;
}

/// How a handler lets go of its job.
type Way = for<'a> fn(&'a PgPool, &'a Lease) -> futures_util::future::BoxFuture<'a, Result<Done, JobError>>;

const WAYS: [(&str, Way); 4] = [
    ("finished by the worker", |_, _| async { Ok(Done::Finished) }.boxed()),
    ("finished in a transaction", |db, lease| {
        async {
            let mut tx = db.begin().await?;
            lease.finish(&mut tx).await?;
            tx.commit().await?;
            Ok(Done::Committed)
        }
        .boxed()
    }),
    ("rescheduled for tomorrow", |db, lease| {
        async {
            let mut tx = db.begin().await?;
            lease.reschedule(&mut tx, Duration::from_hours(24)).await?;
            tx.commit().await?;
            Ok(Done::Committed)
        }
        .boxed()
    }),
    ("to be tried again in an hour", |_, _| {
        async {
            Err(JobError::Retryable { message: "no luck".into(), retry_after: Some(Duration::from_hours(1)) })
        }
        .boxed()
    }),
];

#[tokio::test]
async fn a_job_woken_while_a_worker_holds_it_runs_once_more_however_it_is_let_go() {
    for (name, way) in WAYS {
        let database = fresh_database().await;
        let db = &database.pool;
        create_notes(db).await;
        let (gate, runs) = (Gate::default(), Arc::new(AtomicU32::new(0)));
        let (inside, counted, pool) = (gate.clone(), runs.clone(), db.clone());
        let script = Script::new(move |lease| {
            let (gate, runs, db) = (inside.clone(), counted.clone(), pool.clone());
            async move {
                if runs.fetch_add(1, Ordering::SeqCst) > 0 {
                    return Ok(Done::Finished);
                }
                gate.pass().await;
                way(&db, lease).await
            }
            .boxed()
        });
        enqueue(db, "woken").await;
        let worker = Running::start(db, settings(), script);
        gate.arrival().await;
        wake(db, "woken").await;
        wake(db, "woken").await;
        assert_eq!(row(db, "woken").await["state"], "leased", "{name}");
        gate.open();
        let done = until_state(db, "woken", "done").await;
        assert_eq!(done["woken"], false, "{name}");
        worker.stop().await;
        assert_eq!(runs.load(Ordering::SeqCst), 2, "{name}");
    }
}

#[tokio::test]
async fn a_rescheduled_job_runs_at_its_time_without_a_poll_and_its_attempts_count_anew() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    let runs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (pool, seen) = (db.clone(), runs.clone());
    let script = Script::new(move |lease| {
        let db = pool.clone();
        let mut seen = seen.lock().unwrap();
        seen.push(lease.attempt);
        let count = seen.len();
        async move {
            match count {
                1 => Err(retryable("no luck")),
                2 => {
                    let mut tx = db.begin().await?;
                    lease.reschedule(&mut tx, Duration::from_millis(200)).await?;
                    tx.commit().await?;
                    Ok(Done::Committed)
                }
                _ => Ok(Done::Finished),
            }
        }
        .boxed()
    });
    enqueue(db, "again").await;
    let worker = Running::start(db, settings(), script);
    until_state(db, "again", "done").await;
    worker.stop().await;
    assert_eq!(*runs.lock().unwrap(), [1, 2, 1]);
}
