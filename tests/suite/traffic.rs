//! The traffic split: set by hand, its history, and who is assigned to what.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::service::TestService;

const TRAFFIC: &str = "/v1/pipelines/hook/traffic";

/// A service with a candidate 1.0.0 in test at `weight` against 0.0.0.
async fn in_test(weight: i32) -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["experiment"]["candidate_weight"] = json!(weight)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service
}

fn split(candidate: i32, baseline: i32) -> Value {
    json!({"weights": {"1.0.0": candidate, "0.0.0": baseline}, "reason": "slower start"})
}

#[tokio::test]
async fn a_split_is_set_only_by_someone_who_saw_the_one_in_force() {
    let service = in_test(1000).await;
    service.put(TRAFFIC, &[], split(2000, 8000)).await.problem(428, "precondition-required");
    let seen = service.get(TRAFFIC).await;
    let etag = seen.header("etag").to_owned();
    assert_eq!(etag, "\"2\"");
    let stale = service.put(TRAFFIC, &[("if-match", "\"1\"")], split(2000, 8000)).await;
    assert_eq!(stale.problem(412, "version-changed")["current_etag"], etag);

    let set = service.put(TRAFFIC, &[("if-match", &etag)], split(2000, 8000)).await;
    assert_eq!(set.header("etag"), "\"3\"");
    let set = set.expect(200);
    assert_eq!((&set["kind"], &set["reason"]), (&json!("split"), &json!("slower start")));
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 2000), ("0.0.0".to_owned(), 8000)]);
    service.put(TRAFFIC, &[("if-match", &etag)], split(3000, 7000)).await.problem(412, "version-changed");
    service.end().await;
}

#[tokio::test]
async fn a_split_that_cannot_be_is_refused_and_changes_nothing() {
    let service = in_test(1000).await;
    let put = async |weights: Value| {
        let body = json!({"weights": weights, "reason": "a try"});
        service.put(TRAFFIC, &[("if-match", "\"2\"")], body).await
    };
    for weights in [
        json!({"1.0.0": 1000, "0.0.0": 9001}),
        json!({}),
        json!({"1.0.0": -1, "0.0.0": 10_001}),
        json!({"1.0": 1000, "0.0.0": 9000}),
    ] {
        let problem = put(weights).await.problem(422, "invalid-request");
        assert!(problem["errors"][0]["field"].as_str().unwrap().starts_with("/weights"), "{problem}");
    }
    let problem = put(json!({"2.0.0": 1000, "0.0.0": 9000})).await.problem(422, "unknown-version");
    assert_eq!(problem["errors"][0]["field"], "/weights/2.0.0", "{problem}");
    put(json!({"1.0.0": 10_000})).await.problem(409, "live-missing");
    put(json!({"1.0.0": 10_000, "0.0.0": 0})).await.problem(409, "live-missing");
    let tail = service.put("/v1/pipelines/tail/traffic", &[("if-match", "*")], split(1, 9999)).await;
    tail.problem(404, "not-found");
    assert_eq!(service.read(TRAFFIC).await["revision"], 2);
    service.end().await;
}

#[tokio::test]
async fn the_next_test_takes_all_of_the_traffic_and_says_who_loses_a_share() {
    let service = in_test(1000).await;
    let first = service.read("/v1/runs").await["items"][0]["id"].as_str().unwrap().to_owned();
    service.post(&format!("/v1/runs/{first}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&first, "cancelled").await;
    let etag = service.get(TRAFFIC).await.header("etag").to_owned();
    service.put(TRAFFIC, &[("if-match", &etag)], split(2000, 8000)).await.expect(200);
    let second = service.trigger("hook").await;
    service.wait_for_test(&second).await;
    let begun = service.read(TRAFFIC).await;
    let reason = "the test gives the candidate 10 % of the traffic; 1.0.0 loses its 20 %";
    assert_eq!((&begun["kind"], &begun["reason"]), (&json!("test_started"), &json!(reason)));
    assert_eq!(service.weights("hook").await, [("1.0.1".to_owned(), 1000), ("0.0.0".to_owned(), 9000)]);
    service.end().await;
}

#[tokio::test]
async fn the_history_tells_what_was_live_at_a_time() {
    let service = in_test(1000).await;
    service.put(TRAFFIC, &[("if-match", "*")], split(2000, 8000)).await.expect(200);
    let history = service.read(&format!("{TRAFFIC}/history")).await;
    let revisions = history["items"].as_array().unwrap();
    assert_eq!(
        revisions.iter().map(|revision| revision["revision"].as_i64().unwrap()).collect::<Vec<_>>(),
        [3, 2, 1]
    );
    for revision in revisions {
        let at = revision["created_at"].as_str().unwrap();
        let found = service.read(&format!("{TRAFFIC}/history?at={at}")).await;
        assert_eq!(found["items"], json!([revision]));
    }
    let before = service.get(&format!("{TRAFFIC}/history?at=2013-01-01T00:00:00Z")).await;
    let before = before.problem(404, "not-found");
    let sentence =
        "Nothing was live in `hook` at 2013-01-01T00:00:00Z: its first traffic revision is younger.";
    assert_eq!(before["detail"], sentence);
    let page = service.read(&format!("{TRAFFIC}/history?limit=2")).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = service.read(&format!("{TRAFFIC}/history?limit=2&cursor={cursor}")).await;
    assert_eq!((&rest["items"][0]["revision"], rest.get("next_cursor")), (&json!(1), None));
    service.end().await;
}

/// The version of each unit.
async fn assigned(service: &TestService, units: u32) -> BTreeMap<u32, String> {
    let mut versions = BTreeMap::new();
    for unit in 0..units {
        let assigned = service.assignment("hook", &format!("unit-{unit}")).await;
        versions.insert(unit, assigned["version"].as_str().unwrap().to_owned());
    }
    versions
}

#[tokio::test]
async fn assignment_is_sticky_near_its_weights_and_a_larger_share_keeps_the_candidates_units() {
    let service = in_test(2000).await;
    let units = 400;
    let first = assigned(&service, units).await;
    let candidates =
        |assigned: &BTreeMap<u32, String>| assigned.values().filter(|version| *version == "1.0.0").count();
    // Binomial(400, 0.2): mean 80, standard deviation 8; six of them.
    assert!((32..=128).contains(&candidates(&first)), "{}", candidates(&first));
    assert_eq!(assigned(&service, 50).await, first.clone().into_iter().take(50).collect());

    service.put(TRAFFIC, &[("if-match", "*")], split(6000, 4000)).await.expect(200);
    let second = assigned(&service, units).await;
    // Mean 240, standard deviation 9.8.
    assert!((181..=299).contains(&candidates(&second)), "{}", candidates(&second));
    let moved_back = first.iter().filter(|(unit, version)| *version == "1.0.0" && second[*unit] != "1.0.0");
    assert_eq!(moved_back.count(), 0);

    let assignment = service.assignment("hook", "unit-0").await;
    let version = assignment["version"].as_str().unwrap();
    let model = service.read(&format!("/v1/pipelines/hook/models/{version}")).await;
    assert_eq!((&assignment["model_id"], &assignment["revision"]), (&model["model_id"], &json!(3)));
    assert!(assignment["experiment_id"].is_string(), "{assignment}");
    service.get("/v1/pipelines/tail/assignment?unit=a").await.problem(404, "not-found");
    service.get("/v1/pipelines/hook/assignment?unit=").await.problem(422, "invalid-request");
    service.get("/v1/pipelines/hook/assignment").await.problem(422, "invalid-request");
    service.end().await;
}
