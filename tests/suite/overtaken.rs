//! What a run may no longer do once the pipeline has moved past it: operators are faster than runs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::outcomes::WORSE;
use crate::harness::service::TestService;
use crate::rollback::watched;

fn promote(version: &str) -> String {
    format!("/v1/pipelines/hook/models/{version}/promote")
}

async fn roll_back(service: &TestService) {
    service.post("/v1/pipelines/hook/rollback", json!({"reason": "bad tone"})).await.expect(200);
}

/// Ends the run as failed where it stands, as an error that does not go away would.
async fn fail(service: &TestService, run: &str) {
    let subject =
        "UPDATE jobs SET state = 'failed', finished_at = now(), lease_token = NULL, lease_expires_at = NULL
                    WHERE subject = $1 AND state IN ('ready', 'leased')";
    let mut tx = service.db.begin().await.unwrap();
    sqlx::query("SELECT id FROM runs WHERE id = $1::uuid FOR UPDATE")
        .bind(run)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(subject).bind(run).execute(&mut *tx).await.unwrap();
    sqlx::query(
        "UPDATE runs SET status = 'failed', place = NULL, finished_at = now(), reason_code = 'retries_exhausted',
                reason = 'an outage', version = version + 1 WHERE id = $1::uuid",
    )
    .bind(run)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_version_that_was_rolled_back_while_its_run_waited_is_not_tested() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let testing = service.trigger("hook").await;
    service.wait_for_test(&testing).await;
    let waiting = service.trigger("hook").await;
    let waits = |run: &Value| run["reason_code"] == "proving_place_taken";
    service.wait_for(&waiting, "waiting for its place", waits).await;

    // Whether the waiting run looks after the first move or after both, its version is no candidate any more.
    service.post(&promote("1.0.1"), json!({"reason": "in a hurry", "force": true})).await.expect(200);
    roll_back(&service).await;

    let run = service.wait_until(&waiting, "cancelled").await;
    assert_eq!(run["reason_code"], "candidate_not_testable", "{run:#}");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    let versions = service.versions("hook").await;
    assert!(versions.contains(&("1.0.1".to_owned(), "rolled_back".to_owned())), "{versions:?}");
    service.end().await;
}

#[tokio::test]
async fn a_failed_test_of_a_version_that_was_rolled_back_since_cannot_be_retried() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            // Everything counts as a mismatch, so that the test fails and its version stays a candidate.
            config["experiment"]["rules"]["sample_ratio_alpha"] = json!(0.49);
            config["experiment"]["candidate_weight"] = json!(100);
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    fail(&service, &run).await;
    service.post(&promote("1.0.0"), json!({"reason": "by hand", "force": true})).await.expect(200);
    roll_back(&service).await;
    service.post(&format!("/v1/runs/{run}/retry"), Value::Null).await.problem(409, "run-overtaken");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn a_watch_of_a_version_that_was_replaced_takes_nothing_back() {
    let (service, run) = watched().await;
    fail(&service, &run).await;
    service.post(&promote("0.0.0"), json!({"reason": "safer for now", "force": true})).await.expect(200);
    service.post(&format!("/v1/runs/{run}/retry"), Value::Null).await.problem(409, "run-overtaken");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn a_failed_watch_is_retried_and_still_rolls_back_on_harm() {
    let (service, run) = watched().await;
    fail(&service, &run).await;
    service.post(&format!("/v1/runs/{run}/retry"), Value::Null).await.expect(202);
    service.wait_for_watch(&run).await;
    service.traffic("hook", 0..600, WORSE).await;
    let run = service.wait_until(&run, "rolled_back").await;
    assert_eq!(run["reason_code"], "harm");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn two_people_who_roll_back_the_same_trouble_roll_back_once() {
    let (service, run) = watched().await;
    let etag = service.get("/v1/pipelines/hook/traffic").await.header("etag").to_owned();
    let body = || Some(json!({"reason": "bad tone"}));
    let headers = [("if-match", etag.as_str())];
    let (one, other) = tokio::join!(
        service.send(Method::POST, "/v1/pipelines/hook/rollback", &headers, body()),
        service.send(Method::POST, "/v1/pipelines/hook/rollback", &headers, body()),
    );
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    service.wait_until(&run, "rolled_back").await;
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn extreme_outcomes_neither_stop_a_test_nor_its_view() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["experiment"]["rules"]["policy"] = json!({"minimum_cost_gain": 0.1});
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let testing = service.wait_for_test(&run).await;
    let assigned = service.assignment("hook", "u").await;
    let extremes = [f64::MIN_POSITIVE, 5e-324, 1e-200, 0.0, 1.0];
    let mut outcomes = Vec::new();
    for (index, extreme) in extremes.into_iter().enumerate() {
        let mut outcome =
            service.outcome("hook", &format!("o{index}"), &format!("u{index}"), &assigned, extreme);
        outcome["cost"] = json!(if index == 0 { 1e12 } else { extreme });
        outcome["latency_ms"] = json!(1e12);
        outcome["engagements"] = json!(i64::MAX);
        outcomes.push(outcome);
    }
    service.record(outcomes).await;
    let refused = |field: &str, value: f64| {
        let mut outcome = service.outcome("hook", "x", "u", &assigned, 0.5);
        outcome[field] = json!(value);
        outcome
    };
    let batch = json!([refused("cost", 1e200), refused("latency_ms", 1e13), refused("quality", 1.1)]);
    let recorded = service.post("/v1/outcomes", batch).await.expect(200);
    assert_eq!(recorded["rejected"].as_array().unwrap().len(), 3, "{recorded:#}");
    let experiment = testing["experiment_id"].as_str().unwrap();
    service.get(&format!("/v1/experiments/{experiment}")).await.expect(200);
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;
    service.end().await;
}

#[tokio::test]
async fn times_beyond_the_calendar_are_refused() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    let assigned = service.assignment("hook", "u").await;
    let mut outcome = service.outcome("hook", "o", "u", &assigned, 0.5);
    outcome["served_at"] = json!("-262143-01-01T00:00:00Z");
    let recorded = service.post("/v1/outcomes", json!([outcome])).await.expect(200);
    assert_eq!(recorded["rejected"][0]["index"], 0, "{recorded:#}");
    let path = "/v1/pipelines/hook/traffic/history?at=-262143-01-01T00:00:00Z";
    service.get(path).await.problem(422, "unstorable-time");
    service.end().await;
}
