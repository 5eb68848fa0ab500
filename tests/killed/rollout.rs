//! A worker killed while it raises a promoted version's share: the share rises once.

use tuneloop::pipelines::config::{DeploymentStrategy, RolloutSettings, Unjudged};
use tuneloop::runs::RunStatus;

use crate::expectations::settled;
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_while_a_promoted_version_rises_leaves_one_step_of_the_rollout() {
    let mut world = World::new(Shape::default()).await;
    let rollout = RolloutSettings { weights: vec![6_000], step_seconds: 0.3, unjudged: Unjudged::Rise };
    world.configure(|config| config.deployment.strategy = DeploymentStrategy::Ramp(rollout)).await;
    let run = world.trigger().await;
    world.halted("watch.rolling_out").await.kill();

    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    assert_eq!(world.run(run).await.status, RunStatus::Succeeded);
    let revisions = world.revisions().await;
    let revisions: Vec<_> = revisions.iter().map(|(kind, weight)| (kind.as_str(), *weight)).collect();
    assert_eq!(
        revisions,
        [
            ("created", 0),
            ("test_started", 5_000),
            ("promotion", 6_000),
            ("rollout", 7_000),
            ("watch_ended", 0)
        ]
    );
    let told = "SELECT count(*) FROM audit_events WHERE action = 'traffic.rollout'";
    assert_eq!(world.number(told).await, 1);
    settled(&world).await;
}
