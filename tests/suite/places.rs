//! A pipeline has two places: one run is built, one proves its model.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tuneloop::audit::By;
use tuneloop::pipelines;
use tuneloop::runs::{self, RunStatus};

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

#[tokio::test]
async fn a_trigger_while_another_run_is_built_is_refused_with_a_link_to_it() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    for pipeline in ["hook", "body"] {
        service.pipeline(pipeline, |_| {}).await;
    }
    service.posts(12, 0.08).await;
    let first = service.trigger("hook").await;
    let refused = service.post("/v1/pipelines/hook/runs", Value::Null).await.problem(409, "run-active");
    assert_eq!(refused["links"]["run"], format!("/v1/runs/{first}"));
    // Another pipeline is not in the way.
    service.trigger("body").await;
    service.post("/v1/pipelines/tail/runs", Value::Null).await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn a_slot_that_comes_while_a_run_is_built_is_inserted_as_skipped() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let first = service.trigger("hook").await;
    let pipeline = pipelines::by_name(&service.db, "hook").await.unwrap().unwrap();
    let slot: DateTime<Utc> = "2026-11-29T02:00:00Z".parse().unwrap();
    let mut tx = service.db.begin().await.unwrap();
    let begun = runs::by_schedule(&mut tx, &service.clock, &pipeline, slot, &By::scheduler()).await.unwrap();
    tx.commit().await.unwrap();
    let (id, status) = begun.unwrap();
    assert_eq!(status, RunStatus::Skipped);
    let run = service.run(&id.to_string()).await;
    assert_eq!((&run["status"], &run["reason_code"]), (&json!("skipped"), &json!("run_active")));
    assert_eq!((&run["trigger"], &run["slot"]), (&json!("schedule"), &json!("2026-11-29T02:00:00Z")));
    assert!(run["reason"].as_str().unwrap().contains(&first), "{run:#}");
    let listed = service.read("/v1/runs?pipeline=hook&status=skipped").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    service.end().await;
}

#[tokio::test]
async fn a_run_that_is_built_takes_the_place_of_one_that_is_watched() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["watch"]["duration_seconds"] = json!(3600.0)).await;
    service.posts(12, 0.08).await;
    let older = service.trigger("hook").await;
    service.wait_for_test(&older).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&older).await;
    service.wait_for_watch(&older).await;

    let newer = service.trigger("hook").await;
    service.wait_for_test(&newer).await;
    let older = service.wait_until(&older, "succeeded").await;
    assert_eq!((&older["step"], &older["reason_code"]), (&json!("watch"), &json!("watch_superseded")));
    // The former live version no longer holds traffic back: the promoted one is the new baseline.
    let weights = [("1.0.1".to_owned(), 5000), ("1.0.0".to_owned(), 5000)];
    assert_eq!(service.weights("hook").await, weights);
    let statuses = [("1.0.1", "testing"), ("1.0.0", "live"), ("0.0.0", "retired")];
    let statuses = statuses.map(|(version, status)| (version.to_owned(), status.to_owned()));
    assert_eq!(service.versions("hook").await, statuses);
    service.end().await;
}

#[tokio::test]
async fn a_run_that_is_built_waits_while_another_is_in_test() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            // The one that waits is woken, not found by a later look.
            config["experiment"]["interval_seconds"] = json!(3600.0);
        })
        .await;
    service.posts(12, 0.08).await;
    let older = service.trigger("hook").await;
    service.wait_for_test(&older).await;
    let newer = service.trigger("hook").await;
    let waits = |run: &Value| run["reason_code"] == "proving_place_taken";
    let waiting = service.wait_for(&newer, "waiting for its place", waits).await;
    assert_eq!((&waiting["status"], &waiting["step"]), (&json!("running"), &json!("test")));
    assert!(waiting["reason"].as_str().unwrap().contains(&older), "{waiting:#}");
    service.post("/v1/pipelines/hook/runs", Value::Null).await.problem(409, "run-active");

    service.post(&format!("/v1/runs/{older}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&older, "cancelled").await;
    service.wait_for_test(&newer).await;
    assert_eq!(service.weights("hook").await, [("1.0.1".to_owned(), 5000), ("0.0.0".to_owned(), 5000)]);
    service.end().await;
}
