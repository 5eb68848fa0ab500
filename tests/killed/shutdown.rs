//! Workers that are asked to end while a step is under way, and a step that takes longer than a lease.

use std::time::Duration;

use futures_util::FutureExt;
use tuneloop::runs::Step;

use crate::expectations::everything_once;
use crate::parallel;
use crate::process::Worker;
use crate::world::{Shape, World};

#[test]
fn a_worker_that_is_asked_to_end_leaves_its_step_done_or_to_others() {
    parallel::all(&[
        ("a_worker_asked_to_end_finishes_the_step_in_hand_and_takes_no_other", || {
            a_worker_asked_to_end_finishes_the_step_in_hand_and_takes_no_other().boxed_local()
        }),
        ("a_step_that_outlives_the_grace_is_given_back_and_its_attempt_does_not_count", || {
            a_step_that_outlives_the_grace_is_given_back_and_its_attempt_does_not_count().boxed_local()
        }),
        ("another_worker_is_told_of_a_step_that_was_given_back", || {
            another_worker_is_told_of_a_step_that_was_given_back().boxed_local()
        }),
        ("an_upload_that_takes_longer_than_a_lease_keeps_it", || {
            an_upload_that_takes_longer_than_a_lease_keeps_it().boxed_local()
        }),
    ]);
}

/// A worker whose upload does not come to an end.
async fn uploading(world: &World, grace_seconds: &str) -> Worker {
    let mut command = world.command();
    command.args(["--poll-interval-ms", "100", "--shutdown-grace-seconds", grace_seconds]);
    let worker = Worker::start(command);
    world.gate.arrival().await;
    worker
}

async fn a_worker_asked_to_end_finishes_the_step_in_hand_and_takes_no_other() {
    let mut world = World::new(Shape::default()).await;
    world.gate.set_open(false);
    let run = world.trigger().await;
    let mut first = uploading(&world, "60").await;
    first.signal("TERM");
    first.says("SIGTERM").await;
    world.gate.set_open(true);
    assert!(first.ends().await.success(), "{}", first.log());

    let training = world.training(run).await;
    assert!(training.provider_file_id.is_some(), "the upload is done");
    assert_eq!(
        (world.run(run).await.step, training.creates),
        (Step::Upload, 0),
        "the validation file is left"
    );
    let ready = "SELECT count(*) FROM jobs WHERE state = 'ready' AND attempt = 0";
    assert_eq!(world.number(ready).await, 1);
    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    everything_once(&world, run).await;
}

async fn a_step_that_outlives_the_grace_is_given_back_and_its_attempt_does_not_count() {
    let mut world = World::new(Shape::default()).await;
    world.gate.set_open(false);
    let run = world.trigger().await;
    let mut first = uploading(&world, "0").await;
    first.signal("TERM");
    assert!(first.ends().await.success(), "{}", first.log());
    let ready = "SELECT count(*) FROM jobs WHERE state = 'ready' AND attempt = 0 AND run_at <= now()";
    assert_eq!(world.number(ready).await, 1);
    assert_eq!(world.run(run).await.step, Step::Upload);

    world.gate.set_open(true);
    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    everything_once(&world, run).await;
}

async fn another_worker_is_told_of_a_step_that_was_given_back() {
    let mut world = World::new(Shape::default()).await;
    world.gate.set_open(false);
    let run = world.trigger().await;
    let mut first = uploading(&world, "0").await;
    // By itself it looks once a minute, which is longer than this test waits.
    let mut patient = world.command();
    patient.args(["--poll-interval-ms", "60000", "--lease-seconds", "600"]);
    let mut second = Worker::start(patient);
    second.says("started").await;
    first.signal("TERM");
    assert!(first.ends().await.success(), "{}", first.log());
    world.gate.set_open(true);
    world.ended(run).await;
    second.stop().await;
    everything_once(&world, run).await;
}

async fn an_upload_that_takes_longer_than_a_lease_keeps_it() {
    let mut world = World::new(Shape::default()).await;
    world.gate.set_open(false);
    let run = world.trigger().await;
    let first = uploading(&world, "0").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    world.gate.set_open(true);
    world.ended(run).await;
    first.stop().await;
    let retries = "SELECT step || ': ' || message FROM run_events WHERE kind = 'retry'";
    let retries: Vec<String> = sqlx::query_scalar(retries).fetch_all(&world.database.pool).await.unwrap();
    assert!(retries.is_empty(), "{retries:?}");
    assert_eq!(world.training(run).await.uploads, 1);
    everything_once(&world, run).await;
}
