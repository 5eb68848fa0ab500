//! A worker that was frozen while it held a lease and comes back when another has done its work.

use crate::expectations::everything_once;
use crate::parallel;
use crate::world::{Shape, World};

/// Frozen there, a worker holds a lease and no transaction.
const LEASED: [&str; 11] = [
    "collect.stored",
    "preflight.begun",
    "upload.sending",
    "upload.sent",
    "train.creating",
    "train.created",
    "register.begun",
    "test.begun",
    "decide.begun",
    "promote.begun",
    "watch.begun",
];
/// Frozen there, it holds the pipeline's lock as well.
const IN_TRANSACTION: &str = "promote.promoted";

#[test]
fn a_worker_that_comes_back_after_its_lease_changes_nothing() {
    let points = LEASED.into_iter().chain([IN_TRANSACTION]).map(str::to_owned).collect();
    parallel::each(points, 12, frozen_at);
}

async fn frozen_at(point: &str) {
    let mut world = World::new(Shape::default()).await;
    let run = world.trigger().await;
    let thaw = world.directory.path().join("thaw");
    let mut stale = world.halted_until(point, Some(&thaw)).await;
    stale.signal("STOP");
    if point == IN_TRANSACTION {
        end_idle_sessions(&world).await;
    }

    let other = world.worker();
    world.ended(run).await;
    other.stop().await;
    world.deserted().await;
    everything_once(&world, run).await;
    let before = (world.content().await, world.provider.creates(), world.provider.jobs());

    std::fs::write(thaw, "").unwrap();
    stale.signal("CONT");
    stale.says("the lease was lost").await;
    assert!(!stale.has_said("ERROR"), "{point}: losing a lease is no failure:\n{}", stale.log());
    stale.stop().await;
    let after = (world.content().await, world.provider.creates(), world.provider.jobs());
    assert_eq!(before, after, "{point}");
}

/// The database ends the session of a worker that idles in its transaction, so that its locks stop nobody:
/// what `idle_in_transaction_session_timeout` does, without the wait for it.
async fn end_idle_sessions(world: &World) {
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'tuneloop'
                    AND state = 'idle in transaction'";
    assert_eq!(world.number(ended).await, 1);
}
