//! A run that an operator ends while a worker is in the midst of a step.

use tuneloop::audit::By;
use tuneloop::runs::{self, RunStatus};
use tuneloop::traffic;

use crate::expectations::settled;
use crate::process::Worker;
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_run_was_ended_meanwhile_is_void_and_its_job_ends_at_once() {
    let mut world = World::new(Shape::default()).await;
    let run = world.trigger().await;
    let go_on = world.directory.path().join("go-on");
    let mut command = world.command();
    // A lease that this test does not outlast.
    command.env("TUNELOOP_LEASE_SECONDS", "600").env("TUNELOOP_HALT_AT", "decide.begun");
    command.env("TUNELOOP_HALT_UNTIL", &go_on);
    let mut worker = Worker::start(command);
    worker.says("halted at decide.begun").await;

    let mut tx = world.database.pool.begin().await.unwrap();
    traffic::lock(&mut tx, "hook").await.unwrap();
    let ended = runs::yield_to_operator(&mut tx, "hook", false, "for a test", &By::system()).await.unwrap();
    assert_eq!(ended, Some(run));
    tx.commit().await.unwrap();
    std::fs::write(go_on, "").unwrap();

    let left = "SELECT count(*) FROM jobs WHERE state <> 'done'";
    world.until("the job ends", async || world.number(left).await == 0).await;
    worker.stop().await;
    assert_eq!(world.run(run).await.status, RunStatus::Cancelled);
    assert_eq!(world.number("SELECT count(*) FROM decisions").await, 0);
    settled(&world).await;
}
