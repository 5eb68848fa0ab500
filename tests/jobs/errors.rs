//! How failed attempts end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tuneloop::jobs::{Done, JobError};

use crate::database::fresh_database;
use crate::support::{
    Gate, Running, Script, create_notes, enqueue, notes, retryable, row, settings, sql, until_state, within,
};

#[tokio::test]
async fn attempts_wait_longer_each_time_and_the_last_one_fails_the_job_with_its_error() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "unlucky").await;
    sql(db, "UPDATE jobs SET max_attempts = 2 WHERE subject = $1", "unlucky").await;
    let gate = Gate::default();
    let inside = gate.clone();
    let script = Script::new(move |lease| {
        let gate = inside.clone();
        async move {
            if lease.attempt == 2 {
                gate.pass().await;
            }
            Err(retryable(&format!("no luck {}", lease.attempt)))
        }
        .boxed()
    });
    let worker = Running::start(db, settings(), script);
    gate.arrival().await;
    // `run_at` is still the time that the first error set.
    let waited = "SELECT FROM jobs WHERE subject = $1 AND last_error = 'no luck 1'
                     AND run_at - created_at >= interval '0.5 s'";
    assert_eq!(sql(db, waited, "unlucky").await, 1);
    gate.open();
    let failed = until_state(db, "unlucky", "failed").await;
    worker.stop().await;
    assert_eq!(failed["last_error"], "no luck 2");
    assert_eq!(failed["attempt"], 2);
    assert!(failed["lease_token"].is_null() && !failed["finished_at"].is_null(), "{failed}");
    assert_eq!(notes(db, "unlucky").await, ["retried: no luck 1", "retries_exhausted: no luck 2"]);
}

#[tokio::test]
async fn a_wait_that_the_other_side_asks_for_is_kept() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "busy").await;
    let script = Script::new(|_| {
        async {
            Err(JobError::Retryable {
                message: "come back later".into(),
                retry_after: Some(Duration::from_mins(30)),
            })
        }
        .boxed()
    });
    let worker = Running::start(db, settings(), script);
    within("the attempt fails", async {
        while row(db, "busy").await["last_error"] != "come back later" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    worker.stop().await;
    let kept = "SELECT FROM jobs WHERE subject = $1 AND state = 'ready' AND attempt = 1
                   AND run_at - created_at BETWEEN interval '30 min' AND interval '31 min'";
    assert_eq!(sql(db, kept, "busy").await, 1);
}

#[tokio::test]
async fn a_fatal_error_fails_the_job_at_once() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "hopeless").await;
    let script = Script::new(|_| {
        async { Err(JobError::Fatal { code: "no_model".into(), message: "there is no model".into() }) }
            .boxed()
    });
    let worker = Running::start(db, settings(), script);
    let failed = until_state(db, "hopeless", "failed").await;
    worker.stop().await;
    assert_eq!((&failed["attempt"], &failed["last_error"]), (&1.into(), &"there is no model".into()));
    assert_eq!(notes(db, "hopeless").await, ["no_model: there is no model"]);
}

#[tokio::test]
async fn what_a_failing_hook_wrote_is_not_committed_and_neither_is_the_failure() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "hooked").await;
    let script = Script::new(|_| {
        async { Err(JobError::Fatal { code: "no_model".into(), message: "there is no model".into() }) }
            .boxed()
    });
    let worker = Running::start(db, settings(), script.with_failing_hook());
    until_state(db, "hooked", "leased").await;
    // The worker lets its running jobs end first.
    worker.stop().await;
    let row = row(db, "hooked").await;
    assert_eq!(row["state"], "leased", "{row}");
    assert!(row["last_error"].is_null() && row["finished_at"].is_null(), "{row}");
    assert!(notes(db, "hooked").await.is_empty());
}

#[tokio::test]
async fn a_panic_is_an_error_like_others() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "panics").await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let script = Script::new(move |_| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(run > 0, "the test's own panic");
            Ok(Done::Finished)
        }
        .boxed()
    });
    let worker = Running::start(db, settings(), script);
    until_state(db, "panics", "done").await;
    worker.stop().await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let notes = notes(db, "panics").await;
    assert!(notes.len() == 1 && notes[0].contains("internal error"), "{notes:?}");
}
