//! A promoted version that does harm is taken back once, also by a worker that takes over from a killed one.

use tuneloop::runs::RunStatus;

use crate::expectations::{only_the_first_version_serves, promoted_once};
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_it_rolls_back_leaves_one_rollback() {
    let mut world = World::new(Shape { harmful: true, watch_seconds: 300.0, ..Shape::default() }).await;
    let run = world.trigger().await;
    world.halted("watch.rolling_back").await.kill();

    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    promoted_once(&world, run, RunStatus::RolledBack, "rollback").await;
    only_the_first_version_serves(&world).await;
}
