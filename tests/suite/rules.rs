//! What the rules of a pipeline ask for besides a significant effect, through the service.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

/// A service with a run of `hook` in test, decided by these rules, that looks only when it is woken.
async fn in_test(rules: Value) -> (TestService, String, String) {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["experiment"]["interval_seconds"] = json!(3600.0);
            let all = config["experiment"]["rules"].as_object_mut().unwrap();
            all.extend(rules.as_object().unwrap().clone());
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let experiment = service.wait_for_test(&run).await["experiment_id"].as_str().unwrap().to_owned();
    (service, run, experiment)
}

/// One outcome each of so many units, with a quality by arm.
async fn with_quality(service: &TestService, units: u32, baseline: f64, candidate: f64) {
    let mut outcomes = Vec::new();
    for unit in 0..units {
        let name = format!("persona-{unit}");
        let assigned = service.assignment("hook", &name).await;
        let better = assigned["arm"] == "candidate";
        let noise = f64::from(unit % 7) / 1_000.0;
        let rate = if better { 0.08 } else { 0.06 } + noise;
        let mut outcome = service.outcome("hook", &name, &name, &assigned, rate);
        outcome["quality"] = json!(if better { candidate } else { baseline } + noise);
        outcomes.push(outcome);
    }
    service.record(outcomes).await;
}

#[tokio::test]
async fn a_better_candidate_that_breaks_a_guardrail_is_rejected() {
    let (service, run, _) = in_test(json!({"guardrails": [{"metric": "quality", "margin": 0.02}]})).await;
    with_quality(&service, 120, 0.8, 0.7).await;
    service.reach_horizon(&run).await;
    let ended = service.wait_until(&run, "rejected").await;
    assert_eq!(ended["reason_code"], "guardrail_worse", "{ended:#}");
    assert!(ended["decision"]["estimate"]["relative"].as_f64().unwrap() > 0.2, "{ended:#}");
    service.end().await;
}

#[tokio::test]
async fn the_same_candidate_within_the_margin_of_the_guardrail_is_promoted() {
    let (service, run, _) = in_test(json!({"guardrails": [{"metric": "quality", "margin": 0.02}]})).await;
    with_quality(&service, 120, 0.8, 0.8).await;
    service.reach_horizon(&run).await;
    service.wait_for_watch(&run).await;
    service.wait_until(&run, "succeeded").await;
    service.end().await;
}

#[tokio::test]
async fn a_superior_candidate_is_promoted_at_an_early_look_that_spends_its_part_of_the_level() {
    let (service, run, id) = in_test(json!({"early_promotion": {"looks": 5}})).await;
    service.traffic("hook", 0..80, BETTER).await;
    // Half of the test is over, and the horizon is far away.
    let begun = "UPDATE experiments SET started_at = now() - interval '30 minutes', horizon_at = now() + interval '30 minutes'";
    sqlx::query(begun).execute(&service.db).await.unwrap();
    service.wake(&run).await;
    service.wait_for_watch(&run).await;
    let shown = service.read(&format!("/v1/experiments/{id}")).await;
    let decision = &shown["decision"];
    assert_eq!((&shown["status"], &decision["verdict"]), (&json!("decided"), &json!("promote")), "{shown:#}");
    let fraction = decision["early_look"]["fraction"].as_f64().unwrap();
    assert!(fraction > 0.49 && fraction < 0.7, "{decision:#}");
    assert!(
        decision["early_bound"]["z"].as_f64().unwrap() > 1.96,
        "stricter than at the horizon: {decision:#}"
    );
    service.wait_until(&run, "succeeded").await;
    service.end().await;
}

#[tokio::test]
async fn an_inconclusive_test_is_extended_once_and_then_waits_for_a_person() {
    let (service, run, id) =
        in_test(json!({"extension": {"hours": 5.0, "reserve": 0.2}, "minimum_effect": 0.05})).await;
    // Both arms see the same rates, so that whom chance puts where decides nothing, and so far apart that an
    // improvement of 5 % stays possible.
    let mut seen = HashMap::<String, usize>::new();
    let mut outcomes = Vec::new();
    for unit in 0..60_u32 {
        let name = format!("persona-{unit}");
        let assigned = service.assignment("hook", &name).await;
        let nth = seen.entry(assigned["version"].as_str().unwrap().to_owned()).or_default();
        let rate = [0.02, 0.1, 0.06][*nth % 3];
        *nth += 1;
        outcomes.push(service.outcome("hook", &name, &name, &assigned, rate));
    }
    service.record(outcomes).await;
    service.reach_horizon(&run).await;
    service
        .wait_for(&run, "extended", |run| {
            run["step"] == "test" && run["reason"].as_str().is_some_and(|why| why.contains("collecting"))
        })
        .await;
    let extended = service.read(&format!("/v1/experiments/{id}")).await;
    assert_eq!((&extended["status"], extended.get("decision")), (&json!("running"), None), "{extended:#}");
    let hours = |from: &str, to: &str| {
        let time =
            |field: &str| extended[field].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        (time(to) - time(from)).as_seconds_f64() / 3600.0
    };
    assert!((hours("extended_at", "horizon_at") - 5.0).abs() < 1e-6, "{extended:#}");
    assert!(service.weights("hook").await.len() == 2, "it goes on with the same split");

    service.reach_horizon(&run).await;
    let waiting = service.wait_until(&run, "waiting_approval").await;
    assert_eq!(waiting["decision"]["verdict"], "inconclusive", "{waiting:#}");
    service.post(&format!("/v1/runs/{run}/reject"), json!({"reason": "no effect"})).await.expect(202);
    service.wait_until(&run, "rejected").await;
    service.end().await;
}
