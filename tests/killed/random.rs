//! Workers killed at moments that nobody chose.

use std::time::Duration;

use tuneloop::clock::Clock;

use crate::expectations::everything_once;
use crate::world::{Shape, World};

const ROUNDS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_workers_are_killed_again_and_again_ends_as_it_would_have() {
    // Answers take a while, so that steps do as well.
    let shape = Shape {
        latency: 0.1,
        training_seconds: 2.0,
        horizon_seconds: 2.0,
        watch_seconds: 2.0,
        ..Shape::default()
    };
    let mut world = World::new(shape).await;
    let run = world.trigger().await;
    let moments = Clock::fixed(chrono::DateTime::UNIX_EPOCH, 20_130_424);
    for _ in 0..ROUNDS {
        let mut worker = world.worker();
        worker.says("started").await;
        tokio::time::sleep(Duration::from_millis(700).mul_f64(moments.fraction())).await;
        worker.kill();
    }
    let last = world.worker();
    world.ended(run).await;
    last.stop().await;
    everything_once(&world, run).await;
}
