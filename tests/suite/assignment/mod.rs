//! Who is served by what: from memory, by specification, against the split by pins, and not at all by it under the
//! kill switch.

mod kill_switch;
mod memory;
mod pins;
mod specification;

use serde_json::{Value, json};

use crate::harness::service::TestService;

/// A service with a candidate 1.0.0 in test at `weight` against 0.0.0, and the run that tests it.
async fn in_test(weight: i32) -> (TestService, String) {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["experiment"]["candidate_weight"] = json!(weight)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    (service, run)
}

/// Whether the outcome of this id is analysed.
async fn is_analysed(service: &TestService, outcome: &str) -> bool {
    sqlx::query_scalar("SELECT experiment_id IS NOT NULL FROM outcomes WHERE id = $1")
        .bind(outcome)
        .fetch_one(&service.db)
        .await
        .unwrap()
}

/// The actions of the audit trail of `hook`'s traffic, newest first.
async fn trail(service: &TestService) -> Vec<Value> {
    let events = service.read("/v1/audit?subject_kind=pipeline&subject_id=hook").await;
    let events = events["items"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["action"].as_str().unwrap().starts_with("traffic.")).collect()
}
