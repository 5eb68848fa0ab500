//! Models that end at their provider: dates that are told, warnings, versions that are gone and come back.

use std::time::Duration;

use serde_json::{Value, json};
use tuneloop::jobs;
use tuneloop::simulator::FaultPlan;

use crate::harness::service::{TestService, config};

const TRAFFIC: &str = "/v1/pipelines/hook/traffic";

/// Has the models checked, and waits until they are.
async fn check(service: &TestService) {
    let mut tx = service.db.begin().await.unwrap();
    jobs::wake(&mut tx, "model_check", "hook").await.unwrap();
    tx.commit().await.unwrap();
    let done =
        "SELECT EXISTS (SELECT FROM jobs WHERE kind = 'model_check' AND subject = 'hook' AND state = 'ready'
                                  AND NOT woken AND attempt = 0 AND run_at > now())";
    let checked = async {
        while !sqlx::query_scalar::<_, bool>(done).fetch_one(&service.db).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), checked).await.expect("the models are checked");
}

/// Seconds until the next check.
async fn next_check(service: &TestService) -> f64 {
    let next = "SELECT extract(epoch FROM run_at - now())::float8 FROM jobs WHERE kind = 'model_check' AND state IN ('ready', 'leased')";
    sqlx::query_scalar(next).fetch_one(&service.db).await.unwrap()
}

/// As if what is not found now had not been found a minute ago either.
async fn a_minute_passes(service: &TestService) {
    sqlx::query("UPDATE model_versions SET missing_since = missing_since - interval '1 minute'")
        .execute(&service.db)
        .await
        .unwrap();
}

fn faults(service: &TestService, plan: &Value) {
    service.simulator.set_faults(FaultPlan::parse(&plan.to_string()).unwrap());
}

/// Makes models unknown to the provider, and no others.
fn vanish(service: &TestService, models: &[&str]) {
    let models: serde_json::Map<String, Value> =
        models.iter().map(|model| ((*model).to_owned(), json!({"gone": true}))).collect();
    faults(service, &json!({"models": models}));
}

/// The audit events of this kind, newest first.
async fn events(service: &TestService, action: &str) -> Vec<Value> {
    let trail = service.read("/v1/audit?limit=200").await;
    let events = trail["items"].as_array().unwrap().iter();
    events.filter(|event| event["action"] == action).cloned().collect()
}

async fn model_id(service: &TestService, version: &str) -> String {
    let shown = service.read(&format!("/v1/pipelines/hook/models/{version}")).await;
    shown["model_id"].as_str().unwrap().to_owned()
}

async fn statuses(service: &TestService) -> String {
    let versions = service.versions("hook").await;
    versions.iter().map(|(version, status)| format!("{version} {status}")).collect::<Vec<_>>().join(", ")
}

fn all_to(version: &str) -> Vec<(String, i64)> {
    vec![(version.to_owned(), 10_000)]
}

async fn service(change: impl FnOnce(&mut Value)) -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", change).await;
    service.posts(12, 0.08).await;
    service
}

/// A service on which 1.0.0 and 1.0.1 were made live by hand, one after the other.
async fn promoted_twice(change: impl FnOnce(&mut Value)) -> TestService {
    let service = service(change).await;
    for version in ["1.0.0", "1.0.1"] {
        let run = service.trigger("hook").await;
        service.wait_for_test(&run).await;
        let promote = format!("/v1/pipelines/hook/models/{version}/promote");
        service.post(&promote, json!({"reason": "it reads better", "force": true})).await.expect(200);
        service.wait_until(&run, "cancelled").await;
    }
    assert_eq!(statuses(&service).await, "1.0.1 live, 1.0.0 retired, 0.0.0 retired");
    service
}

#[tokio::test]
async fn the_date_of_a_models_end_is_shown_and_announced_once_at_each_threshold() {
    let service = service(|_| {}).await;
    let version = "/v1/pipelines/hook/models/0.0.0";
    check(&service).await;
    let availability = service.read(version).await["availability"].clone();
    assert!(availability["checked_at"].is_string(), "{availability}");
    assert_eq!(availability.as_object().unwrap().len(), 1, "{availability}");
    assert!(next_check(&service).await > 86_000.0);

    let today = service.clock.now().date_naive();
    for (days, announced) in [(61, 0), (60, 1), (45, 1), (29, 2), (28, 2), (3, 3), (0, 3)] {
        let date = today + chrono::TimeDelta::days(days);
        faults(&service, &json!({"models": {"gpt-4o": {"shutdown_date": date}}}));
        // The days pass: the date stays the same one.
        sqlx::query("UPDATE model_versions SET shutdown_date = $1 WHERE shutdown_date IS NOT NULL")
            .bind(date)
            .execute(&service.db)
            .await
            .unwrap();
        check(&service).await;
        check(&service).await;
        let told = events(&service, "model.end_of_life").await;
        assert_eq!(told.len(), announced, "{days} days: {told:#?}");
        let shown = service.read(version).await["availability"].clone();
        assert_eq!((&shown["shutdown_date"], &shown["days_left"]), (&json!(date), &json!(days)));
    }
    let told = events(&service, "model.end_of_life").await;
    let figures: Vec<_> =
        told.iter().map(|event| (&event["after"]["threshold"], &event["after"]["days_left"])).collect();
    assert_eq!(figures, [(&json!(7), &json!(3)), (&json!(30), &json!(29)), (&json!(60), &json!(60))]);
    assert_eq!(
        (&told[0]["subject_kind"], &told[0]["subject_id"], &told[0]["pipeline"]),
        (&json!("model_version"), &json!("hook@0.0.0"), &json!("hook"))
    );
    let metrics = service.text("/metrics", &[]).await;
    let gauge = r#"tuneloop_model_days_left{pipeline="hook",version="0.0.0"} 0"#;
    assert!(metrics.lines().any(|line| line == gauge), "{metrics}");

    // Another date is other news; and a date that is taken back is none.
    let later = today + chrono::TimeDelta::days(50);
    faults(&service, &json!({"models": {"gpt-4o": {"shutdown_date": later}}}));
    check(&service).await;
    assert_eq!(events(&service, "model.end_of_life").await[0]["after"]["threshold"], 60);
    faults(&service, &json!({}));
    check(&service).await;
    assert_eq!(service.read(version).await["availability"].get("shutdown_date"), None);
    assert_eq!(statuses(&service).await, "0.0.0 live");
    service.end().await;
}

#[tokio::test]
async fn a_live_model_that_is_gone_gives_its_traffic_to_the_newest_version_that_answers() {
    let service = promoted_twice(|_| {}).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let (live, before) = (model_id(&service, "1.0.1").await, model_id(&service, "1.0.0").await);
    vanish(&service, &[&live, &before]);
    check(&service).await;
    // Once may be a mistake.
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.2 testing, 1.0.1 live, 1.0.0 retired, 0.0.0 retired");
    assert!(next_check(&service).await <= 60.0);
    let shown = service.read("/v1/pipelines/hook/models/1.0.1").await;
    assert!(shown["availability"]["missing_since"].is_string(), "{shown:#}");

    a_minute_passes(&service).await;
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.2 candidate, 1.0.1 unavailable, 1.0.0 retired, 0.0.0 live");
    assert_eq!(service.weights("hook").await, all_to("0.0.0"));
    let traffic = service.read(TRAFFIC).await;
    assert_eq!((&traffic["kind"], &traffic["actor"]), (&json!("rollback"), &json!("worker")));
    let reason = traffic["reason"].as_str().unwrap();
    assert!(reason.contains(&live) && reason.contains("hook@0.0.0 still answers"), "{reason}");
    let run = service.wait_until(&run, "cancelled").await;
    assert_eq!(run["reason_code"], "model_unavailable");
    let gone = events(&service, "model.unavailable").await;
    assert_eq!((gone.len(), &gone[0]["subject_id"]), (1, &json!("hook@1.0.1")));
    let changed = events(&service, "model.status").await;
    let lost = changed.iter().find(|event| event["after"]["status"] == "unavailable").unwrap();
    assert_eq!((&lost["subject_id"], &lost["before"]["status"]), (&json!("hook@1.0.1"), &json!("live")));
    let metrics = service.text("/metrics", &[]).await;
    let counted = r#"tuneloop_rollbacks_total{cause="model_unavailable",pipeline="hook"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");

    // It stays so while the model is away, and is told once.
    check(&service).await;
    assert_eq!(events(&service, "model.unavailable").await.len(), 1);
    let promote = "/v1/pipelines/hook/models/1.0.1/promote";
    service
        .post(promote, json!({"reason": "too early", "force": true}))
        .await
        .problem(409, "promotion-unsafe");
    vanish(&service, &[]);
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.2 candidate, 1.0.1 retired, 1.0.0 retired, 0.0.0 live");
    let changed = &events(&service, "model.status").await[0];
    assert_eq!(
        (&changed["before"]["status"], &changed["after"]["status"]),
        (&json!("unavailable"), &json!("retired"))
    );
    let back = events(&service, "model.available").await;
    assert_eq!((back.len(), &back[0]["after"]["status"]), (1, &json!("retired")));
    assert_eq!(service.weights("hook").await, all_to("0.0.0"), "nothing comes back by itself");
    service.post(promote, json!({"reason": "it is there again", "force": true})).await.expect(200);
    service.end().await;
}

#[tokio::test]
async fn a_provider_that_gives_no_proper_answer_changes_nothing() {
    let service = promoted_twice(|_| {}).await;
    let live = model_id(&service, "1.0.1").await;
    let revision = service.read(TRAFFIC).await["revision"].clone();
    let read = |fault: &str| json!({"route_rates": {"read": {fault: 1.0}}});
    for trouble in ["unavailable", "rate_limited", "malformed", "dropped_before"] {
        // Even where the model was not found a minute ago.
        vanish(&service, &[&live]);
        check(&service).await;
        a_minute_passes(&service).await;
        faults(&service, &read(trouble));
        check(&service).await;
        assert!(next_check(&service).await <= 600.0);
        let shown = service.read("/v1/pipelines/hook/models/1.0.1").await;
        assert_eq!((&shown["status"], shown["availability"].get("missing_since")), (&json!("live"), None));
    }
    assert_eq!(service.read(TRAFFIC).await["revision"], revision);
    assert!(events(&service, "model.unavailable").await.is_empty());
    faults(&service, &json!({}));
    service.end().await;
}

#[tokio::test]
async fn a_live_model_that_nothing_replaces_stays_live_and_is_told_of() {
    let nothing = |config: &mut Value| config["lifecycle"] = json!({"when_gone": "nothing"});
    let service = promoted_twice(nothing).await;
    let (live, before) = (model_id(&service, "1.0.1").await, model_id(&service, "1.0.0").await);
    vanish(&service, &[&live, &before, "gpt-4o"]);
    for _ in 0..3 {
        check(&service).await;
        a_minute_passes(&service).await;
    }
    assert_eq!(statuses(&service).await, "1.0.1 live, 1.0.0 retired, 0.0.0 retired");
    let told = events(&service, "model.unavailable").await;
    assert_eq!((told.len(), &told[0]["after"]["status"]), (1, &json!("live")));
    assert!(told[0]["reason"].as_str().unwrap().contains("lifecycle.when_gone says so"), "{told:#?}");
    let shown = service.read("/v1/pipelines/hook/models/1.0.1").await;
    assert!(shown["availability"]["gone_at"].is_string(), "{shown:#}");

    // Allowed to, it still does not go to a version that does not answer either, but to the first that does.
    service.put("/v1/pipelines/hook", &[("if-match", "*")], config()).await.expect(200);
    check(&service).await;
    assert_eq!(service.weights("hook").await, all_to("1.0.1"));
    assert!(next_check(&service).await <= 60.0);
    vanish(&service, &[&live, &before]);
    check(&service).await;
    assert_eq!(service.weights("hook").await, all_to("0.0.0"));
    assert_eq!(statuses(&service).await, "1.0.1 unavailable, 1.0.0 retired, 0.0.0 live");
    service.end().await;
}

#[tokio::test]
async fn a_test_ends_when_its_candidates_model_is_gone() {
    let service = service(|_| {}).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let candidate = model_id(&service, "1.0.0").await;
    vanish(&service, &[&candidate]);
    check(&service).await;
    a_minute_passes(&service).await;
    check(&service).await;
    let run = service.wait_until(&run, "failed").await;
    assert_eq!(run["reason_code"], "model_unavailable");
    assert!(run["reason"].as_str().unwrap().contains(&candidate), "{run:#}");
    assert_eq!(statuses(&service).await, "1.0.0 unavailable, 0.0.0 live");
    assert_eq!(service.weights("hook").await, all_to("0.0.0"));
    assert_eq!(service.read(TRAFFIC).await["kind"], "test_ended");
    let experiment =
        service.read(&format!("/v1/experiments/{}", run["experiment_id"].as_str().unwrap())).await;
    assert_eq!(experiment["status"], "aborted");

    vanish(&service, &[]);
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.0 candidate, 0.0.0 live");
    service.end().await;
}

#[tokio::test]
async fn a_hold_back_and_a_share_of_the_split_go_to_the_live_version_when_their_model_is_gone() {
    let service = service(|config| config["watch"]["duration_seconds"] = json!(3600.0)).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;
    service.approve(&run).await;
    service.wait_for_watch(&run).await;
    assert_eq!(statuses(&service).await, "1.0.0 live, 0.0.0 hold_back");
    let salt = service.read(TRAFFIC).await["salt"].clone();
    vanish(&service, &["gpt-4o"]);
    check(&service).await;
    a_minute_passes(&service).await;
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.0 live, 0.0.0 unavailable");
    assert_eq!(service.weights("hook").await, all_to("1.0.0"));
    let traffic = service.read(TRAFFIC).await;
    assert_eq!((&traffic["kind"], &traffic["salt"]), (&json!("split"), &salt), "the watch goes on");
    assert_eq!(service.run(&run).await["step"], "watch");

    // A person gives a share to a version that is neither live nor under test.
    vanish(&service, &[]);
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.0 live, 0.0.0 retired");
    let split = json!({"weights": {"1.0.0": 7000, "0.0.0": 3000}, "reason": "a comparison by hand"});
    service.put(TRAFFIC, &[("if-match", "*")], split).await.expect(200);
    vanish(&service, &["gpt-4o"]);
    check(&service).await;
    a_minute_passes(&service).await;
    check(&service).await;
    assert_eq!(statuses(&service).await, "1.0.0 live, 0.0.0 unavailable");
    assert_eq!(service.weights("hook").await, all_to("1.0.0"));
    let back = json!({"reason": "done", "version": "0.0.0"});
    service.post("/v1/pipelines/hook/rollback", back).await.problem(409, "cannot-serve");
    vanish(&service, &[]);
    check(&service).await;
    service.post("/v1/pipelines/hook/rollback", json!({"reason": "done"})).await.expect(200);
    service.wait_until(&run, "rolled_back").await;
    service.end().await;
}

#[tokio::test]
async fn a_run_is_started_once_on_the_successor_of_a_live_model_that_is_about_to_end() {
    let successor = "gpt-4.1-2025-04-14";
    let service = service(|config| config["lifecycle"] = json!({"successor_model": successor})).await;
    let soon = service.clock.now().date_naive() + chrono::TimeDelta::days(20);
    faults(&service, &json!({"models": {"gpt-4o": {"shutdown_date": soon}}}));
    // A run that is being built is not disturbed; the next check tries again.
    sqlx::query(
        "INSERT INTO runs (id, pipeline, config_version, trigger, status, place)
         VALUES ('00000000-0000-0000-0000-000000000001', 'hook', 1, 'api', 'queued', 'building')",
    )
    .execute(&service.db)
    .await
    .unwrap();
    check(&service).await;
    assert_eq!(service.read("/v1/runs").await["items"].as_array().unwrap().len(), 1);
    sqlx::query(
        "UPDATE runs SET status = 'cancelled', place = NULL, finished_at = now(), reason_code = 'test', reason = 'test'",
    )
    .execute(&service.db)
    .await
    .unwrap();
    check(&service).await;
    check(&service).await;
    let shown = service.read("/v1/pipelines/hook/models/0.0.0").await;
    let run = shown["availability"]["successor_run_id"].as_str().unwrap();
    assert_eq!(service.read("/v1/runs").await["items"].as_array().unwrap().len(), 2, "once");
    let run = service.wait_for_test(run).await;
    assert_eq!((&run["trigger"], &run["base_model"]), (&json!("end_of_life"), &json!(successor)));
    assert_eq!((&run["training"]["base_model"], &run["version"]), (&json!(successor), &json!("1.0.0")));
    assert_eq!(service.simulator.jobs().len(), 1);
    assert_eq!(
        service.read("/v1/pipelines/hook").await["config"]["training"]["base_model"],
        "gpt-4o-2024-08-06"
    );
    let triggered = events(&service, "run.trigger").await;
    assert_eq!(
        triggered[0]["after"],
        json!({"status": "queued", "config_version": 1, "base_model": successor})
    );
    service.post(&format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap()), Value::Null).await.expect(202);
    service.wait_until(run["id"].as_str().unwrap(), "cancelled").await;
    service.end().await;
}

#[tokio::test]
async fn checks_are_planned_by_the_scheduler_and_follow_the_settings() {
    let service = service(|_| {}).await;
    let planned = async {
        let planned = "SELECT EXISTS (SELECT FROM jobs WHERE kind = 'model_check' AND subject = 'hook')";
        while !sqlx::query_scalar::<_, bool>(planned).fetch_one(&service.db).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), planned).await.expect("the first check is planned");
    check(&service).await;
    assert!(next_check(&service).await > 86_000.0);
    let mut hourly = config();
    hourly["lifecycle"] = json!({"check_seconds": 3600.0});
    service.put("/v1/pipelines/hook", &[("if-match", "*")], hourly).await.expect(200);
    let followed = async {
        while next_check(&service).await > 3600.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), followed).await.expect("the settings are followed");
    let mut wrong = config();
    wrong["lifecycle"] = json!({"check_seconds": 1.0, "successor_model": " "});
    let problem = service.put("/v1/pipelines/hook", &[("if-match", "*")], wrong).await;
    let problem = problem.problem(422, "invalid-request");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["/lifecycle/check_seconds", "/lifecycle/successor_model"]);
    service.end().await;
}
