//! A worker killed while it raises the candidate's share: the share rises once.

use tuneloop::pipelines::config::{RampSettings, Unjudged};
use tuneloop::runs::RunStatus;

use crate::expectations::settled;
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_the_share_rises_leaves_one_step_of_the_ramp() {
    // Longer than the lease, after which the next worker comes.
    let mut world = World::new(Shape { horizon_seconds: 8.0, ..Shape::default() }).await;
    let ramp = RampSettings { weights: vec![2_500, 5_000], step_seconds: 0.3, unjudged: Unjudged::Rise };
    world.configure(|config| config.experiment.ramp = Some(ramp)).await;
    let run = world.trigger().await;
    world.halted("test.ramping").await.kill();

    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    assert_eq!(world.run(run).await.status, RunStatus::Succeeded);
    let revisions = world.revisions().await;
    let revisions: Vec<_> = revisions.iter().map(|(kind, weight)| (kind.as_str(), *weight)).collect();
    assert_eq!(
        revisions,
        [("created", 0), ("test_started", 2_500), ("ramp", 5_000), ("promotion", 7_000), ("watch_ended", 0)]
    );
    let told = "SELECT count(*) FROM audit_events WHERE action = 'traffic.ramp'";
    assert_eq!(world.number(told).await, 1);
    settled(&world).await;
}
