//! What holding a job is worth, and for how long.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::{PgPool, Postgres, Transaction};
use tuneloop::jobs::lease::FenceError;
use tuneloop::jobs::{Done, JobError, Lease, LeaseLost, WorkerSettings};

use crate::database::fresh_database;
use crate::support::{
    Gate, Running, Script, create_notes, enqueue, expire, notes, polling, row, settings, sql, until_state,
    within,
};

/// A worker that looks for no other job while it has one.
fn single() -> WorkerSettings {
    WorkerSettings { slots: 1, ..settings() }
}

/// A script that stops at the gate and then does something with its lease.
fn gated(
    gate: &Gate,
    then: impl for<'a> Fn(&'a Lease) -> futures_util::future::BoxFuture<'a, Result<Done, JobError>>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Script {
    let gate = gate.clone();
    Script::new(move |lease| {
        let (gate, then) = (gate.clone(), then.clone());
        async move {
            gate.pass().await;
            then(lease).await
        }
        .boxed()
    })
}

fn finishing(gate: &Gate) -> Script {
    gated(gate, |_| async { Ok(Done::Finished) }.boxed())
}

fn is_lost(result: &Result<(), FenceError>) -> bool {
    matches!(result, Err(FenceError::Lost(LeaseLost)))
}

/// Tries every write that a lease allows, each in a transaction that is committed all the same.
async fn try_all(db: &PgPool, lease: &Lease) -> Vec<(&'static str, bool)> {
    async fn begin(db: &PgPool) -> Transaction<'static, Postgres> {
        db.begin().await.unwrap()
    }
    let mut lost = Vec::new();
    let mut tx = begin(db).await;
    lost.push(("fence", is_lost(&lease.fence(&mut tx).await)));
    tx.commit().await.unwrap();
    let mut tx = begin(db).await;
    lost.push(("finish", is_lost(&lease.finish(&mut tx).await)));
    tx.commit().await.unwrap();
    let mut tx = begin(db).await;
    lost.push(("reschedule", is_lost(&lease.reschedule(&mut tx, Duration::ZERO).await)));
    tx.commit().await.unwrap();
    lost.push(("renew", is_lost(&lease.renew(db).await)));
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_worker_changes_nothing_while_another_has_the_job_nor_after_it_is_done() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "contested").await;
    let (stale_gate, fresh_gate) = (Gate::default(), Gate::default());
    let tried: Arc<Mutex<Vec<(&str, bool)>>> = Arc::default();
    let (pool, seen, second) = (db.clone(), tried.clone(), Gate::default());
    let again = second.clone();
    let stale = gated(&stale_gate, move |lease| {
        let (db, seen, again) = (pool.clone(), seen.clone(), again.clone());
        async move {
            let results = try_all(&db, lease).await;
            seen.lock().unwrap().extend(results);
            again.pass().await;
            let results = try_all(&db, lease).await;
            seen.lock().unwrap().extend(results);
            Ok(Done::Finished)
        }
        .boxed()
    });
    let stale = Running::start(db, single(), stale);
    stale_gate.arrival().await;
    expire(db, "contested").await;
    let fresh = Running::start(db, polling(), finishing(&fresh_gate));
    fresh_gate.arrival().await;
    let taken = row(db, "contested").await;
    assert_eq!(taken["attempt"], 2);

    stale_gate.open();
    second.arrival().await;
    assert_eq!(row(db, "contested").await, taken);

    fresh_gate.open();
    let done = until_state(db, "contested", "done").await;
    second.open();
    let metrics = stale.metrics.clone();
    stale.stop().await;
    assert_eq!(row(db, "contested").await, done);
    let tried = tried.lock().unwrap().clone();
    let ways = ["fence", "finish", "reschedule", "renew"];
    assert_eq!(tried, [ways, ways].concat().iter().map(|way| (*way, true)).collect::<Vec<_>>());
    let metrics = metrics.encode().unwrap();
    assert!(metrics.contains("tuneloop_lease_lost_total{kind=\"test\"} 1"), "{metrics}");
    fresh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_of_finished_jobs_only_those_still_held_end() {
    let database = fresh_database().await;
    let db = &database.pool;
    enqueue(db, "kept").await;
    enqueue(db, "stolen").await;
    let barrier = Arc::new(tokio::sync::Barrier::new(3));
    let inside = barrier.clone();
    let script = Script::new(move |_| {
        let barrier = inside.clone();
        async move {
            barrier.wait().await;
            barrier.wait().await;
            Ok(Done::Finished)
        }
        .boxed()
    });
    let worker = Running::start(db, WorkerSettings { slots: 2, ..settings() }, script);
    within("both run", barrier.wait()).await;
    sql(db, "UPDATE jobs SET lease_token = gen_random_uuid() WHERE subject = $1", "stolen").await;
    let stolen = row(db, "stolen").await;
    within("both end", barrier.wait()).await;
    until_state(db, "kept", "done").await;
    let metrics = worker.metrics.clone();
    worker.stop().await;
    assert_eq!(row(db, "stolen").await, stolen);
    let metrics = metrics.encode().unwrap();
    assert!(metrics.contains("tuneloop_jobs_finished_total{kind=\"test\",state=\"done\"} 1"), "{metrics}");
    assert!(metrics.contains("tuneloop_lease_lost_total{kind=\"test\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_stale_worker_is_not_recorded() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    for error in [
        || JobError::Fatal { code: "no_model".into(), message: "there is no model".into() },
        || JobError::Retryable { message: "no luck".into(), retry_after: None },
        || JobError::LeaseLost,
    ] {
        enqueue(db, "contested").await;
        let (stale_gate, fresh_gate) = (Gate::default(), Gate::default());
        let stale = gated(&stale_gate, move |_| async move { Err(error()) }.boxed());
        let stale = Running::start(db, single(), stale);
        stale_gate.arrival().await;
        expire(db, "contested").await;
        let fresh = Running::start(db, polling(), finishing(&fresh_gate));
        fresh_gate.arrival().await;
        let taken = row(db, "contested").await;
        stale_gate.open();
        stale.stop().await;
        assert_eq!(row(db, "contested").await, taken);
        assert!(notes(db, "contested").await.is_empty(), "the hook's transaction was rolled back");
        fresh_gate.open();
        until_state(db, "contested", "done").await;
        fresh.stop().await;
        sql(db, "DELETE FROM jobs WHERE subject = $1", "contested").await;
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn work_that_exceeds_its_lease_is_stopped_before_it_is_tried_again() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "slow").await;
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    let script = Script::new(move |lease| {
        let flag = flag.clone();
        async move {
            if lease.attempt > 1 {
                assert!(flag.load(Ordering::SeqCst), "the first attempt still runs");
                return Ok(Done::Finished);
            }
            let _dropped = SetOnDrop(flag);
            std::future::pending().await
        }
        .boxed()
    });
    let lease = Duration::from_secs(1);
    let worker = Running::start(db, WorkerSettings { lease, ..settings() }, script);
    until_state(db, "slow", "done").await;
    worker.stop().await;
    assert_eq!(notes(db, "slow").await, ["retried: the step did not finish within its lease"]);
}

#[tokio::test]
async fn a_renewed_lease_lasts_longer_here_and_in_the_table() {
    let database = fresh_database().await;
    let db = &database.pool;
    create_notes(db).await;
    enqueue(db, "long").await;
    let runs = Arc::new(AtomicU32::new(0));
    let (pool, counted) = (db.clone(), runs.clone());
    let script = Script::new(move |lease| {
        counted.fetch_add(1, Ordering::SeqCst);
        let db = pool.clone();
        async move {
            let first = lease.deadline();
            let expiry = row(&db, "long").await["lease_expires_at"].clone();
            while Instant::now() <= first {
                tokio::time::sleep(Duration::from_millis(100)).await;
                lease.renew(&db).await?;
            }
            assert!(lease.deadline() > first);
            let renewed = row(&db, "long").await["lease_expires_at"].clone();
            assert!(renewed.as_str() > expiry.as_str(), "{expiry} {renewed}");
            Ok(Done::Finished)
        }
        .boxed()
    });
    let lease = Duration::from_secs(2);
    let worker = Running::start(db, WorkerSettings { lease, ..settings() }, script);
    until_state(db, "long", "done").await;
    worker.stop().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1, "{:?}", notes(db, "long").await);
}

/// A renewal has to wait for the row that the work holds; the work must go on meanwhile, or both wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_holds_the_jobs_row_goes_on_while_the_lease_is_renewed() {
    let database = fresh_database().await;
    let db = database.pool.clone();
    let attempts = Arc::new(AtomicU32::new(0));
    let (held, counted) = (db.clone(), attempts.clone());
    let script = Script::new(move |lease| {
        let (db, attempts) = (held.clone(), counted.clone());
        async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            let work = async {
                let mut tx = db.begin().await?;
                lease.fence(&mut tx).await?;
                // Longer than a quarter of the lease, when it is renewed.
                tokio::time::sleep(Duration::from_secs(2)).await;
                tx.commit().await?;
                Ok::<_, JobError>(Done::Finished)
            };
            lease.keep(&db, work).await?
        }
        .boxed()
    });
    enqueue(&db, "held").await;
    let running = Running::start(&db, WorkerSettings { lease: Duration::from_secs(6), ..settings() }, script);
    until_state(&db, "held", "done").await;
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    running.stop().await;
}
