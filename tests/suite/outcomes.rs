//! Recording what was observed: each outcome judged by itself, none counted twice.

use serde_json::{Value, json};

use crate::harness::service::TestService;

const PATH: &str = "/v1/outcomes";

async fn service() -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service
}

fn outcome(service: &TestService, id: &str) -> Value {
    json!({
        "id": id, "pipeline": "hook", "version": "0.0.0", "unit": "u", "served_at": service.clock.now(),
        "engagement_rate": 0.06, "engagements": 6, "impressions": 100, "cost": 0.002, "quality": 0.9,
        "latency_ms": 350.0, "failed": false,
    })
}

#[tokio::test]
async fn duplicates_are_counted_and_change_nothing() {
    let service = service().await;
    let (a, b) = (outcome(&service, "a"), outcome(&service, "b"));
    let mut changed = a.clone();
    changed["engagement_rate"] = json!(0.5);
    let recorded = service.post(PATH, json!([a, b, changed])).await.expect(200);
    assert_eq!(recorded, json!({"accepted": 2, "duplicates": 1, "rejected": []}));
    let recorded = service.post(PATH, json!([changed, outcome(&service, "c")])).await.expect(200);
    assert_eq!(recorded, json!({"accepted": 1, "duplicates": 1, "rejected": []}));
    let rates = "SELECT array_agg(engagement_rate ORDER BY id) FROM outcomes";
    let rates: Vec<f64> = sqlx::query_scalar(rates).fetch_one(&service.db).await.unwrap();
    assert_eq!(rates, [0.06, 0.06, 0.06]);
    service.end().await;
}

#[tokio::test]
async fn what_is_not_valid_is_told_with_its_index_and_reason_and_the_rest_is_recorded() {
    let service = service().await;
    let with = |id: &str, field: &str, value: Value| {
        let mut outcome = outcome(&service, id);
        outcome[field] = value;
        outcome
    };
    let mut by_model = outcome(&service, "by model");
    by_model["version"] = Value::Null;
    let mut nameless = by_model.clone();
    nameless["id"] = json!("nameless");
    by_model["model_id"] = json!("gpt-4o");
    let batch = json!([
        outcome(&service, "good"),
        with("1", "pipeline", json!("tail")),
        with("2", "version", json!("7.0.0")),
        with("3", "engagement_rate", json!(1.5)),
        with("4", "served_at", json!("2100-01-01T00:00:00Z")),
        with("5", "revision", json!(9)),
        with("6", "impressions", json!(-1)),
        with("7", "unit", json!("")),
        nameless,
        by_model,
        with("10", "served_at", json!("2013-01-01T00:00:00Z")),
    ]);
    let recorded = service.post(PATH, batch).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["duplicates"]), (&json!(2), &json!(0)));
    let rejected = recorded["rejected"].as_array().unwrap();
    let expected = [
        (1, "there is no pipeline \"tail\""),
        (2, "pipeline hook has no version 7.0.0"),
        (3, "engagement_rate must be between 0 and 1"),
        (4, "served_at is in the future"),
        (5, "pipeline hook has no traffic revision 9"),
        (6, "impressions must be 0 or more"),
        (7, "unit must have 1 to 200 bytes"),
        (8, "give the version or the model_id"),
        (10, "served_at is before the pipeline had any traffic"),
    ];
    assert_eq!(rejected.len(), expected.len(), "{rejected:#?}");
    for (rejected, (index, reason)) in rejected.iter().zip(expected) {
        assert_eq!(rejected["index"], index);
        assert!(rejected["reason"].as_str().unwrap().starts_with(reason), "{rejected}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let service = service().await;
    let batch = |count: usize| -> Value { (0..count).map(|n| outcome(&service, &n.to_string())).collect() };
    let problem = service.post(PATH, batch(10_001)).await.problem(422, "invalid-request");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("10001 outcomes"), "{problem}");
    let recorded = service.post(PATH, batch(10_000)).await.expect(200);
    assert_eq!(recorded["accepted"], 10_000);

    let mut long = outcome(&service, "long");
    long["unit"] = json!("u".repeat(17 << 20));
    service.post(PATH, json!([long])).await.problem(413, "body-too-large");
    let malformed = service.post(PATH, json!([{"id": 7}])).await.problem(422, "invalid-request");
    assert!(malformed["errors"][0]["field"].as_str().unwrap().starts_with("/0"), "{malformed}");
    service.end().await;
}

#[tokio::test]
async fn an_outcome_belongs_to_the_revision_that_was_in_force_when_it_was_served() {
    let service = service().await;
    service.posts(12, 0.08).await;
    let before = outcome(&service, "before the test");
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let during = outcome(&service, "in the test");
    let mut told = outcome(&service, "told");
    told["revision"] = json!(1);
    service.record(vec![before, during, told]).await;
    let places = "SELECT id, revision, experiment_id IS NOT NULL FROM outcomes ORDER BY id";
    let places: Vec<(String, i64, bool)> = sqlx::query_as(places).fetch_all(&service.db).await.unwrap();
    let expected = [("before the test", 1, false), ("in the test", 2, true), ("told", 1, false)];
    assert_eq!(places, expected.map(|(id, revision, tested)| (id.to_owned(), revision, tested)));
    service.end().await;
}
