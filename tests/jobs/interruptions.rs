//! Shutdown, kills and lost connections.

use std::time::Duration;

use futures_util::FutureExt;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tuneloop::jobs::{Done, WorkerSettings};

use crate::database::fresh_database;
use crate::support::{
    Gate, KIND, Running, Script, create_notes, enqueue, expire, notes, polling, row, settings, sql,
    until_state, within,
};

fn gated(gate: &Gate) -> Script {
    let gate = gate.clone();
    Script::new(move |_| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(Done::Finished)
        }
        .boxed()
    })
}

fn finishing() -> Script {
    Script::new(|_| async { Ok(Done::Finished) }.boxed())
}

#[tokio::test]
async fn at_shutdown_running_jobs_finish_and_no_more_are_claimed() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "running").await;
    let gate = Gate::default();
    let worker = Running::start(db, polling(), gated(&gate));
    gate.arrival().await;
    worker.ask_to_stop();
    enqueue(db, "waiting").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.open();
    worker.stop().await;
    assert_eq!(row(db, "running").await["state"], "done");
    let waiting = row(db, "waiting").await;
    assert_eq!((&waiting["state"], &waiting["attempt"]), (&"ready".into(), &0.into()));
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_given_back_uncounted_and_another_worker_told() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "endless").await;
    let gate = Gate::default();
    let impatient = WorkerSettings { slots: 1, grace: Duration::from_millis(50), ..settings() };
    let worker = Running::start(db, impatient, gated(&gate));
    gate.arrival().await;
    assert_eq!(row(db, "endless").await["attempt"], 1);

    // It has looked, found nothing, and does not poll while the test lives.
    let after = Gate::default();
    let other = Running::start(db, settings(), gated(&after));
    tokio::time::sleep(Duration::from_millis(200)).await;
    worker.stop().await;
    after.arrival().await;
    let row = row(db, "endless").await;
    assert_eq!((&row["state"], &row["attempt"]), (&"leased".into(), &1.into()), "{row}");
    after.open();
    until_state(db, "endless", "done").await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_killed_worker_are_taken_back() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "orphan").await;
    let url = database.url.clone();
    let killed = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let pool = PgPoolOptions::new().connect(&url).await.unwrap();
            let gate = Gate::default();
            let worker = Running::start(&pool, settings(), gated(&gate));
            gate.arrival().await;
            worker
        });
        // Everything stops where it stands.
        runtime.shutdown_background();
    });
    killed.await.unwrap();
    assert_eq!(row(db, "orphan").await["state"], "leased");
    expire(db, "orphan").await;
    let worker = Running::start(db, polling(), finishing());
    until_state(db, "orphan", "done").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_whose_workers_stop_each_time_fails_without_running_again() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    sql(
        db,
        "INSERT INTO jobs (kind, subject, state, attempt, max_attempts, lease_token, lease_expires_at)
         VALUES ('test', $1, 'leased', 3, 3, gen_random_uuid(), now() - interval '1 s')",
        "deadly",
    )
    .await;
    let worker = Running::start(db, polling(), Script::new(|_| async { panic!("must not run") }.boxed()));
    let failed = until_state(db, "deadly", "failed").await;
    worker.stop().await;
    let sentence = "the worker stopped 3 times before it was done";
    assert_eq!(failed["last_error"], sentence);
    assert_eq!(notes(db, "deadly").await, [format!("retries_exhausted: {sentence}")]);
}

/// Ends all sessions of this database but the one that asks.
async fn end_sessions(admin: &PgPool) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(admin)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_whose_connections_broke_looks_again_and_listens_again() {
    let database = fresh_database().await;
    let admin = PgPoolOptions::new().max_connections(1).connect(&database.url).await.unwrap();
    let worker = Running::start(&database.pool, settings(), finishing());
    enqueue(&admin, "before").await;
    until_state(&admin, "before", "done").await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    // Nobody announces it: the worker has to look because it may have missed something.
    sql(&admin, "INSERT INTO jobs (kind, subject) VALUES ('test', $1)", "missed").await;
    end_sessions(&admin).await;
    until_state(&admin, "missed", "done").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    enqueue(&admin, "after").await;
    until_state(&admin, "after", "done").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_whose_connections_break_goes_on_until_all_is_done() {
    let database = fresh_database().await;
    let admin = PgPoolOptions::new().max_connections(1).connect(&database.url).await.unwrap();
    sqlx::query("INSERT INTO jobs (kind, subject) SELECT $1, n::text FROM generate_series(1, 2000) AS n")
        .bind(KIND)
        .execute(&admin)
        .await
        .unwrap();
    let lease = Duration::from_secs(1);
    let worker = Running::start(&database.pool, WorkerSettings { lease, ..polling() }, finishing());
    within("all jobs are done", async {
        for round in 0.. {
            let left = sql(&admin, "SELECT FROM jobs WHERE state <> 'done' AND $1 = ''", "").await;
            if left == 0 {
                break;
            }
            if round < 5 {
                end_sessions(&admin).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    worker.stop().await;
}
