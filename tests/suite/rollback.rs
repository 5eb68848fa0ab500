//! Operators move the live version: back, and to a version of their choice.

use reqwest::Method;
use serde_json::json;
use tuneloop::audit::By;
use tuneloop::{runs, traffic};

use crate::harness::outcomes::{BETTER, Engagement};
use crate::harness::service::TestService;

/// A service with a pipeline whose watch has no hold-back and ends at once.
async fn service() -> TestService {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["watch"] =
                json!({"duration_seconds": 0.1, "interval_seconds": 0.1, "hold_back_weight": 0});
        })
        .await;
    service.posts(12, 0.08).await;
    service
}

/// Makes a version without a test's help: nobody served it, a person approves it.
async fn promoted(service: &TestService) -> String {
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;
    service.approve(&run).await;
    service.wait_until(&run, "succeeded").await;
    run
}

async fn statuses(service: &TestService) -> String {
    let versions = service.versions("hook").await;
    versions.iter().map(|(version, status)| format!("{version} {status}")).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn rollback_restores_the_previous_version_with_its_reason_and_never_a_bad_one() {
    let service = service().await;
    let rollback = "/v1/pipelines/hook/rollback";
    let nothing = service.post(rollback, json!({"reason": "too early"})).await;
    nothing.problem(409, "nothing-to-roll-back-to");
    promoted(&service).await;
    promoted(&service).await;
    assert_eq!(statuses(&service).await, "1.0.1 live, 1.0.0 retired, 0.0.0 retired");

    let back = service.post(rollback, json!({"reason": "complaints about tone"})).await;
    assert_eq!(back.header("etag"), "\"10\"");
    let back = back.expect(200);
    assert_eq!((&back["live"], &back["kind"]), (&json!("1.0.0"), &json!("rollback")));
    assert_eq!((&back["reason"], &back["actor"]), (&json!("complaints about tone"), &json!("key:admin")));
    assert_eq!(statuses(&service).await, "1.0.1 rolled_back, 1.0.0 live, 0.0.0 retired");

    // 1.0.1 was live before 1.0.0 is now, and yet it does not come back.
    let further = service.post(rollback, json!({"reason": "still bad"})).await.expect(200);
    assert_eq!(further["live"], "0.0.0");
    assert_eq!(statuses(&service).await, "1.0.1 rolled_back, 1.0.0 rolled_back, 0.0.0 live");
    let nothing = service.post(rollback, json!({"reason": "and again"})).await;
    nothing.problem(409, "nothing-to-roll-back-to");
    let named = json!({"reason": "by name", "version": "1.0.1"});
    service.post(rollback, named).await.problem(409, "cannot-serve");
    let unknown = json!({"reason": "by name", "version": "7.0.0"});
    service.post(rollback, unknown).await.problem(422, "unknown-version");
    service.post(rollback, json!({"reason": " "})).await.problem(422, "invalid-request");
    let path = "/v1/pipelines/tail/rollback";
    service.post(path, json!({"reason": "no such pipeline"})).await.problem(404, "not-found");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn rollback_goes_to_the_version_that_was_live_before_and_that_is_named() {
    let service = service().await;
    promoted(&service).await;
    promoted(&service).await;
    let back = json!({"reason": "further back", "version": "0.0.0"});
    let back = service.post("/v1/pipelines/hook/rollback", back).await.expect(200);
    assert_eq!(back["live"], "0.0.0");
    assert_eq!(statuses(&service).await, "1.0.1 rolled_back, 1.0.0 retired, 0.0.0 live");
    service.end().await;
}

#[tokio::test]
async fn a_rollback_is_not_blocked_by_a_run_in_test_which_is_aborted() {
    let service = service().await;
    promoted(&service).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let back =
        service.post("/v1/pipelines/hook/rollback", json!({"reason": "an incident"})).await.expect(200);
    assert_eq!(back["live"], "0.0.0");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    let run = service.wait_until(&run, "cancelled").await;
    assert_eq!(run["reason_code"], "test_aborted");
    assert!(run["reason"].as_str().unwrap().ends_with("an incident"), "{run:#}");
    assert_eq!(statuses(&service).await, "1.0.1 candidate, 1.0.0 rolled_back, 0.0.0 live");
    service.end().await;
}

/// A service with a run whose version is live and watched for an hour.
pub(crate) async fn watched() -> (TestService, String) {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["watch"]["duration_seconds"] = json!(3600.0)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;
    service.approve(&run).await;
    service.wait_for_watch(&run).await;
    (service, run)
}

#[tokio::test]
async fn a_rollback_in_the_watch_ends_the_run_as_rolled_back() {
    let (service, run) = watched().await;
    service.post("/v1/pipelines/hook/rollback", json!({"reason": "bad tone"})).await.expect(200);
    let run = service.wait_until(&run, "rolled_back").await;
    assert_eq!(run["reason_code"], "rolled_back_by_operator");
    assert_eq!(statuses(&service).await, "1.0.0 rolled_back, 0.0.0 live");
    service.end().await;
}

#[tokio::test]
async fn a_step_whose_run_is_moved_under_its_hands_changes_nothing_and_gives_its_job_back() {
    let (service, run) = watched().await;
    let mut tx = service.db.begin().await.unwrap();
    traffic::lock(&mut tx, "hook").await.unwrap();
    // The next look of the watch has read the run and waits for the pipeline.
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
    service.until_blocked_by(pid).await;
    runs::yield_to_operator(&mut tx, "hook", true, "bad tone", &By::system()).await.unwrap();
    traffic::rollback(&mut tx, "hook", None, "bad tone", &By::system()).await.unwrap();
    tx.commit().await.unwrap();
    let run = service.wait_until(&run, "rolled_back").await;
    assert_eq!(run["reason_code"], "rolled_back_by_operator");
    // Its job does not stay with the worker until the lease runs out.
    service.end().await;
}

#[tokio::test]
async fn a_rollback_that_is_sent_again_is_one_rollback_also_from_two_clients_at_once() {
    let service = service().await;
    promoted(&service).await;
    promoted(&service).await;
    let before = service.read("/v1/pipelines/hook/traffic").await["revision"].as_i64().unwrap();
    let body = || Some(json!({"reason": "an incident"}));
    let send =
        || service.send(Method::POST, "/v1/pipelines/hook/rollback", &[("idempotency-key", "k-1")], body());
    let (one, other) = tokio::join!(send(), send());
    let replayed = [&one, &other].map(|answer| answer.headers.contains_key("idempotency-replayed"));
    assert_ne!(replayed[0], replayed[1], "one of them did it");
    let (one, other) = (one.expect(200), other.expect(200));
    assert_eq!(one, other);
    assert_eq!((&one["live"], one["revision"].as_i64()), (&json!("1.0.0"), Some(before + 1)));
    let later = send().await;
    assert_eq!((later.header("idempotency-replayed"), &later.body), ("true", &one));
    assert_eq!(service.read("/v1/pipelines/hook/traffic").await, one);
    assert_eq!(statuses(&service).await, "1.0.1 rolled_back, 1.0.0 live, 0.0.0 retired");
    service.end().await;
}

#[tokio::test]
async fn harm_with_nothing_to_go_back_to_is_said_as_such() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["watch"] =
                json!({"duration_seconds": 3600.0, "interval_seconds": 0.25, "hold_back_weight": 0});
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_for_watch(&run).await;
    sqlx::query("UPDATE model_versions SET status = 'unavailable' WHERE status = 'retired'")
        .execute(&service.db)
        .await
        .unwrap();
    // Compared with what its test saw of the former one.
    let halved = Engagement { baseline: 0.06, candidate: 0.03 };
    service.traffic("hook", 100..300, halved).await;
    let run = service.wait_until(&run, "failed").await;
    assert_eq!(run["reason_code"], "nothing_to_roll_back_to");
    let reason = run["reason"].as_str().unwrap();
    assert!(reason.starts_with("HARM: hook@1.0.0 does harm and stays live"), "{reason}");
    assert!(reason.contains("e-value"), "{reason}");
    assert_eq!(statuses(&service).await, "1.0.0 live, 0.0.0 unavailable");
    let looks =
        service.read(&format!("/v1/experiments/{}/series", run["experiment_id"].as_str().unwrap())).await;
    let last = looks["items"].as_array().unwrap().last().unwrap();
    assert_eq!(last["phase"], "watch", "the look that found it is kept: {last:#}");
    service.end().await;
}
