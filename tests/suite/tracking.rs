//! MLflow that is away is in nobody's way.

use reqwest::Url;
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use tuneloop::tracking::{MlflowAccess, MlflowSettings};

use crate::harness::service::TestService;

#[tokio::test]
async fn a_run_goes_its_way_while_mlflow_is_away_and_the_delay_is_shown() {
    // A port at which nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let settings = MlflowSettings::new(url, MlflowAccess::Open);
    let service = TestService::with_mlflow(settings, Duration::from_millis(100)).await;
    service.pipeline("hook", |_| {}).await;
    let at_first = service.read("/v1/pipelines/hook/tracking").await;
    assert!(at_first["status"] == "off" || at_first["status"] == "failing", "{at_first}");
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;

    let mut state = json!(null);
    let failing = async {
        while state["status"] != "failing" {
            tokio::time::sleep(Duration::from_millis(100)).await;
            state = service.read("/v1/pipelines/hook/tracking").await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), failing).await.is_ok(), "{state}");
    assert!(state["error"].as_str().unwrap().contains("check MLFLOW_TRACKING_URI"), "{state}");
    assert!(state["failures"].as_i64().unwrap() > 0 && state["behind_since"].is_string(), "{state}");
    assert!(state["retry_at"].is_string() && state["failing_since"].is_string(), "{state}");
    assert_eq!((&state["runs"], &state["versions"]), (&json!(0), &json!(0)));
    let metrics = service.text("/metrics", &[]).await;
    let age = metrics.lines().find(|line| line.starts_with("tuneloop_tracking_oldest_age_seconds{")).unwrap();
    let (series, age) = age.rsplit_once(' ').unwrap();
    assert!(series.contains("pipeline=\"hook\"") && age.parse::<f64>().unwrap() > 0.0, "{series} {age}");
    service.get("/v1/pipelines/body/tracking").await.problem(404, "not-found");
    service.end().await;
}
