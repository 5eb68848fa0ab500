//! Rolling restarts of Deployments.

use serde_json::{Value, json};

use crate::kubernetes::Fault;
use crate::service::{World, config_map};

fn settings(on: &str) -> Value {
    let mut target = config_map("cluster", "models");
    target["config_map"]["restart_deployments"] = json!(["web"]);
    target["config_map"]["restart_on"] = json!(on);
    json!({"targets": [target], "check_seconds": 0.1})
}

fn deployment(world: &World) -> (Value, Value) {
    let web = world.kubernetes.object("deployments", "web").unwrap();
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    (web["metadata"]["generation"].clone(), annotations["tuneloop/hook"].clone())
}

/// Waits until the Deployment is like this: restarts come after the publication.
async fn restarted(world: &World, generation: u64, cause: &str) {
    let wanted = (json!(generation), json!(cause));
    let is = |_: &Value| deployment(world) == wanted;
    world.wait("hook", "cluster", &format!("followed by a restart for {cause}"), is).await;
}

async fn with_web() -> World {
    let world = World::start().await;
    let template =
        json!({"metadata": {"annotations": {"theirs": "kept"}}, "spec": {"containers": [{"name": "web"}]}});
    world
        .kubernetes
        .create("deployments", &json!({"metadata": {"name": "web"}, "spec": {"template": template}}));
    world
}

#[tokio::test]
async fn pods_are_restarted_when_the_live_model_has_changed_and_only_then() {
    let world = with_web().await;
    world.publishing("hook", settings("live_model")).await;
    world.published("hook", "cluster", 1).await;
    restarted(&world, 2, "gpt-4o").await;
    let revision = world.revise("hook").await;
    world.published("hook", "cluster", revision).await;
    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", revision).await;
    restarted(&world, 2, "gpt-4o").await;
    assert_eq!(world.kubernetes.count("patch deployments"), 1);

    let revision = world.go_live("hook", "ft:better").await;
    world.published("hook", "cluster", revision).await;
    restarted(&world, 3, "ft:better").await;
    let web = world.kubernetes.object("deployments", "web").unwrap();
    assert_eq!(web["spec"]["template"]["metadata"]["annotations"]["theirs"], "kept");
    // What the Role of the chart allows, see `.ci/chart.py`.
    let calls: Vec<_> = world.kubernetes.kinds_of_calls().into_iter().collect();
    assert_eq!(calls, ["create configmaps", "get configmaps", "patch configmaps", "patch deployments"]);
    world.end().await;
}

#[tokio::test]
async fn pods_that_read_the_traffic_at_their_start_are_restarted_for_each_revision() {
    let world = with_web().await;
    world.publishing("hook", settings("traffic")).await;
    world.published("hook", "cluster", 1).await;
    let revision = world.revise("hook").await;
    world.published("hook", "cluster", revision).await;
    restarted(&world, 3, "revision 2").await;
    world.end().await;
}

#[tokio::test]
async fn nothing_is_restarted_before_the_config_map_was_read_back_and_a_failure_is_made_up_for() {
    let world = with_web().await;
    world.kubernetes.fault(Fault::Forgetful);
    world.publishing("hook", settings("live_model")).await;
    world.failing("hook", "cluster", "read back").await;
    assert_eq!(world.kubernetes.count("patch deployments"), 0);
    world.kubernetes.fault(None);
    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", 1).await;
    restarted(&world, 2, "gpt-4o").await;

    world.kubernetes.delete("deployments", "web");
    let revision = world.go_live("hook", "ft:better").await;
    let error = world.failing("hook", "cluster", "restart the Deployment shop/web").await;
    assert!(error.contains("not found"), "{error}");
    let state = world.target("hook", "cluster").await;
    assert_eq!(state["published_revision"], revision, "it is published all the same: {state}");
    world.kubernetes.create("deployments", &json!({"metadata": {"name": "web"}, "spec": {"replicas": 1}}));
    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", revision).await;
    restarted(&world, 2, "ft:better").await;
    world.end().await;
}
