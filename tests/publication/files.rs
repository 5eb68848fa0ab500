//! Publication to a file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::service::World;

fn settings(correct_drift: bool) -> Value {
    json!({
        "targets": [{"name": "disk", "file": {"path": "hook.json"}}], "check_seconds": 0.1, "correct_drift": correct_drift,
    })
}

fn document(world: &World) -> Value {
    serde_json::from_slice(&fs::read(world.file("hook.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn a_file_follows_every_revision_as_a_whole_with_its_mode() {
    let world = World::start().await;
    world.publishing("hook", settings(false)).await;
    world.published("hook", "disk", 1).await;
    assert_eq!((&document(&world)["model_id"], &document(&world)["revision"]), (&json!("gpt-4o"), &json!(1)));
    fs::set_permissions(world.file("hook.json"), Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(world.file("hook.json")).unwrap();

    // Whoever reads meanwhile sees one revision or the other.
    let path = world.file("hook.json");
    let reading = tokio::task::spawn_blocking(move || {
        let mut seen = 0;
        while seen < 6 {
            let text = fs::read(&path).unwrap();
            let document: Value = serde_json::from_slice(&text).expect("never half a document");
            seen = document["revision"].as_i64().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    for revision in 2..=6 {
        assert_eq!(world.revise("hook").await, revision);
        world.published("hook", "disk", revision).await;
    }
    reading.await.unwrap();
    let after = fs::metadata(world.file("hook.json")).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino(), "it is another file under the name");
    world.end().await;
}

#[tokio::test]
async fn a_changed_or_deleted_file_is_told_and_put_back_where_that_is_configured() {
    let world = World::start().await;
    world.publishing("hook", settings(false)).await;
    world.published("hook", "disk", 1).await;
    fs::write(world.file("hook.json"), "mine").unwrap();
    let state = world.wait("hook", "disk", "drifted", |state| state["status"] == "drifted").await;
    assert_eq!(state["drift"], "its content is no traffic document of tuneloop");
    world.revise("hook").await;
    world.failing("hook", "disk", "holds what tuneloop did not write").await;
    assert_eq!(fs::read_to_string(world.file("hook.json")).unwrap(), "mine");

    let mut config = crate::harness::service::config();
    config["publication"] = settings(true);
    world.put("/v1/pipelines/hook", &[], config).await.expect(200);
    world.published("hook", "disk", 2).await;
    assert_eq!(document(&world)["revision"], 2);
    fs::remove_file(world.file("hook.json")).unwrap();
    world
        .wait("hook", "disk", "put back", |state| state["drifts"] == 2 && state["status"] == "published")
        .await;
    assert_eq!(document(&world)["revision"], 2);
    world.end().await;
}

#[tokio::test]
async fn a_file_of_another_pipeline_and_a_newer_one_are_never_written_over() {
    let world = World::start().await;
    world.publishing("body", settings(true)).await;
    world.published("body", "disk", 1).await;
    world.publishing("hook", settings(true)).await;
    world.failing("hook", "disk", "holds the traffic of the pipeline body").await;
    assert_eq!(document(&world)["pipeline"], "body");

    // As after a database was restored from a backup: what applications read is ahead of it.
    let mut newer = document(&world);
    newer["revision"] = json!(7);
    fs::write(world.file("hook.json"), newer.to_string()).unwrap();
    let error = world.failing("body", "disk", "revision 7").await;
    assert!(error.contains("which is newer than 1"), "{error}");
    assert_eq!(document(&world)["revision"], 7);
    world.end().await;
}

#[tokio::test]
async fn without_the_operators_directory_nothing_is_written() {
    let world = World::with(|reach| reach.directory = None).await;
    world.publishing("hook", settings(true)).await;
    world.failing("hook", "disk", "--publication-dir").await;
    assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 0);
    world.end().await;
}
