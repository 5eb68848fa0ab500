//! Who gets which job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::Value;
use tuneloop::jobs::{self, Done, WorkerSettings};

use crate::database::fresh_database;
use crate::support::{Gate, KIND, Running, Script, enqueue, polling, settings, sql, until_state, within};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_workers_one_runs_each_job_once() {
    const JOBS: i64 = 600;
    let database = fresh_database().await;
    let db = &database.pool;
    sqlx::query(
        "INSERT INTO jobs (kind, subject) SELECT $1, n::text FROM generate_series(1, $2::bigint) AS n",
    )
    .bind(KIND)
    .bind(JOBS)
    .execute(db)
    .await
    .unwrap();
    let runs: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let runs = runs.clone();
            Running::start(
                db,
                polling(),
                Script::new(move |lease| {
                    *runs.lock().unwrap().entry(lease.subject.clone()).or_default() += 1;
                    async {
                        tokio::task::yield_now().await;
                        Ok(Done::Finished)
                    }
                    .boxed()
                }),
            )
        })
        .collect();
    within("all jobs are done", async {
        while sql(db, "SELECT FROM jobs WHERE state <> 'done' AND $1 = ''", "").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    join_all(workers.into_iter().map(Running::stop)).await;
    let runs = runs.lock().unwrap();
    assert_eq!(runs.len(), usize::try_from(JOBS).unwrap());
    let twice: Vec<_> = runs.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test]
async fn a_row_that_somebody_else_has_locked_is_passed_over() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "locked").await;
    enqueue(db, "free").await;
    let mut other = db.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM jobs WHERE subject = 'locked' FOR UPDATE").execute(&mut *other).await.unwrap();
    let worker = Running::start(db, polling(), Script::new(|_| async { Ok(Done::Finished) }.boxed()));
    until_state(db, "free", "done").await;
    other.rollback().await.unwrap();
    until_state(db, "locked", "done").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_subject_has_one_unfinished_job_of_a_kind() {
    let database = fresh_database().await;
    let db = &database.pool;
    let added = join_all((0..8).map(|_| enqueue(db, "one"))).await;
    assert_eq!(added.iter().filter(|added| **added).count(), 1);
    let insert = "INSERT INTO jobs (kind, subject) VALUES ('test', $1)";
    let refused = sqlx::query(insert).bind("one").execute(db).await.unwrap_err();
    assert!(refused.as_database_error().unwrap().is_unique_violation());

    let mut conn = db.acquire().await.unwrap();
    let null = Value::Null;
    let other = jobs::enqueue(&mut conn, "other", "one", &null, Duration::ZERO).await;
    assert!(other.unwrap(), "another kind is another job");

    let worker = Running::start(db, settings(), Script::new(|_| async { Ok(Done::Finished) }.boxed()));
    within("the job of the worker's kind is done", async {
        while sql(db, "SELECT FROM jobs WHERE subject = $1 AND kind = 'test' AND state = 'done'", "one").await
            == 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    worker.stop().await;
    let other = "SELECT FROM jobs WHERE subject = $1 AND kind = 'other' AND state = 'ready'";
    assert_eq!(sql(db, other, "one").await, 1, "kinds without a handler are left alone");
    assert!(enqueue(db, "one").await, "after the end there is room for the next");
}

#[tokio::test]
async fn a_claim_after_a_burst_reads_no_more_rows_than_it_takes() {
    let database = fresh_database().await;
    let db = &database.pool;
    // The statistics still say that there are no jobs.
    sqlx::raw_sql(
        "ANALYZE jobs; ALTER TABLE jobs SET (autovacuum_enabled = off);
         INSERT INTO jobs (kind, subject) SELECT 'test', n::text FROM generate_series(1, 5000) AS n",
    )
    .execute(db)
    .await
    .unwrap();
    let gate = Gate::default();
    let inside = gate.clone();
    let held = Script::new(move |_| {
        let gate = inside.clone();
        async move {
            gate.pass().await;
            Ok(Done::Finished)
        }
        .boxed()
    });
    let read = "SELECT (coalesce(idx_tup_read, 0))::bigint FROM pg_stat_user_indexes WHERE indexrelname = $1";
    let worker = Running::start(db, WorkerSettings { grace: Duration::ZERO, ..settings() }, held);
    gate.arrival().await;
    // A session tells what it has read when it ends.
    worker.stop().await;
    let (mut ready, mut unfinished): (i64, i64) = (0, 0);
    within("the server tells what was read", async {
        while ready + unfinished == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            ready = sqlx::query_scalar(read).bind("jobs_ready").fetch_one(db).await.unwrap();
            unfinished = sqlx::query_scalar(read).bind("jobs_one_unfinished").fetch_one(db).await.unwrap();
        }
    })
    .await;
    assert!(ready + unfinished < 100, "read {ready} and {unfinished} entries for 4 jobs");
}
