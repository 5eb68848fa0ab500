//! Hundreds of runs against a provider on whose answers nothing can be built, with workers that are killed: each
//! training is paid for once.
//!
//! `EXACTLY_ONCE_SEED` chooses other faults; the seed in use is printed.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../harness/database.rs"]
mod database;
#[path = "../killed/process.rs"]
#[expect(dead_code, reason = "nobody waits for what a worker says here")]
mod process;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tuneloop::clock::Clock;
use tuneloop::simulator::{FaultPlan, JobStatus, JobSummary};

use world::{Trained, World};

fn seed() -> u64 {
    let seed = std::env::var("EXACTLY_ONCE_SEED").map_or(20_261_126, |seed| seed.parse().unwrap());
    println!("EXACTLY_ONCE_SEED={seed}");
    seed
}

fn plan(plan: &Value) -> FaultPlan {
    FaultPlan::parse(&plan.to_string()).unwrap()
}

/// The provider's jobs by the training that they were created for.
fn jobs_by_training(world: &World) -> BTreeMap<String, Vec<JobSummary>> {
    let mut jobs: BTreeMap<String, Vec<JobSummary>> = BTreeMap::new();
    for job in world.provider.jobs() {
        jobs.entry(job.metadata["training_id"].clone()).or_default().push(job);
    }
    jobs
}

fn uncancelled(jobs: &[JobSummary]) -> usize {
    jobs.iter().filter(|job| job.status != JobStatus::Cancelled).count()
}

/// Every run has ended as it would have with a good provider.
fn all_have_ended_well(trained: &[Trained], runs: usize) {
    assert_eq!(trained.len(), runs);
    let others: Vec<_> = trained.iter().filter(|trained| trained.status != "inconclusive").collect();
    assert!(others.is_empty(), "runs that ended otherwise: {others:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_runs_pay_once_each_whatever_the_provider_and_the_kernel_do() {
    let seed = seed();
    // Lists tell of what was created a moment later, but within the settle time.
    let world = World::new(
        70,
        plan(&json!({
            "seed": seed,
            "rates": {
                "dropped_before": 0.04, "dropped_after": 0.06, "late": 0.04, "rate_limited": 0.06, "server_error": 0.04,
                "server_error_after": 0.04, "unavailable": 0.04, "malformed": 0.04, "truncated": 0.04,
            },
            "late_seconds": 1.5, "retry_after_seconds": 0.3, "jobs": {"hidden_seconds": 0.3, "unusual_statuses": true},
        })),
        // Much longer than anything is hidden, also on a machine that is busy with other things.
        6.0,
        Clock::system(),
    )
    .await;
    let moments = Clock::fixed(chrono::DateTime::UNIX_EPOCH, seed);
    let runs = world.run_all(3, Some(&moments)).await;
    assert!(runs >= 200, "{runs}");

    let trained = world.trained().await;
    all_have_ended_well(&trained, runs);
    let jobs = jobs_by_training(&world);
    let known: Vec<_> = trained.iter().map(|trained| trained.id.as_str()).collect();
    let strangers: Vec<_> = jobs.keys().filter(|id| !known.contains(&id.as_str())).collect();
    assert!(strangers.is_empty(), "jobs without a training: {strangers:?}");
    let files = world.provider.files();
    for trained in &trained {
        let of_training = jobs.get(&trained.id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(uncancelled(of_training), 1, "{trained:?} has {of_training:#?}");
        assert_eq!(of_training.len(), 1, "nothing was hidden for long enough to be paid for twice");
        for digest in [&trained.dataset_digest, trained.validation_digest.as_ref().unwrap()] {
            let name = format!("tuneloop-{}-{}.jsonl", trained.id, &digest[..12]);
            assert_eq!(files.iter().filter(|file| file.filename == name).count(), 1, "{name}");
        }
    }
    let faults = world.faults_dealt().await;
    for fault in ["dropped_before", "dropped_after", "late", "rate_limited", "malformed", "truncated"] {
        assert!(faults[fault].as_u64().unwrap_or_default() > 20, "{faults}");
    }
}

/// A provider's time that stands still until the test moves it: it hides what it has until then.
fn stopped() -> Clock {
    Clock::fixed(Clock::system().now(), seed())
}

/// For how long jobs are hidden, and longer than that: what a test moves the time by to reveal them.
const HIDDEN: f64 = 10.0;
const REVEALED: TimeDelta = TimeDelta::seconds(11);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_hidden_for_longer_than_the_settle_time_is_cancelled_and_counted() {
    let time = stopped();
    // A job takes 30 s of the provider's time: longer than it is hidden.
    let world = World::new(
        10,
        plan(&json!({
            "scripts": [{"route": "create", "faults": ["dropped_after", "dropped_after", "dropped_after"]}],
            "jobs": {"hidden_seconds": HIDDEN, "slowness": 100.0},
        })),
        1.0,
        time.clone(),
    )
    .await;
    let moved = async {
        while world.provider.jobs().len() < 13 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.until_none("SELECT 10 - count(provider_job_id) FROM trainings").await;
        time.advance(REVEALED);
        // Every create beside those that the runs follow.
        world.until_none("SELECT (sum(creates) - count(*) - sum(duplicates))::bigint FROM trainings").await;
        // A job is noted before it is cancelled, and must not end by itself in between.
        while uncancelled(&world.provider.jobs()) > 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        time.advance(TimeDelta::minutes(1));
    };
    let (runs, ()) = tokio::join!(world.run_all(1, None), moved);
    let trained = world.trained().await;
    all_have_ended_well(&trained, runs);
    let jobs = jobs_by_training(&world);
    for trained in &trained {
        let of_training = &jobs[&trained.id];
        assert_eq!(uncancelled(of_training), 1, "{trained:?} has {of_training:#?}");
        assert_eq!(trained.duplicates, i32::try_from(of_training.len() - 1).unwrap(), "{trained:?}");
    }
}

/// A provider that refuses for good after a call that was carried out: the run fails, and its job does not go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_run_has_failed_meanwhile_is_cancelled_when_it_turns_up() {
    let time = stopped();
    // Nothing settles before the test says that it has: how long it is looked for does not matter.
    let world = World::new(
        1,
        plan(&json!({
            "scripts": [{"route": "create", "faults": ["dropped_after"]}],
            "jobs": {"hidden_seconds": HIDDEN, "slowness": 100.0},
        })),
        3600.0,
        time.clone(),
    )
    .await;
    let moved = async {
        while world.provider.jobs().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.provider.set_faults(plan(&json!({
            "jobs": {"hidden_seconds": HIDDEN, "slowness": 100.0, "training_available": false},
        })));
        world.change("UPDATE trainings SET create_sent_at = create_sent_at - interval '2 hours'").await;
        world.until_none("SELECT count(*) FROM runs WHERE status <> 'failed'").await;
        time.advance(REVEALED);
        world.change("UPDATE runs SET version = version").await;
        world.until_none("SELECT 1 - sum(duplicates)::bigint FROM trainings").await;
        while !world.provider.jobs().iter().all(|job| job.status.is_final()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.change("UPDATE runs SET finished_at = finished_at - interval '2 hours'").await;
    };
    let (runs, ()) = tokio::join!(world.run_all(1, None), moved);
    let trained = world.trained().await;
    assert_eq!((runs, trained.len()), (1, 1));
    assert_eq!((trained[0].status.as_str(), trained[0].duplicates), ("failed", 1), "{trained:?}");
    let jobs: Vec<_> = world.provider.jobs().iter().map(|job| job.status).collect();
    assert_eq!(jobs, [JobStatus::Cancelled]);
}
