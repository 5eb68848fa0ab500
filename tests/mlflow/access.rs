//! Servers that ask for a password, that do not pass artifacts on, that refuse something, and in which somebody deleted what was there.

use std::time::Duration;

use serde_json::{Value, json};
use tuneloop::config::Secret;
use tuneloop::tracking::MlflowAccess;

use crate::deliveries::{delivered, run_of, state_where, version_of};
use crate::harness::service::TestService;
use crate::server::{Server, python};

async fn service(server: &Server, access: MlflowAccess) -> TestService {
    let service = TestService::with_mlflow(server.settings_with(access), Duration::from_millis(300)).await;
    service.pipeline("hook", |_| {}).await;
    service
}

#[tokio::test]
async fn a_server_with_basic_authentication_is_told_with_user_and_password() {
    let Some(python) = python() else { return };
    let mut server = Server::stopped(&python, &["--serve-artifacts", "--app-name", "basic-auth"]);
    server.run().await;
    let password = |password: &str| MlflowAccess::Password("admin".into(), Secret::new(password));
    let wrong = service(&server, password("wrong horse")).await;
    let state = state_where(&wrong, "hook", |state| state["status"] == "failing").await;
    let error = state["error"].as_str().unwrap();
    assert!(error.contains("MLFLOW_TRACKING_PASSWORD") && !error.contains("wrong horse"), "{error}");
    wrong.end().await;

    let right = service(&server, password("correct horse")).await;
    let run = right.trigger("hook").await;
    right.wait_until(&run, "skipped").await;
    delivered(&right, "hook").await;
    let admin = [("MLFLOW_TRACKING_USERNAME", "admin"), ("MLFLOW_TRACKING_PASSWORD", "correct horse")];
    let read = server.read_as("hook", &admin).await;
    assert_eq!(run_of(&read, &run)["status"], "FINISHED");
    right.end().await;
}

#[tokio::test]
async fn what_somebody_deleted_stays_deleted_and_artifacts_that_cannot_be_stored_are_told() {
    let Some(python) = python() else { return };
    let mut server = Server::stopped(&python, &["--no-serve-artifacts"]);
    server.run().await;
    let service = service(&server, MlflowAccess::Open).await;
    let first = service.trigger("hook").await;
    service.wait_until(&first, "skipped").await;
    delivered(&service, "hook").await;
    let read = server.read("hook").await;
    let told = run_of(&read, &first);
    assert_eq!(told["artifacts"], json!({}));
    let note = told["tags"]["tuneloop.artifacts"].as_str().unwrap();
    assert!(note.starts_with("not stored:"), "{note}");

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = async |method: reqwest::Method, path: &str, body: Value| {
        let url = format!("{}/api/2.0/mlflow/{path}", server.uri());
        let answer = client.request(method, url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    call(reqwest::Method::POST, "runs/delete", json!({"run_id": told["run_id"]})).await;
    let number = &version_of(&read, "hook@0.0.0")["version"];
    let version = json!({"name": "tuneloop-hook", "version": number});
    call(reqwest::Method::DELETE, "model-versions/delete", version).await;
    // Something to tell of both: whether it changed is not known here.
    sqlx::query("UPDATE tracking_runs SET settled = false, delivered = '{}'")
        .execute(&service.db)
        .await
        .unwrap();
    sqlx::query("UPDATE tracking_versions SET delivered = '{}'").execute(&service.db).await.unwrap();
    let second = service.trigger("hook").await;
    service.wait_until(&second, "skipped").await;
    let state = delivered(&service, "hook").await;
    assert_eq!(
        (&state["deleted"], &state["runs"], &state["refused"]),
        (&json!(2), &json!(1), &json!(0)),
        "{state}"
    );
    let read = server.read("hook").await;
    assert_eq!(run_of(&read, &second)["status"], "FINISHED");
    assert_eq!(read["versions"], json!([]));
    service.end().await;
}

#[tokio::test]
async fn what_mlflow_refuses_of_one_run_is_told_and_does_not_hold_up_the_others() {
    let Some(python) = python() else { return };
    let server = Server::start(&python).await;
    let service = service(&server, MlflowAccess::Open).await;
    let first = service.trigger("hook").await;
    service.wait_until(&first, "skipped").await;
    delivered(&service, "hook").await;
    // A parameter of it is told once more, with another value, which MLflow takes of nobody.
    let changed =
        "UPDATE pipeline_configs SET config = jsonb_set(config, '{serving_model}', '\"gpt-4o-mini\"')";
    for statement in [
        "ALTER TABLE pipeline_configs DISABLE TRIGGER pipeline_configs_append_only",
        changed,
        "UPDATE tracking_runs SET settled = false, delivered = '{}'",
    ] {
        sqlx::query(statement).execute(&service.db).await.unwrap();
    }
    let second = service.trigger("hook").await;
    service.wait_until(&second, "skipped").await;
    let told = |state: &Value| state["refused"] == 1 && state["runs"] == 2 && state["status"] == "failing";
    let state = state_where(&service, "hook", told).await;
    let error = state["error"].as_str().unwrap();
    assert!(error.contains(&first) && error.contains("param"), "{error}");
    let read = server.read("hook").await;
    assert_eq!(run_of(&read, &second)["status"], "FINISHED");
    assert_eq!(run_of(&read, &second)["params"]["serving_model"], "gpt-4o-mini");
    assert_eq!(run_of(&read, &first)["params"]["serving_model"], "gpt-4o");
    service.end().await;
}
