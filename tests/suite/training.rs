//! What comes before a model is there: too little data, and trainings that do not go well.

use std::time::Duration;

use serde_json::{Value, json};
use tuneloop::simulator::JobStatus;

use crate::harness::service::{TestService, config};

#[tokio::test]
async fn too_few_examples_skip_the_run_and_are_counted_for_their_pipeline() {
    let service = TestService::start().await;
    for pipeline in ["hook", "body"] {
        service.pipeline(pipeline, |_| {}).await;
    }
    service.posts(9, 0.08).await;
    service.posts(20, 0.05).await;
    for _ in 0..2 {
        let run = service.trigger("hook").await;
        let run = service.wait_until(&run, "skipped").await;
        assert_eq!(
            (&run["step"], &run["reason_code"]),
            (&json!("preflight"), &json!("insufficient_training_data"))
        );
        assert!(run["reason"].as_str().unwrap().starts_with("9 examples are fewer than the 10"), "{run:#}");
        assert_eq!(run.get("training"), None);
    }
    let metrics = service.text("/metrics", &[]).await;
    let skipped = |pipeline: &str| {
        let of = |line: &&str| {
            line.starts_with("tuneloop_runs_finished_total")
                && line.contains(&format!("pipeline=\"{pipeline}\""))
                && line.contains("insufficient_training_data")
        };
        metrics.lines().find(of).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!((skipped("hook").as_deref(), skipped("body")), (Some("2"), None), "{metrics}");
    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (0, 0), "nothing was paid for");
    service.end().await;
}

#[tokio::test]
async fn a_failed_training_fails_the_run_with_the_providers_reason_and_a_retry_pays_for_another() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!(failed["step"], "train");
    assert!(failed["reason"].as_str().unwrap().contains("The GPU caught fire."), "{failed:#}");
    assert_eq!(failed["training"]["status"], "failed");
    assert_eq!(service.versions("hook").await, [("0.0.0".to_owned(), "live".to_owned())]);

    let why = json!({"reason": "the fire is out"});
    let retried = service.post(&format!("/v1/runs/{id}/retry"), why).await.expect(202);
    assert_eq!((&retried["status"], &retried["step"]), (&json!("running"), &json!("preflight")));
    let again = service.wait_for_test(&id).await;
    assert_ne!(again["training"]["id"], failed["training"]["id"]);
    assert_ne!(again["training"]["job_id"], failed["training"]["job_id"]);
    assert_eq!(again["dataset"], failed["dataset"]);
    let states: Vec<_> = service.simulator.jobs().iter().map(|job| job.status).collect();
    assert_eq!(states, [JobStatus::Failed, JobStatus::Succeeded]);
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.problem(409, "run-not-failed");
    service.end().await;
}

#[tokio::test]
async fn a_base_model_that_does_not_exist_fails_the_run_and_says_so() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["training"]["base_model"] = json!("gpt-17")).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!((&failed["step"], &failed["reason_code"]), (&json!("train"), &json!("model_not_found")));
    assert!(failed["reason"].as_str().unwrap().contains("gpt-17"), "{failed:#}");
    assert_eq!(service.simulator.creates().jobs, 1, "what the provider refuses is not asked for again");
    service.end().await;
}

#[tokio::test]
async fn cancelling_in_training_cancels_the_providers_job() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    service.wait_for(&id, "in training", |run| run["training"]["job_id"].is_string()).await;
    let why = json!({"reason": "wrong posts"});
    let asked = service.post(&format!("/v1/runs/{id}/cancel"), why).await.expect(202);
    assert_eq!(asked["request"], "cancel");
    let cancelled = service.wait_until(&id, "cancelled").await;
    assert_eq!(cancelled["reason"], "key:admin cancelled the run: wrong posts");
    let states: Vec<_> = service.simulator.jobs().iter().map(|job| job.status).collect();
    assert_eq!(states, [JobStatus::Cancelled]);
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.problem(409, "run-finished");
    // The place is free again.
    service.trigger("hook").await;
    service.end().await;
}

#[tokio::test]
async fn a_training_that_takes_too_long_is_cancelled_and_fails_the_run() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |config| config["training"]["time_limit_seconds"] = json!(0.5)).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!((&failed["step"], &failed["reason_code"]), (&json!("train"), &json!("training_time_limit")));
    assert_eq!(service.simulator.jobs()[0].status, JobStatus::Cancelled);
    service.end().await;
}

/// A pipeline that searches in two trainings, which a budget lets be paid for once and a half, and a run of it whose
/// trainings both have failed.
async fn failed_search(service: &TestService) -> String {
    let search = |config: &mut Value| config["training"]["search"] = json!({"n_epochs": [1, 2]});
    service.pipeline("hook", search).await;
    service.posts(12, 0.08).await;
    let report = service.post("/v1/pipelines/hook/preflight", Value::Null).await.expect(200);
    let mut limited = config();
    search(&mut limited);
    limited["budget"] = json!({"per_month": report["cost"]["amount"].as_f64().unwrap() * 1.5});
    service.put("/v1/pipelines/hook", &[], limited).await.expect(200);
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    service.simulator.fail_next_job("server_error", "The other one, too.");
    let id = service.trigger("hook").await;
    service.wait_until(&id, "failed").await;
    id
}

#[tokio::test]
async fn a_retry_renews_a_whole_search_at_the_price_of_the_day_once_its_budget_allows_it() {
    let service = TestService::start().await;
    let id = failed_search(&service).await;
    // What it was priced at then.
    sqlx::query("UPDATE trainings SET price_per_million = price_per_million / 1.25")
        .execute(&service.db)
        .await
        .unwrap();
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.expect(202);
    let run = service.wait_for(&id, "held", |run| run["status"] == "waiting_approval").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("preflight"), &json!("budget_exceeded")));
    assert_eq!(service.simulator.creates().jobs, 2, "nothing was paid for again");
    service.post(&format!("/v1/runs/{id}/approve"), Value::Null).await.expect(202);
    service.wait_for_test(&id).await;

    let trainings = service.read(&format!("/v1/runs/{id}/trainings")).await;
    let told: Vec<_> = trainings["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|training| (training["trial"].as_i64().unwrap(), training["status"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(0, "failed"), (0, "succeeded"), (1, "failed"), (1, "succeeded")]);
    let expected = |at: usize| trainings["items"][at]["expected_cost"].as_f64().unwrap();
    for (old, new) in [(0, 1), (2, 3)] {
        assert!((expected(new) - expected(old) * 1.25).abs() < 1e-6, "{trainings:#}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_retry_that_is_forced_asks_no_budget_and_nobody_else_and_says_who_forced_it() {
    let service = TestService::start().await;
    let id = failed_search(&service).await;
    let why = json!({"reason": "it is worth it", "force": true});
    service.post(&format!("/v1/runs/{id}/retry"), why).await.expect(202);
    service.wait_for_test(&id).await;
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let messages: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(messages.contains(&"key:admin approved the training: it is worth it"), "{messages:#?}");
    assert_eq!(service.simulator.creates().jobs, 4);
    service.end().await;
}
