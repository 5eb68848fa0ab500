//! Pipelines' configurations: validated whole, changed by those who saw them, kept in versions.

use serde_json::json;

use crate::harness::service::{TestService, config};

const PATH: &str = "/v1/pipelines/hook";

#[tokio::test]
async fn every_fault_of_a_configuration_is_named_with_its_pointer() {
    let service = TestService::start().await;
    let mut bad = config();
    bad["dataset"]["minimum_examples"] = json!(9);
    bad["training"]["n_epochs"] = json!(0);
    bad["training"]["provider"] = json!("opnai");
    bad["schedule"]["cron"] = json!("every sunday");
    bad["experiment"]["candidate_weight"] = json!(0);
    bad["experiment"]["rules"]["alpha"] = json!(0.5);
    bad["watch"]["duration_seconds"] = json!(0);
    let problem = service.put(PATH, &[], bad).await.problem(422, "invalid-request");
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    let expected = [
        "/dataset/minimum_examples",
        "/experiment/candidate_weight",
        "/experiment/rules/alpha",
        "/schedule/cron",
        "/training/n_epochs",
        "/training/provider",
        "/watch/duration_seconds",
    ];
    assert_eq!(fields, expected, "{problem:#}");

    let mut unknown = config();
    unknown["training"]["epochs"] = json!(3);
    let problem = service.put(PATH, &[], unknown).await.problem(422, "invalid-request");
    assert!(problem["errors"][0]["field"].as_str().unwrap().starts_with("/training"), "{problem}");
    let problem = service.put("/v1/pipelines/Hook", &[], config()).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["field"], "pipeline");
    service.get(PATH).await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn a_configuration_is_created_once_and_changed_only_by_those_who_saw_it() {
    let service = TestService::start().await;
    let absent = service.put(PATH, &[("if-match", "\"1\"")], config()).await;
    absent.problem(412, "version-changed");
    let created = service.put(PATH, &[("if-none-match", "*")], config()).await;
    assert_eq!((created.header("location"), created.header("etag")), (PATH, "\"1\""));
    assert_eq!(created.expect(201)["live"], json!({"version": "0.0.0", "model_id": "gpt-4o"}));
    service.put(PATH, &[("if-none-match", "*")], config()).await.problem(412, "pipeline-exists");

    let equal = service.put(PATH, &[], config()).await;
    assert_eq!(equal.header("etag"), "\"1\"", "an equal configuration is no change");
    let mut changed = config();
    changed["dataset"]["engagement_threshold"] = json!(0.07);
    let answer = service.put(PATH, &[("if-match", "\"1\"")], changed.clone()).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    assert_eq!(answer.expect(200)["config"]["dataset"]["engagement_threshold"], 0.07);
    service.put(PATH, &[("if-match", "\"1\"")], config()).await.problem(412, "version-changed");

    changed["serving_model"] = json!("gpt-4.1");
    let fixed = service.put(PATH, &[], changed).await.problem(422, "invalid-request");
    assert_eq!(fixed["errors"][0]["field"], "/serving_model");
    let stored = service.get(PATH).await;
    assert_eq!(stored.header("etag"), "\"2\"");
    assert_eq!(stored.expect(200)["config"]["serving_model"], "gpt-4o");
    let trail = service.read("/v1/audit?subject_kind=pipeline&subject_id=hook").await;
    let update =
        trail["items"].as_array().unwrap().iter().find(|event| event["action"] == "pipeline.update").unwrap();
    let threshold = |side: &str| &update[side]["dataset"]["engagement_threshold"];
    assert_eq!((threshold("before"), threshold("after")), (&json!(0.06), &json!(0.07)));
    service.end().await;
}

#[tokio::test]
async fn a_run_keeps_the_configuration_it_was_started_with() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.065).await;
    let run = service.trigger("hook").await;
    let mut changed = config();
    changed["experiment"]["candidate_weight"] = json!(1000);
    service.put(PATH, &[], changed).await.expect(200);
    let run = service.wait_for_test(&run).await;
    assert_eq!(run["config_version"], 1);
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 5000), ("0.0.0".to_owned(), 5000)]);
    service.end().await;
}

#[tokio::test]
async fn pipelines_are_listed_by_name_page_by_page() {
    let service = TestService::start().await;
    for name in ["tail", "body", "hook"] {
        service.pipeline(name, |_| {}).await;
    }
    let names = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|pipeline| pipeline["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = service.read("/v1/pipelines?limit=2").await;
    assert_eq!(names(&first), ["body", "hook"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = service.read(&format!("/v1/pipelines?limit=2&cursor={cursor}")).await;
    assert_eq!((names(&second), second.get("next_cursor")), (vec!["tail".to_owned()], None));
    service.end().await;
}

#[tokio::test]
async fn an_array_is_not_taken_for_an_object_by_position() {
    let service = TestService::start().await;
    let mut config = config();
    config["watch"] = json!([60.0, 1.0, 0]);
    let refused = service.put(PATH, &[], config).await.problem(422, "invalid-request");
    assert_eq!(refused["errors"][0]["field"], "/watch");
    service.get(PATH).await.problem(404, "not-found");
    service.end().await;
}
