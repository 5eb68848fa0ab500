//! MLflow is stopped for the length of a run, and killed while it is told of many.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::deliveries::{delivered, each_point_once, run_of, state_where, version_of, wake};
use crate::harness::service::TestService;
use crate::server::{Server, python};

#[tokio::test]
async fn a_server_that_was_stopped_for_the_length_of_a_run_is_told_of_all_of_it_once() {
    let Some(python) = python() else { return };
    let mut server = Server::stopped(&python, &["--serve-artifacts"]);
    let service = TestService::with_mlflow(server.settings(), Duration::from_millis(300)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let rejected = service.trigger("hook").await;
    service.wait_for_test(&rejected).await;
    service.reach_horizon(&rejected).await;
    service.wait_until(&rejected, "waiting_approval").await;
    service.post(&format!("/v1/runs/{rejected}/reject"), json!({})).await.expect(202);
    service.wait_until(&rejected, "rejected").await;
    let cancelled = service.trigger("hook").await;
    service.wait_for_test(&cancelled).await;
    service.post(&format!("/v1/runs/{cancelled}/cancel"), json!({})).await.expect(202);
    service.wait_until(&cancelled, "cancelled").await;
    // Nothing but a deletion of all posts makes a run skip.
    sqlx::query("DELETE FROM posts").execute(&service.db).await.unwrap();
    let skipped = service.trigger("hook").await;
    service.wait_until(&skipped, "skipped").await;
    state_where(&service, "hook", |state| state["status"] == "failing").await;

    server.run().await;
    let state = delivered(&service, "hook").await;
    assert_eq!((&state["runs"], &state["versions"], &state["refused"]), (&json!(3), &json!(3), &json!(0)));
    assert!(state.get("error").is_none() && state.get("behind_since").is_none(), "{state}");
    let read = server.read("hook").await;
    let runs = read["runs"].as_array().unwrap();
    let told: Vec<_> = runs
        .iter()
        .map(|run| (run["tags"]["tuneloop.run_id"].as_str().unwrap(), run["status"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(&*rejected, "FINISHED"), (&*cancelled, "KILLED"), (&*skipped, "FINISHED")]);
    runs.iter().for_each(each_point_once);
    assert_eq!(run_of(&read, &rejected)["tags"]["tuneloop.status"], "rejected");
    assert_eq!(run_of(&read, &skipped)["tags"]["tuneloop.reason_code"], "insufficient_training_data");
    let numbers: Vec<_> = ["hook@0.0.0", "hook@1.0.0", "hook@1.0.1"]
        .map(|name| version_of(&read, name)["version"].clone())
        .into();
    assert_eq!(numbers, [json!("1"), json!("2"), json!("3")], "in their order");
    assert_eq!(read["aliases"], json!({"champion": "1"}));
    service.end().await;
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_holds_everything_once() {
    let Some(python) = python() else { return };
    let mut server = Server::stopped(&python, &["--serve-artifacts"]);
    let service = TestService::with_mlflow(server.settings(), Duration::from_millis(300)).await;
    service.pipeline("hook", |_| {}).await;
    let mut runs = BTreeSet::new();
    for _ in 0..25 {
        let run = service.trigger("hook").await;
        service.wait_until(&run, "skipped").await;
        runs.insert(run);
    }
    let mut random = StdRng::seed_from_u64(20_261_126);
    for kill in 0..3 {
        server.run().await;
        wake(&service, "hook").await;
        // In the middle of it, wherever that is: sixty calls a second at most.
        let held = state_where(&service, "hook", |state| state["runs"].as_i64().unwrap() > 5 * kill).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        server.kill();
        println!("killed after {} runs", held["runs"]);
    }
    server.run().await;
    delivered(&service, "hook").await;
    let read = server.read("hook").await;
    let told: Vec<_> = read["runs"].as_array().unwrap().iter().map(tag).collect();
    assert_eq!(told.len(), runs.len(), "{told:#?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), runs);
    assert!(read["runs"].as_array().unwrap().iter().all(|run| run["status"] == "FINISHED"));
    assert_eq!(read["versions"].as_array().unwrap().len(), 1);
    service.end().await;
}

fn tag(run: &Value) -> String {
    run["tags"]["tuneloop.run_id"].as_str().unwrap().to_owned()
}
