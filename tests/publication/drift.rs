//! Somebody changes what was published.

use serde_json::{Value, json};

use crate::service::{World, watched};

const DRIFTS: &str = r#"tuneloop_publication_drifts_total{pipeline="hook",target="cluster"}"#;

fn edit(world: &World, model: &str) {
    world.kubernetes.edit("configmaps", "models", &json!({"data": {"HOOK_MODEL": model}}));
}

#[tokio::test]
async fn an_edit_is_counted_once_shown_with_its_author_and_left_alone() {
    let world = World::start().await;
    world.publishing("hook", watched(false)).await;
    world.published("hook", "cluster", 1).await;
    edit(&world, "by-hand");
    let state = world.wait("hook", "cluster", "drifted", |state| state["status"] == "drifted").await;
    assert_eq!(
        state["drift"],
        "HOOK_MODEL is \"by-hand\" and should be \"gpt-4o\" (changed last by kubectl-edit)"
    );
    // Looked at again and again, it is one change.
    let reads = world.kubernetes.count("get configmaps");
    world
        .wait("hook", "cluster", "looked at again", |_| world.kubernetes.count("get configmaps") > reads + 3)
        .await;
    let state = world.target("hook", "cluster").await;
    assert_eq!((&state["drifts"], &state["failures"]), (&json!(1), &json!(0)));
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "by-hand");
    assert_eq!(world.metric(DRIFTS).await, Some(1.0));

    // A new revision meets the conflict, and says who is in the way.
    world.go_live("hook", "ft:better").await;
    world.failing("hook", "cluster", "kubectl-edit").await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "by-hand");

    // What is as it should be again is noticed.
    edit(&world, "ft:better");
    world.published("hook", "cluster", 2).await;
    edit(&world, "by-hand-again");
    world.wait("hook", "cluster", "drifted again", |state| state["drifts"] == 3).await;
    edit(&world, "ft:better");
    world.published("hook", "cluster", 2).await;
    let actions = world.actions("hook").await;
    assert_eq!(
        actions,
        [
            "publication.added",
            "publication.published",
            "publication.drift",
            "publication.failed",
            "publication.drift",
            "publication.published",
            "publication.drift",
            "publication.recovered",
        ]
    );
    world.end().await;
}

#[tokio::test]
async fn an_edit_is_taken_back_where_that_is_configured() {
    let world = World::start().await;
    world.publishing("hook", watched(true)).await;
    world.published("hook", "cluster", 1).await;
    edit(&world, "by-hand");
    let is = |state: &Value| state["drifts"] == 1 && state["status"] == "published";
    world.wait("hook", "cluster", "corrected", is).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "gpt-4o");
    let trail = world.trail("hook").await;
    let told = "HOOK_MODEL is \"by-hand\" and should be \"gpt-4o\" (changed last by kubectl-edit)".to_owned();
    assert_eq!(
        trail[2..],
        [("publication.drift".to_owned(), told.clone()), ("publication.corrected".to_owned(), told)]
    );
    // The field is ours again, so that the next revision meets no conflict.
    let revision = world.go_live("hook", "ft:better").await;
    world.published("hook", "cluster", revision).await;
    assert_eq!(world.metric(DRIFTS).await, Some(1.0));
    world.end().await;
}

#[tokio::test]
async fn a_deleted_config_map_is_told_and_made_again_where_that_is_configured() {
    let world = World::start().await;
    world.publishing("hook", watched(false)).await;
    world
        .publishing("body", {
            let mut corrected = watched(true);
            corrected["targets"][0]["config_map"]["name"] = json!("bodies");
            corrected
        })
        .await;
    world.published("hook", "cluster", 1).await;
    world.published("body", "cluster", 1).await;
    world.kubernetes.delete("configmaps", "models");
    world.kubernetes.delete("configmaps", "bodies");
    let state = world.wait("hook", "cluster", "drifted", |state| state["status"] == "drifted").await;
    assert_eq!(state["drift"], "it was deleted");
    let is = |state: &Value| state["drifts"] == 1 && state["status"] == "published";
    world.wait("body", "cluster", "made again", is).await;
    assert_eq!(world.kubernetes.data("bodies")["BODY_MODEL"], "gpt-4o");
    assert_eq!(world.kubernetes.object("configmaps", "models"), None);
    // Asking for it, and the next revision, make it again in any case.
    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", 1).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "gpt-4o");
    world.end().await;
}

#[tokio::test]
async fn an_older_state_that_somebody_restores_is_a_change_too() {
    let world = World::start().await;
    world.publishing("hook", watched(false)).await;
    world.published("hook", "cluster", 1).await;
    let backup = world.kubernetes.data("models");
    let revision = world.go_live("hook", "ft:better").await;
    world.published("hook", "cluster", revision).await;
    world.kubernetes.edit("configmaps", "models", &json!({"data": backup}));
    let state = world.wait("hook", "cluster", "drifted", |state| state["status"] == "drifted").await;
    let drift = state["drift"].as_str().unwrap();
    assert!(drift.contains("HOOK_MODEL is \"gpt-4o\" and should be \"ft:better\""), "{drift}");
    world.end().await;
}
