//! Who may do what, who did what, and requests that are sent twice.

use reqwest::Method;
use serde_json::{Value, json};
use tuneloop::api::auth::Role;

use crate::harness::service::{TestService, config};

#[tokio::test]
async fn a_viewer_reads_everything_and_changes_nothing() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let experiment = run["experiment_id"].as_str().unwrap();
    let viewer = service.client_as(Role::Viewer).await;
    for path in [
        "/v1/pipelines",
        "/v1/pipelines/hook",
        "/v1/runs",
        &format!("/v1/runs/{id}"),
        &format!("/v1/runs/{id}/events"),
        "/v1/pipelines/hook/models",
        "/v1/pipelines/hook/models/0.0.0",
        "/v1/pipelines/hook/traffic",
        "/v1/pipelines/hook/traffic/history",
        "/v1/pipelines/hook/assignment?unit=a",
        &format!("/v1/experiments/{experiment}"),
        &format!("/v1/experiments/{experiment}/series"),
        "/v1/audit",
    ] {
        viewer.read(path).await;
    }
    let why = json!({"reason": "a try"});
    for (method, path, body) in [
        (Method::PUT, "/v1/pipelines/hook", config()),
        (Method::POST, "/v1/pipelines/hook/runs", Value::Null),
        (Method::POST, &format!("/v1/runs/{id}/cancel"), Value::Null),
        (Method::POST, &format!("/v1/runs/{id}/retry"), Value::Null),
        (Method::POST, &format!("/v1/runs/{id}/approve"), Value::Null),
        (Method::POST, &format!("/v1/runs/{id}/reject"), Value::Null),
        (Method::POST, "/v1/pipelines/hook/models/1.0.0/promote", why.clone()),
        (Method::POST, "/v1/pipelines/hook/rollback", why),
        (Method::PUT, "/v1/pipelines/hook/traffic", json!({"weights": {"0.0.0": 10_000}, "reason": "a try"})),
        (Method::POST, "/v1/outcomes", json!([])),
    ] {
        let refused = viewer.send(method, path, &[("if-match", "*")], Some(body)).await;
        refused.problem(403, "forbidden");
    }
    let unchanged = service.run(&id).await;
    assert_eq!(unchanged.get("request"), None);
    assert_eq!(service.read("/v1/pipelines/hook/traffic").await["revision"], 2);
    let stranger = service.with_key("tl_nobody".to_owned());
    stranger.get("/v1/runs").await.problem(401, "unauthorized");
    service.end().await;
}

#[tokio::test]
async fn the_trail_names_the_person_behind_each_change_with_their_reason() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let operator = service.client_as(Role::Operator).await;
    let run = operator.post("/v1/pipelines/hook/runs", Value::Null).await;
    let request = run.header("x-request-id").to_owned();
    let id = run.expect(202)["id"].as_str().unwrap().to_owned();
    service.wait_for_test(&id).await;
    let why = json!({"reason": "the campaign was stopped"});
    operator.post(&format!("/v1/runs/{id}/cancel"), why).await.expect(202);
    service.wait_until(&id, "cancelled").await;

    let trail = service.read(&format!("/v1/audit?actor=key:operator&subject_id={id}")).await;
    let told: Vec<_> = trail["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["reason"].as_str()))
        .collect();
    assert_eq!(told, [("run.cancel", Some("the campaign was stopped")), ("run.trigger", None)]);
    assert_eq!(trail["items"][1]["request_id"], request);
    let finished = service.read(&format!("/v1/audit?subject_id={id}&action=run.finish")).await;
    let finished = &finished["items"][0];
    assert_eq!((&finished["actor"], &finished["after"]["status"]), (&json!("worker"), &json!("cancelled")));
    service.end().await;
}

#[tokio::test]
async fn a_trigger_that_is_sent_again_with_its_key_gives_the_same_run() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    let trigger = async |key: &str| {
        let path = "/v1/pipelines/hook/runs";
        service.send(Method::POST, path, &[("idempotency-key", key)], None).await
    };
    let first = trigger("monday").await;
    assert!(first.headers.get("idempotency-replayed").is_none());
    let id = first.body["id"].as_str().unwrap().to_owned();
    service.wait_until(&id, "skipped").await;
    let again = trigger("monday").await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.expect(202), first.body, "the answer of then, not of now");
    let other = trigger("tuesday").await.expect(202);
    assert_ne!(other["id"], first.body["id"]);
    let runs = service.read("/v1/runs").await;
    assert_eq!(runs["items"].as_array().unwrap().len(), 2);
    let newest_first: Vec<_> = runs["items"].as_array().unwrap().iter().map(|run| &run["id"]).collect();
    assert_eq!(newest_first, [&other["id"], &first.body["id"]]);
    service.wait_until(other["id"].as_str().unwrap(), "skipped").await;
    service.end().await;
}
