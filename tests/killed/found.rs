//! A worker killed when it has found the job of a call that was never answered: it is adopted once.

use crate::expectations::everything_once;
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_when_it_has_found_a_job_leaves_it_to_be_found_again() {
    let mut world = World::new(Shape::default()).await;
    let run = world.trigger().await;
    world.halted("train.created").await.kill();
    world.halted("train.found").await.kill();

    let third = world.worker();
    world.ended(run).await;
    third.stop().await;
    everything_once(&world, run).await;
}
