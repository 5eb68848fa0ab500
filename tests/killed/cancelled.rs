//! Runs that are cancelled while their worker is killed.

use futures_util::FutureExt;
use tuneloop::runs::{RunStatus, Step};
use tuneloop::simulator::{CreateCounts, JobStatus};
use uuid::Uuid;

use crate::expectations::{only_the_first_version_serves, settled};
use crate::parallel;
use crate::world::{Shape, World};

#[test]
fn a_run_that_is_cancelled_while_its_worker_is_killed_leaves_nothing_behind() {
    parallel::all(&[
        ("a_worker_killed_around_the_cancelling_of_a_job_leaves_it_cancelled", || {
            a_worker_killed_around_the_cancelling_of_a_job_leaves_it_cancelled().boxed_local()
        }),
        ("a_job_whose_answer_died_with_its_worker_is_cancelled_with_the_run", || {
            a_job_whose_answer_died_with_its_worker_is_cancelled_with_the_run().boxed_local()
        }),
        ("a_run_cancelled_before_its_job_was_created_creates_none", || {
            a_run_cancelled_before_its_job_was_created_creates_none().boxed_local()
        }),
        ("a_run_cancelled_after_its_decision_gives_the_traffic_back", || {
            a_run_cancelled_after_its_decision_gives_the_traffic_back().boxed_local()
        }),
    ]);
}

/// A world whose trainings take longer than the test.
async fn slow_training() -> World {
    World::new(Shape { training_seconds: 3600.0, ..Shape::default() }).await
}

async fn is_cancelled(world: &World, run: Uuid) {
    assert_eq!(world.ended(run).await, RunStatus::Cancelled);
    only_the_first_version_serves(world).await;
}

async fn a_worker_killed_around_the_cancelling_of_a_job_leaves_it_cancelled() {
    tokio::join!(killed_cancelling("cancel.sending"), killed_cancelling("cancel.sent"));
}

async fn killed_cancelling(point: &str) {
    let mut world = slow_training().await;
    let run = world.trigger().await;
    let (first, ()) = tokio::join!(world.halted(point), async {
        world.run_where(run, "it is trained", |run| run.reason_code.as_deref() == Some("training")).await;
        world.cancel(run).await;
    });
    first.kill();
    let second = world.worker();
    is_cancelled(&world, run).await;
    second.stop().await;
    let jobs: Vec<JobStatus> = world.provider.jobs().iter().map(|job| job.status).collect();
    assert_eq!(jobs, [JobStatus::Cancelled]);
    settled(&world).await;
}

async fn a_job_whose_answer_died_with_its_worker_is_cancelled_with_the_run() {
    let mut world = slow_training().await;
    let run = world.trigger().await;
    world.halted("train.created").await.kill();
    world.cancel(run).await;
    let second = world.worker();
    is_cancelled(&world, run).await;
    second.stop().await;
    assert_eq!(world.training(run).await.provider_job_id, None, "nobody was told of the job");
    let jobs: Vec<JobStatus> = world.provider.jobs().iter().map(|job| job.status).collect();
    assert_eq!(jobs, [JobStatus::Cancelled]);
    settled(&world).await;
}

async fn a_run_cancelled_before_its_job_was_created_creates_none() {
    let mut world = slow_training().await;
    let run = world.trigger().await;
    world.halted("train.creating").await.kill();
    world.cancel(run).await;
    let second = world.worker();
    is_cancelled(&world, run).await;
    second.stop().await;
    assert_eq!(world.provider.creates(), CreateCounts { files: 2, jobs: 0 });
    settled(&world).await;
}

/// Between the decision and the promotion the candidate still has its share of the traffic.
async fn a_run_cancelled_after_its_decision_gives_the_traffic_back() {
    let mut world = World::new(Shape::default()).await;
    let run = world.trigger().await;
    world.halted("promote.begun").await.kill();
    world.cancel(run).await;
    let second = world.worker();
    is_cancelled(&world, run).await;
    second.stop().await;
    assert_eq!(world.run(run).await.step, Step::Promote);
    assert_eq!(world.number("SELECT count(*) FROM traffic_revisions WHERE kind = 'promotion'").await, 0);
    settled(&world).await;
}
