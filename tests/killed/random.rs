//! Workers killed at moments that nobody chose.

use std::time::Duration;

use tuneloop::clock::Clock;
use uuid::Uuid;

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
        if world.run(run).await.status.finished() {
            break;
        }
        let before = state(&world).await;
        let worker = world.worker();
        // Not while it waits for its predecessor's lease to run out.
        world.until("the worker takes the run's job", async || state(&world).await != before).await;
        tokio::time::sleep(Duration::from_millis(400).mul_f64(moments.fraction())).await;
        worker.kill();
    }
    let last = world.worker();
    world.ended(run).await;
    last.stop().await;
    everything_once(&world, run).await;
}

/// Who holds the run's job, and how often the run was moved.
async fn state(world: &World) -> (Option<Uuid>, i64) {
    let query = "SELECT j.lease_token, r.version FROM runs r JOIN jobs j ON j.subject = r.id::text AND j.kind = 'run'";
    sqlx::query_as(query).fetch_one(&world.database.pool).await.unwrap()
}
