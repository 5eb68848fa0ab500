//! A ramp: the candidate's share rises step by step during its test.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::outcomes::{BETTER, WORSE};
use crate::harness::service::TestService;

const TRAFFIC: &str = "/v1/pipelines/hook/traffic";
const SWITCH: &str = "/v1/pipelines/hook/kill-switch";

/// A service with a run of `hook` in test, whose candidate gets 10, 25 and 50 %: see [`TestService::let_a_step_pass`].
async fn ramped(unjudged: &str) -> (TestService, String) {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            let ramp = json!({"weights": [1000, 2500, 5000], "step_seconds": 1000.0, "unjudged": unjudged});
            config["experiment"]["ramp"] = ramp;
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    (service, run)
}

/// Kind, candidate's weight and reason of every revision but the first, oldest first.
async fn revisions(service: &TestService) -> Vec<(String, i64, String)> {
    let history = service.read(&format!("{TRAFFIC}/history")).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = |revision: &Value| {
        let weights = revision["weights"].as_array().unwrap();
        let candidate = weights.iter().find(|share| share["version"] == "1.0.0");
        let weight = candidate.map_or(0, |share| share["weight"].as_i64().unwrap());
        (text(&revision["kind"]), weight, text(&revision["reason"]))
    };
    history["items"].as_array().unwrap().iter().rev().skip(1).map(told).collect()
}

/// The step of the ramp that gave the candidate this weight, once there is one.
async fn risen_to(service: &TestService, weight: i64) -> String {
    let risen = async {
        loop {
            let found = revisions(service).await.into_iter();
            if let Some((.., reason)) =
                found.into_iter().find(|(kind, to, _)| kind == "ramp" && *to == weight)
            {
                return reason;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), risen).await.expect("the share rises")
}

async fn candidates(service: &TestService, units: u32) -> HashSet<u32> {
    let mut found = HashSet::new();
    for unit in 0..units {
        if service.assignment("hook", &format!("persona-{unit}")).await["arm"] == "candidate" {
            found.insert(unit);
        }
    }
    found
}

#[tokio::test]
async fn the_share_rises_after_looks_without_harm_and_no_unit_leaves_the_candidate() {
    let (service, run) = ramped("wait").await;
    let before = candidates(&service, 80).await;
    // Enough of both arms to judge, at the first step.
    service.traffic("hook", 0..400, BETTER).await;
    service.let_a_step_pass().await;
    let reason = risen_to(&service, 2500).await;
    assert!(reason.starts_with("the candidate's share rises to 25 %. No harm shown: "), "{reason}");
    // What was seen of the first step says nothing of the second.
    service.let_a_step_pass().await;
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 2500));
    service.traffic("hook", 0..400, BETTER).await;
    risen_to(&service, 5000).await;
    let after = candidates(&service, 80).await;
    assert!(before.len() < after.len() && before.is_subset(&after), "{before:?} {after:?}");

    // The epochs are judged together.
    service.traffic("hook", 0..400, BETTER).await;
    let kinds: Vec<_> =
        revisions(&service).await.into_iter().map(|(kind, weight, _)| (kind, weight)).collect();
    let expected = [("test_started", 1000), ("ramp", 2500), ("ramp", 5000)];
    assert_eq!(kinds, expected.map(|(kind, weight)| (kind.to_owned(), weight)));
    service.reach_horizon(&run).await;
    let run = service.wait_until(&run, "succeeded").await;
    assert_eq!(run["decision"]["verdict"], "promote");
    let counts = &run["decision"]["estimate"]["counts"];
    let outcomes = |arm: &str| counts[arm]["outcomes"].as_u64().unwrap();
    assert_eq!(outcomes("baseline") + outcomes("candidate"), 2400, "{counts}");
    service.end().await;
}

#[tokio::test]
async fn where_harm_cannot_be_judged_the_share_waits_for_the_outcomes() {
    let (service, run) = ramped("wait").await;
    service.let_a_step_pass().await;
    let waits = |run: &Value| {
        run["reason"].as_str().unwrap_or_default().ends_with("waits until this step can be judged.")
    };
    service.wait_for(&run, "waiting for outcomes", waits).await;
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 1000));
    service.traffic("hook", 0..400, BETTER).await;
    let reason = risen_to(&service, 2500).await;
    assert!(reason.starts_with("the candidate's share rises to 25 %. No harm shown: "), "{reason}");
    service.end().await;
}

#[tokio::test]
async fn where_it_is_to_rise_unjudged_it_does_when_its_time_is_over_and_says_why() {
    let (service, run) = ramped("rise").await;
    service.let_a_step_pass().await;
    let reason = risen_to(&service, 2500).await;
    let expected = "the candidate's share rises to 25 %. Its time is over and this step cannot be judged: Harm to engagement";
    assert!(reason.starts_with(expected), "{reason}");
    service.let_a_step_pass().await;
    risen_to(&service, 5000).await;
    let events = service.read(&format!("/v1/runs/{run}/events?limit=200")).await;
    let told = events["items"].as_array().unwrap().iter();
    let told = told.filter(|event| event["message"].as_str().unwrap().contains("share rises to")).count();
    assert_eq!(told, 2, "{events:#}");
    service.end().await;
}

#[tokio::test]
async fn a_candidate_that_does_harm_gets_no_more() {
    let (service, run) = ramped("wait").await;
    service.traffic("hook", 0..300, WORSE).await;
    let run = service.wait_until(&run, "rejected").await;
    assert_eq!(run["decision"]["verdict"], "stop_for_harm");
    let kinds: Vec<_> = revisions(&service).await.into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["test_started", "test_ended"]);
    service.end().await;
}

#[tokio::test]
async fn under_the_kill_switch_the_ramp_waits_and_then_goes_on_from_where_it_stood() {
    let (service, run) = ramped("rise").await;
    let switch = |enabled: bool| json!({"enabled": enabled, "reason": "an incident"});
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    service.put(SWITCH, &[("if-match", &etag)], switch(true)).await.expect(200);
    let waits = |run: &Value| run["reason"].as_str().unwrap_or_default().ends_with("and the ramp waits.");
    service.wait_for(&run, "waiting for the switch", waits).await;
    service.let_a_step_pass().await;
    service.some_looks().await;
    let kinds = async || revisions(&service).await.into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>();
    assert_eq!(kinds().await, ["test_started", "kill_switch_on"]);
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    service.put(SWITCH, &[("if-match", &etag)], switch(false)).await.expect(200);
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 1000), "its time begins anew");
    service.let_a_step_pass().await;
    risen_to(&service, 2500).await;
    assert_eq!(kinds().await[2..4], ["kill_switch_off", "ramp"]);
    service.end().await;
}

#[tokio::test]
async fn a_split_that_a_person_has_set_is_left_alone() {
    let (service, run) = ramped("rise").await;
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    let split = json!({"weights": {"1.0.0": 300, "0.0.0": 9700}, "reason": "slower start"});
    service.put(TRAFFIC, &[("if-match", &etag)], split).await.expect(200);
    let leaves =
        |run: &Value| run["reason"].as_str().unwrap_or_default().ends_with("and the ramp leaves it.");
    service.wait_for(&run, "leaving the split", leaves).await;
    service.let_a_step_pass().await;
    service.some_looks().await;
    assert_eq!(service.weights("hook").await[0], ("1.0.0".to_owned(), 300));
    service.end().await;
}
