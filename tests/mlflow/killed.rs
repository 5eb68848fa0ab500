//! One delivery whose worker is killed between any two calls, again and again.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::deliveries::{delivered, each_point_once, run_of, version_of, wake};
use crate::harness::service::TestService;
use crate::process::Worker;
use crate::server::{Server, python};

/// In the order in which a delivery comes to them.
const POINTS: [&str; 11] = [
    "tracking.run_marked",
    "tracking.run_created",
    "tracking.params_sent",
    "tracking.inputs_sent",
    "tracking.metrics_sent",
    "tracking.artifacts_sent",
    "tracking.tags_sent",
    "tracking.run_told",
    "tracking.version_marked",
    "tracking.version_created",
    "tracking.alias",
];
/// Only where something is told of a version that is there.
const LATER: &str = "tracking.version_tagged";

/// A worker process beside the service, which tells MLflow.
fn worker(service: &TestService, server: &Server, point: Option<&str>) -> Worker {
    let options: std::sync::Arc<PgConnectOptions> = service.db.connect_options();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
    for variable in ["RUST_LOG", "TUNELOOP_HALT_AT", "TUNELOOP_HALT_UNTIL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        command.env_remove(variable);
    }
    command
        .args(["serve", "--roles", "worker", "--listen", "127.0.0.1:0", "--worker-slots", "2"])
        .args(["--database-connections", "4", "--log-format", "text", "--poll-interval-ms", "100"])
        .env("DATABASE_URL", options.to_url_lossy().as_str())
        .env("OPENAI_API_KEY", "sk-test")
        .env("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        .env("MLFLOW_TRACKING_URI", server.uri())
        .env("NO_PROXY", "127.0.0.1")
        .envs(point.map(|point| ("TUNELOOP_HALT_AT", point)));
    Worker::start(command)
}

/// Lets a worker come to a point and kills it there; its lease runs out at once.
async fn killed_at(service: &TestService, server: &Server, point: &str) {
    let mut halted = worker(service, server, Some(point));
    wake(service, "hook").await;
    halted.says(&format!("halted at {point}")).await;
    halted.kill();
    let ended = sqlx::query(
        "UPDATE jobs SET lease_expires_at = now() - interval '1 second' WHERE kind = 'tracking' AND state = 'leased'",
    );
    assert_eq!(ended.execute(&service.db).await.unwrap().rows_affected(), 1, "killed at {point}");
}

/// Lets the time pass in which an unanswered create is waited for, which has begun.
async fn settle(service: &TestService, server: &Server) {
    let mut patient = worker(service, server, None);
    wake(service, "hook").await;
    patient.says("MLflow is given time to show whether it created").await;
    patient.stop().await;
    for table in ["tracking_runs", "tracking_versions"] {
        let passed = format!("UPDATE {table} SET create_sent_at = create_sent_at - interval '1 hour'");
        sqlx::query(sqlx::AssertSqlSafe(passed)).execute(&service.db).await.unwrap();
    }
}

#[tokio::test]
async fn workers_killed_between_any_two_calls_leave_everything_there_once() {
    let Some(python) = python() else { return };
    let server = Server::start(&python).await;
    let service = TestService::with_training_time(Duration::from_millis(500)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;

    for point in POINTS {
        killed_at(&service, &server, point).await;
        if point.ends_with("_marked") {
            settle(&service, &server).await;
        }
    }
    let last = worker(&service, &server, None);
    delivered(&service, "hook").await;
    last.stop().await;

    service.approve(&run).await;
    service.wait_until(&run, "succeeded").await;
    killed_at(&service, &server, LATER).await;
    let last = worker(&service, &server, None);
    delivered(&service, "hook").await;
    last.stop().await;

    let read = server.read("hook").await;
    assert_eq!(read["runs"].as_array().unwrap().len(), 1);
    assert_eq!(read["versions"].as_array().unwrap().len(), 2);
    let told = run_of(&read, &run);
    each_point_once(told);
    assert_eq!((&told["status"], told["inputs"].as_array().unwrap().len()), (&json!("FINISHED"), 1));
    let curve: i64 = sqlx::query_scalar("SELECT count(train_loss) FROM training_metrics")
        .fetch_one(&service.db)
        .await
        .unwrap();
    assert_eq!(told["metrics"]["train_loss"].as_array().unwrap().len(), usize::try_from(curve).unwrap());
    let live = version_of(&read, "hook@1.0.0");
    assert_eq!((&live["tags"]["tuneloop.status"], &live["run_id"]), (&json!("live"), &told["run_id"]));
    assert_eq!(version_of(&read, "hook@0.0.0")["tags"]["tuneloop.status"], "retired");
    assert_eq!(read["aliases"], json!({"champion": live["version"]}));
    service.end().await;
}

#[test]
fn every_point_of_a_delivery_is_killed_at() {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tracking")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("halt::point(\"tracking\", \"").skip(1);
            found.extend(calls.map(|call| format!("tracking.{}", call.split('"').next().unwrap())));
        }
    }
    assert_eq!(found, POINTS.into_iter().chain([LATER]).map(str::to_owned).collect());
}
