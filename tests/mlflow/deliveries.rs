//! Waiting until MLflow has been told.

use std::time::{Duration, Instant};

use serde_json::Value;
use tuneloop::jobs;

use crate::harness::service::TestService;

/// Only keeps a failing test from hanging.
const LIMIT: Duration = Duration::from_mins(3);

/// Has the job run now, whatever it waits for.
pub(crate) async fn wake(service: &TestService, pipeline: &str) {
    let mut tx = service.db.begin().await.unwrap();
    jobs::wake(&mut tx, "tracking", pipeline).await.unwrap();
    tx.commit().await.unwrap();
}

/// The state once MLflow has been told of everything.
pub(crate) async fn delivered(service: &TestService, pipeline: &str) -> Value {
    state_where(service, pipeline, |state| state["status"] == "delivered").await
}

/// The state once it is as `is` wants it.
pub(crate) async fn state_where(service: &TestService, pipeline: &str, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let state = service.read(&format!("/v1/pipelines/{pipeline}/tracking")).await;
        if is(&state) {
            return state;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain: {state:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        wake(service, pipeline).await;
    }
}

/// The run of ours with this id, of which there is one.
pub(crate) fn run_of<'a>(read: &'a Value, id: &str) -> &'a Value {
    let runs = read["runs"].as_array().unwrap();
    let of_run: Vec<_> = runs.iter().filter(|run| run["tags"]["tuneloop.run_id"] == id).collect();
    assert_eq!(of_run.len(), 1, "of run {id}: {of_run:#?}");
    of_run[0]
}

/// The number in MLflow of a version, of which there is one.
pub(crate) fn version_of<'a>(read: &'a Value, name: &str) -> &'a Value {
    let versions = read["versions"].as_array().unwrap();
    let found: Vec<_> =
        versions.iter().filter(|version| version["tags"]["tuneloop.version"] == name).collect();
    assert_eq!(found.len(), 1, "of {name}: {found:#?}");
    found[0]
}

/// No point of a metric is there twice.
pub(crate) fn each_point_once(run: &Value) {
    for (key, points) in run["metrics"].as_object().unwrap() {
        let points = points.as_array().unwrap();
        let mut steps: Vec<_> = points.iter().map(|point| point["step"].as_i64().unwrap()).collect();
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps.len(), points.len(), "{key}: {points:?}");
    }
}
