//! Workers that are late: an older revision never takes the place of a newer one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::service::{World, config_map};

/// Takes the job from the worker that holds it, as the end of its lease does.
async fn lose_lease(world: &World, subject: &str) {
    let taken = sqlx::query(
        "UPDATE jobs SET state = 'ready', run_at = now(), lease_token = NULL, lease_expires_at = NULL
          WHERE kind = 'publish' AND subject = $1 AND state = 'leased'",
    )
    .bind(subject)
    .execute(&world.db)
    .await
    .unwrap();
    assert_eq!(taken.rows_affected(), 1);
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} in vain");
}

#[tokio::test]
async fn a_worker_whose_write_arrives_late_loses_against_the_newer_revision() {
    let world = World::start().await;
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    world.published("hook", "cluster", 1).await;
    // The write of revision 2 is under way for a long time.
    world.kubernetes.hold_patches(true);
    world.go_live("hook", "ft:two").await;
    until("waited for the write", || world.kubernetes.waiting() == 1).await;
    let newest = world.go_live("hook", "ft:three").await;
    lose_lease(&world, "hook/cluster").await;
    // The next worker's write waits behind it: the older one arrives first, or last.
    until("waited for the second write", || world.kubernetes.waiting() == 2).await;
    world.kubernetes.hold_patches(false);
    world.published("hook", "cluster", newest).await;
    until("waited for both", || world.kubernetes.waiting() == 0).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "ft:three");
    assert_eq!(world.kubernetes.traffic("models", "hook")["revision"], newest);
    world.end().await;
}

#[tokio::test]
async fn a_stale_write_after_the_newer_one_is_refused_by_its_version() {
    let world = World::start().await;
    world
        .publishing("hook", json!({"targets": [config_map("cluster", "models")], "check_seconds": 3600}))
        .await;
    world.published("hook", "cluster", 1).await;
    let stale = world.kubernetes.object("configmaps", "models").unwrap();
    let revision = world.go_live("hook", "ft:two").await;
    world.published("hook", "cluster", revision).await;
    // Sent as the worker sends it, with what it had read before the newer revision was written.
    let config = world.kubernetes.config().await;
    let api: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(kube::Client::try_from(config).unwrap(), crate::kubernetes::NAMESPACE);
    let metadata = &stale["metadata"];
    let patch = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "models", "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        "data": {"HOOK_MODEL": "gpt-4o"},
    });
    let how = kube::api::PatchParams::apply("tuneloop-hook").force();
    let refused = api.patch("models", &how, &kube::api::Patch::Apply(&patch)).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert!(status.message.contains("the object has been modified"), "{status:?}");
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "ft:two");
    world.end().await;
}

#[tokio::test]
async fn whoever_makes_the_config_map_first_is_followed() {
    let world = World::start().await;
    world.kubernetes.hold_patches(true);
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    until("waited for the first write", || world.kubernetes.waiting() == 1).await;
    // Before the lease is lost: whoever has it next knows of it.
    let newest = world.go_live("hook", "ft:two").await;
    lose_lease(&world, "hook/cluster").await;
    until("waited for the second write", || world.kubernetes.waiting() == 2).await;
    world.kubernetes.hold_patches(false);
    world.published("hook", "cluster", newest).await;
    until("waited for both", || world.kubernetes.waiting() == 0).await;
    assert_eq!(world.kubernetes.traffic("models", "hook")["revision"], newest);
    assert_eq!(world.kubernetes.count("create configmaps"), 1);
    let history = world.read("/v1/pipelines/hook/publications/cluster/history").await;
    let revisions: Vec<&Value> =
        history["items"].as_array().unwrap().iter().map(|item| &item["revision"]).collect();
    assert_eq!(revisions, [newest], "the worker without a lease records nothing");
    world.end().await;
}
