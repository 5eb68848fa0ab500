//! A promoted model that gets its traffic in steps, each after a look for harm.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::outcomes::{BETTER, WORSE};
use crate::harness::service::TestService;

const TRAFFIC: &str = "/v1/pipelines/hook/traffic";

/// A service with a run whose candidate had half of the traffic in its test, won, and has 60 % now; then it gets 80 %, and
/// all but the hold-back: see [`TestService::let_a_step_pass`].
async fn promoted(hold_back: i32, unjudged: &str) -> (TestService, String) {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            let ramp = json!({"weights": [6000, 8000], "step_seconds": 1000.0, "unjudged": unjudged});
            config["deployment"] = json!({"strategy": {"ramp": ramp}});
            config["watch"] =
                json!({"duration_seconds": 3600.0, "interval_seconds": 0.25, "hold_back_weight": hold_back});
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_for_watch(&run).await;
    (service, run)
}

/// Kind and candidate's weight of every revision from the promotion on, oldest first.
async fn revisions(service: &TestService) -> Vec<(String, i64)> {
    let history = service.read(&format!("{TRAFFIC}/history")).await;
    let told = |revision: &Value| {
        let weights = revision["weights"].as_array().unwrap();
        let candidate = weights.iter().find(|share| share["version"] == "1.0.0");
        let weight = candidate.map_or(0, |share| share["weight"].as_i64().unwrap());
        (revision["kind"].as_str().unwrap().to_owned(), weight)
    };
    let all: Vec<_> = history["items"].as_array().unwrap().iter().rev().map(told).collect();
    all.into_iter().skip_while(|(kind, _)| kind != "promotion").collect()
}

async fn until(service: &TestService, what: &str, holds: impl Fn(&[(String, i64)]) -> bool) {
    let waits = async {
        while !holds(&revisions(service).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waits).await.unwrap_or_else(|_| panic!("never was {what}"));
}

fn owned<const N: usize>(expected: [(&str, i64); N]) -> Vec<(String, i64)> {
    expected.map(|(kind, weight)| (kind.to_owned(), weight)).into()
}

async fn on_candidate(service: &TestService) -> HashSet<u32> {
    let mut found = HashSet::new();
    for unit in 0..80 {
        if service.assignment("hook", &format!("persona-{unit}")).await["version"] == "1.0.0" {
            found.insert(unit);
        }
    }
    found
}

#[tokio::test]
async fn the_share_rises_to_all_but_the_hold_back_and_no_unit_moves_back() {
    let (service, run) = promoted(1000, "wait").await;
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 6000), ("0.0.0".to_owned(), 4000)]);
    let first = service.read(TRAFFIC).await;
    let before = on_candidate(&service).await;
    service.traffic("hook", 100..300, BETTER).await;
    service.let_a_step_pass().await;
    until(&service, "at 80 %", |found| found.contains(&("rollout".to_owned(), 8000))).await;
    let reason = service.read(TRAFFIC).await["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("the promoted version's share rises to"), "{reason}");
    service.traffic("hook", 300..500, BETTER).await;
    service.let_a_step_pass().await;
    until(&service, "at its end", |found| found.contains(&("rollout".to_owned(), 9000))).await;
    assert_eq!(revisions(&service).await, owned([("promotion", 6000), ("rollout", 8000), ("rollout", 9000)]));
    let after = on_candidate(&service).await;
    assert!(before.len() < after.len() && before.is_subset(&after), "{before:?} {after:?}");

    let last = service.read(TRAFFIC).await;
    for same in ["salt", "experiment_id", "decision_id"] {
        assert!(last[same].is_string() && last[same] == first[same], "{same}: {last:#}");
    }
    let statuses = [("1.0.0", "live"), ("0.0.0", "hold_back")];
    assert_eq!(service.versions("hook").await, statuses.map(|(v, s)| (v.to_owned(), s.to_owned())));
    // Its epochs are the watch's.
    let experiment = first["experiment_id"].as_str().unwrap();
    let shown = service.read(&format!("/v1/experiments/{experiment}")).await;
    let watch = shown["epochs"].as_array().unwrap().iter().filter(|epoch| epoch["phase"] == "watch").count();
    assert_eq!(watch, 3, "{shown:#}");
    assert_eq!(service.run(&run).await["step"], "watch", "the watch goes on");
    service.end().await;
}

#[tokio::test]
async fn harm_at_a_step_takes_the_model_back() {
    let (service, run) = promoted(1000, "wait").await;
    service.traffic("hook", 100..500, WORSE).await;
    let run = service.wait_until(&run, "rolled_back").await;
    assert_eq!(run["reason_code"], "harm");
    assert_eq!(revisions(&service).await, owned([("promotion", 6000), ("rollback", 0)]));
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn without_a_hold_back_the_last_step_is_everything_and_the_watch_compares_with_before() {
    let (service, run) = promoted(0, "rise").await;
    for share in [8000, 10_000] {
        service.let_a_step_pass().await;
        until(&service, "at its next step", |found| found.contains(&("rollout".to_owned(), share))).await;
    }
    let statuses = [("1.0.0", "live"), ("0.0.0", "retired")];
    assert_eq!(service.versions("hook").await, statuses.map(|(v, s)| (v.to_owned(), s.to_owned())));
    let weaker = |run: &Value| run["reason"].as_str().unwrap_or_default().contains("is weaker evidence");
    service.wait_for(&run, "compared with before", weaker).await;
    let traffic = service.read(TRAFFIC).await;
    assert!(traffic["experiment_id"].is_string(), "the watch goes on: {traffic:#}");
    service.end().await;
}

#[tokio::test]
async fn where_harm_cannot_be_judged_it_waits_for_outcomes_and_no_longer_than_the_watch() {
    let (service, run) = promoted(1000, "wait").await;
    service.let_a_step_pass().await;
    let waits = |run: &Value| {
        run["reason"].as_str().unwrap_or_default().ends_with("waits until this step can be judged.")
    };
    service.wait_for(&run, "waiting for outcomes", waits).await;
    service.some_looks().await;
    assert_eq!(revisions(&service).await, owned([("promotion", 6000)]));
    let over = "UPDATE run_steps SET started_at = started_at - interval '1 hour' WHERE step = 'watch'";
    sqlx::query(over).execute(&service.db).await.unwrap();
    let run = service.wait_until(&run, "succeeded").await;
    assert_eq!(run["reason_code"], "watched_without_evidence");
    assert_eq!(revisions(&service).await, owned([("promotion", 6000), ("watch_ended", 10_000)]));
    service.end().await;
}

#[tokio::test]
async fn it_waits_under_the_kill_switch_and_leaves_a_split_that_a_person_has_set() {
    let (service, run) = promoted(1000, "rise").await;
    let switch = async |enabled: bool| {
        let body = json!({"enabled": enabled, "reason": "an incident"});
        service.put("/v1/pipelines/hook/kill-switch", &[], body).await.expect(200)
    };
    let on = switch(true).await;
    assert_eq!(on["withheld"][0]["weight"], 6000);
    let ends =
        |end: &'static str| move |run: &Value| run["reason"].as_str().unwrap_or_default().ends_with(end);
    service.wait_for(&run, "waiting for the switch", ends("and the rollout waits.")).await;
    service.let_a_step_pass().await;
    service.some_looks().await;
    switch(false).await;
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 6000), "its time begins anew");
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    let split = json!({"weights": {"1.0.0": 7000, "0.0.0": 3000}, "reason": "slower"});
    service.put(TRAFFIC, &[("if-match", &etag)], split).await.expect(200);
    service.wait_for(&run, "leaving the split", ends("and the rollout leaves it.")).await;
    service.let_a_step_pass().await;
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 7000));
    service.end().await;
}

#[tokio::test]
async fn the_next_runs_test_waits_for_its_end() {
    let (service, older) = promoted(1000, "wait").await;
    let newer = service.trigger("hook").await;
    let waits = |run: &Value| run["reason_code"] == "proving_place_taken";
    service.wait_for(&newer, "waiting for its place", waits).await;
    // Promoting the newer one by hand is refused for the same reason.
    let found =
        service.post("/v1/pipelines/hook/models/1.0.1/promote", json!({"dry_run": true})).await.expect(200);
    assert!(found.to_string().contains(&format!("Run {older} is watching another version")), "{found:#}");
    // A person takes over, and the rollout is over.
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    let split = json!({"weights": {"1.0.0": 7000, "0.0.0": 3000}, "reason": "enough"});
    service.put(TRAFFIC, &[("if-match", &etag)], split).await.expect(200);
    service.wait_for_test(&newer).await;
    assert_eq!(service.wait_until(&older, "succeeded").await["reason_code"], "watch_superseded");
    service.end().await;
}

#[tokio::test]
async fn a_rollout_that_cannot_be_is_refused() {
    let service = TestService::start().await;
    let mut config = crate::harness::service::config();
    config["watch"] = json!({"duration_seconds": 60.0, "interval_seconds": 0.25, "hold_back_weight": 1000});
    config["deployment"] = json!({
        "strategy": {"ramp": {"weights": [4000, 9000], "step_seconds": 40.0}}, "decision_max_age_seconds": 0,
    });
    let refused = service.put("/v1/pipelines/hook", &[], config).await.problem(422, "invalid-request");
    let fields: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "/deployment/decision_max_age_seconds",
            "/deployment/strategy/ramp/step_seconds",
            "/deployment/strategy/ramp/weights",
        ]
    );
    service.end().await;
}
