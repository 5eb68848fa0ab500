//! What a test says, and what becomes of the run, the candidate and the traffic.

use serde_json::{Value, json};
use tuneloop::audit::By;
use tuneloop::runs::{self, Request, Step};
use tuneloop::traffic;

use crate::harness::outcomes::{BETTER, Engagement, WORSE};
use crate::harness::service::TestService;

/// A service with a run of `hook` in test.
async fn in_test(change: impl FnOnce(&mut Value)) -> (TestService, String) {
    let service = TestService::start().await;
    service.pipeline("hook", change).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    (service, run)
}

/// A service with a run of `hook` that waits for a person, because no outcome arrived.
async fn inconclusive(change: impl FnOnce(&mut Value)) -> (TestService, String) {
    let (service, run) = in_test(change).await;
    service.reach_horizon(&run).await;
    (service, run)
}

async fn the_baseline_serves_everything(service: &TestService, candidate: &str) {
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    let statuses = [("1.0.0", candidate), ("0.0.0", "live")];
    let statuses = statuses.map(|(version, status)| (version.to_owned(), status.to_owned()));
    assert_eq!(service.versions("hook").await, statuses);
    let traffic = service.read("/v1/pipelines/hook/traffic").await;
    assert_eq!((&traffic["kind"], &traffic["salt"]), (&json!("test_ended"), &json!("hook")));
}

#[tokio::test]
async fn an_inconclusive_test_waits_for_a_person_whose_approval_promotes() {
    let (service, id) = inconclusive(|_| {}).await;
    let waiting = service.wait_until(&id, "waiting_approval").await;
    let decision = &waiting["decision"];
    assert_eq!(decision["verdict"], "inconclusive");
    assert_eq!(decision["reason_code"], "insufficient_outcomes");
    the_baseline_serves_everything(&service, "candidate").await;

    let refused =
        service.post(&format!("/v1/runs/{id}/approve"), Value::Null).await.problem(422, "invalid-request");
    assert_eq!(refused["errors"][0]["field"], "/reason");
    service.approve(&id).await;
    let run = service.wait_until(&id, "succeeded").await;
    assert_eq!(run["decision"]["verdict"], "inconclusive", "what the test said stays");
    assert_eq!(service.read("/v1/pipelines/hook").await["live"]["version"], "1.0.0");
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let told =
        |message: &str| events["items"].as_array().unwrap().iter().any(|event| event["message"] == message);
    assert!(told("key:admin approved the promotion: it reads better"), "{events:#}");
    let history = service.read("/v1/pipelines/hook/traffic/history").await;
    let promotion =
        history["items"].as_array().unwrap().iter().find(|revision| revision["kind"] == "promotion");
    let promotion = promotion.expect("there is a promotion");
    let reason = "key:admin approved hook@1.0.0 although its test was inconclusive: it reads better";
    assert_eq!((&promotion["reason"], &promotion["forced"]), (&json!(reason), &json!(true)));
    assert!(promotion["decision_id"].is_string(), "{promotion:#}");
    assert_eq!(service.read("/v1/pipelines/hook/models/1.0.0").await["forced"], true);
    let trail = service.read("/v1/audit?action=run.approve").await;
    let event = &trail["items"][0];
    assert_eq!(
        (&event["reason"], &event["after"]),
        (&json!("it reads better"), &json!({"request": "approve"}))
    );
    service.end().await;
}

#[tokio::test]
async fn an_inconclusive_test_that_a_person_rejects_ends_as_rejected() {
    let (service, id) = inconclusive(|_| {}).await;
    service.wait_until(&id, "waiting_approval").await;
    service.post(&format!("/v1/runs/{id}/reject"), Value::Null).await.expect(202);
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!(run["reason_code"], "rejected_by_operator");
    the_baseline_serves_everything(&service, "rejected").await;
    service.end().await;
}

#[tokio::test]
async fn an_inconclusive_test_that_nobody_decides_expires() {
    let (service, id) = inconclusive(|config| config["experiment"]["approval_seconds"] = json!(0.2)).await;
    let ended = |run: &Value| run["status"] == "inconclusive";
    let run = service.wait_for(&id, "inconclusive", ended).await;
    assert_eq!(run["reason_code"], "approval_expired");
    the_baseline_serves_everything(&service, "candidate").await;
    service.end().await;
}

#[tokio::test]
async fn only_a_run_that_waits_can_be_approved() {
    let (service, id) = in_test(|_| {}).await;
    for request in ["approve", "reject"] {
        let path = format!("/v1/runs/{id}/{request}");
        service.post(&path, Value::Null).await.problem(409, "run-not-waiting");
    }
    service.end().await;
}

#[tokio::test]
async fn a_candidate_that_is_worse_at_the_horizon_is_rejected_and_gets_no_traffic() {
    // Without looks for harm, which would end the test earlier.
    let (service, id) =
        in_test(|config| config["experiment"]["rules"]["harm_minimum_outcomes"] = json!(1_000_000)).await;
    service.traffic("hook", 0..80, WORSE).await;
    service.reach_horizon(&id).await;
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!((&run["decision"]["verdict"], &run["reason_code"]), (&json!("reject"), &json!("no_lift")));
    the_baseline_serves_everything(&service, "rejected").await;
    service.end().await;
}

#[tokio::test]
async fn a_candidate_that_does_harm_is_stopped_long_before_the_horizon() {
    let (service, id) = in_test(|_| {}).await;
    service.traffic("hook", 0..80, WORSE).await;
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!((&run["decision"]["verdict"], &run["reason_code"]), (&json!("stop_for_harm"), &json!("harm")));
    the_baseline_serves_everything(&service, "rejected").await;
    service.end().await;
}

#[tokio::test]
async fn units_that_arrive_in_another_proportion_make_the_test_invalid() {
    let (service, id) = in_test(|_| {}).await;
    let assigned = service.assignment("hook", "persona-0").await;
    let mut outcomes = Vec::new();
    for unit in 0..200 {
        // Of a test at one half, a tenth of the units reports the baseline.
        let mut assigned = assigned.clone();
        assigned["version"] = json!(if unit % 10 == 0 { "0.0.0" } else { "1.0.0" });
        let rate = 0.06 + f64::from(unit % 7) / 1000.0;
        outcomes.push(service.outcome("hook", &format!("o-{unit}"), &format!("u-{unit}"), &assigned, rate));
    }
    service.record(outcomes).await;
    service.reach_horizon(&id).await;
    let run = service.wait_until(&id, "failed").await;
    assert_eq!(
        (&run["decision"]["verdict"], &run["reason_code"]),
        (&json!("invalid"), &json!("sample_ratio_mismatch"))
    );
    the_baseline_serves_everything(&service, "candidate").await;

    // A retry is not lost on a worker that is about to end the job, having found the run at its end.
    let held = "UPDATE jobs SET state = 'leased', finished_at = NULL, lease_token = gen_random_uuid(),
                       lease_expires_at = now() + interval '1 hour'
                 WHERE id = (SELECT max(id) FROM jobs WHERE kind = 'run' AND subject = $1)";
    sqlx::query(held).bind(&id).execute(&service.db).await.unwrap();
    // It tests the same version anew, in an experiment of its own.
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.expect(202);
    let let_go = "UPDATE jobs SET state = CASE WHEN woken THEN 'ready' ELSE 'done' END, run_at = now(), woken = false,
                         finished_at = CASE WHEN woken THEN NULL ELSE now() END, lease_token = NULL, lease_expires_at = NULL
                   WHERE kind = 'run' AND subject = $1 AND state = 'leased'";
    assert_eq!(sqlx::query(let_go).bind(&id).execute(&service.db).await.unwrap().rows_affected(), 1);
    let again = |test: &Value| test["status"] == "running" && test.get("experiment_id").is_some();
    let again = service.wait_for(&id, "in test again", again).await;
    assert_ne!(again["experiment_id"], run["experiment_id"]);
    assert_eq!((&again["version"], again.get("decision")), (&json!("1.0.0"), None));
    assert_eq!(service.simulator.creates().jobs, 1);
    service.end().await;
}

#[tokio::test]
async fn cancelling_in_a_test_returns_the_traffic_to_the_baseline() {
    let (service, id) = in_test(|_| {}).await;
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.expect(202);
    let run = service.wait_until(&id, "cancelled").await;
    assert_eq!(run["step"], "test");
    the_baseline_serves_everything(&service, "candidate").await;
    let experiment = format!("/v1/experiments/{}", run["experiment_id"].as_str().unwrap());
    assert_eq!(service.read(&experiment).await["status"], "aborted");
    service.end().await;
}

#[tokio::test]
async fn a_cancel_that_is_accepted_before_the_promotion_prevents_it() {
    let (service, id) = in_test(|_| {}).await;
    service.traffic("hook", 0..80, BETTER).await;
    let hold = async || {
        let mut tx = service.db.begin().await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
        (tx, pid)
    };
    let (mut first, holder) = hold().await;
    let (mut second, waiter) = hold().await;
    traffic::lock(&mut first, "hook").await.unwrap();
    service.reach_horizon(&id).await;
    service.until_blocked_by(holder).await;
    // Queues behind the decision and before the promotion.
    let queue = async {
        traffic::lock(&mut second, "hook").await.unwrap();
        second
    };
    let release = async {
        service.until_blocked(waiter).await;
        first.rollback().await.unwrap();
    };
    let (mut second, ()) = tokio::join!(queue, release);
    service.until_blocked_by(waiter).await;
    let run = runs::lock(&mut second, id.parse().unwrap()).await.unwrap();
    assert_eq!(run.step, Step::Promote);
    runs::request(&mut second, run, Request::Cancel, None, &By::system()).await.unwrap();
    second.commit().await.unwrap();
    let run = service.wait_until(&id, "cancelled").await;
    assert_eq!(run["step"], "promote");
    assert_eq!(service.read("/v1/pipelines/hook").await["live"]["version"], "0.0.0");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn harm_in_the_watch_rolls_the_promoted_version_back_by_itself() {
    let (service, id) = in_watch(5000).await;
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 5000), ("0.0.0".to_owned(), 5000)]);
    let cancel = format!("/v1/runs/{id}/cancel");
    service.post(&cancel, Value::Null).await.problem(409, "run-promoted");

    service.traffic("hook", 0..80, Engagement { baseline: 0.08, candidate: 0.03 }).await;
    let run = service.wait_until(&id, "rolled_back").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("watch"), &json!("harm")));
    assert_eq!(run["decision"]["verdict"], "promote", "the decision of the test stays as it was");
    let traffic = service.read("/v1/pipelines/hook/traffic").await;
    assert_eq!((&traffic["kind"], &traffic["live"]), (&json!("rollback"), &json!("0.0.0")));
    assert!(traffic["reason"].as_str().unwrap().contains("which is harm"), "{traffic:#}");
    let told = run["reason"].as_str().unwrap();
    assert!(told.starts_with("ROLLED BACK: hook@1.0.0 did harm and serves no more."), "{told}");
    assert!(told.ends_with("hook@0.0.0 is live again."), "{told}");
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let last = events["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["message"]), (&json!("finished"), &run["reason"]));
    assert_eq!(last["data"]["rolled_back"], "1.0.0");
    let metrics = service.text("/metrics", &[]).await;
    let counted = r#"tuneloop_rollbacks_total{cause="harm",pipeline="hook"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let statuses = [("1.0.0", "rolled_back"), ("0.0.0", "live")];
    let statuses = statuses.map(|(version, status)| (version.to_owned(), status.to_owned()));
    assert_eq!(service.versions("hook").await, statuses);
    service.end().await;
}

/// A service with a promoted run in its watch, beside a hold-back of this weight.
async fn in_watch(hold_back: i64) -> (TestService, String) {
    let (service, id) = in_test(|config| {
        config["watch"] =
            json!({"duration_seconds": 3600.0, "interval_seconds": 0.25, "hold_back_weight": hold_back});
    })
    .await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&id).await;
    service.wait_for_watch(&id).await;
    (service, id)
}

/// The same without a hold-back.
async fn watched_alone() -> (TestService, String) {
    let (service, id) = in_watch(0).await;
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 10_000)]);
    (service, id)
}

#[tokio::test]
async fn without_a_hold_back_the_watch_compares_with_the_baseline_of_the_test_and_says_that_it_is_weaker() {
    let (service, id) = watched_alone().await;
    service.traffic("hook", 0..80, BETTER).await;
    let judged = |run: &Value| run["reason"].as_str().unwrap_or_default().starts_with("No harm shown");
    let run = service.wait_for(&id, "judged", judged).await;
    let weaker = "with the baseline before the promotion, not beside it, and is weaker evidence.";
    assert!(run["reason"].as_str().unwrap().ends_with(weaker), "{run:#}");
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let look = &events["items"].as_array().unwrap().last().unwrap()["data"]["look"];
    assert_eq!((&look["concurrent"], &look["enough"]), (&json!(false), &json!(true)), "{look:#}");
    // Two outcomes of each unit: the candidate's since the promotion, the baseline's of its half of the test.
    let counts = &look["looks"][0]["counts"];
    assert_eq!(counts["candidate"]["outcomes"], 160, "{counts}");
    let tested = &run["decision"]["estimate"]["counts"]["baseline"]["outcomes"];
    assert_eq!(&counts["baseline"]["outcomes"], tested);
    service.end().await;
}

#[tokio::test]
async fn without_a_hold_back_harm_is_found_against_the_baseline_of_the_test() {
    let (service, id) = watched_alone().await;
    service.traffic("hook", 0..80, Engagement { baseline: 0.06, candidate: 0.03 }).await;
    let run = service.wait_until(&id, "rolled_back").await;
    assert!(run["reason"].as_str().unwrap().contains("is weaker evidence"), "{run:#}");
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn harm_is_found_as_well_after_a_person_took_the_hold_back_away() {
    let (service, id) = in_watch(5000).await;
    let path = "/v1/pipelines/hook/traffic";
    let etag = format!("\"{}\"", service.read(path).await["revision"]);
    let body = json!({"weights": {"1.0.0": 10_000, "0.0.0": 0}, "reason": "all of it"});
    service.put(path, &[("if-match", &etag)], body).await.expect(200);
    service.traffic("hook", 0..80, Engagement { baseline: 0.06, candidate: 0.03 }).await;
    let run = service.wait_until(&id, "rolled_back").await;
    assert!(run["reason"].as_str().unwrap().contains("is weaker evidence"), "{run:#}");
    service.end().await;
}
