//! From posts to a promoted and watched model, by HTTP only.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tuneloop::simulator::JobStatus;

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

/// The events of a stream: id, name and data of each.
fn events(stream: &str) -> Vec<(i64, String, Value)> {
    let field = |event: &str, name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start().to_owned()
    };
    stream
        .split("\n\n")
        .filter(|event| event.contains("data:"))
        .map(|event| {
            let data = serde_json::from_str(&field(event, "data:")).unwrap();
            (field(event, "id:").parse().unwrap(), field(event, "event:"), data)
        })
        .collect()
}

#[tokio::test]
async fn a_better_model_is_trained_tested_promoted_and_watched_by_http_alone() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            // Time for the outcomes to arrive, also on a busy machine.
            config["experiment"]["horizon_seconds"] = json!(12.0);
            config["watch"]["duration_seconds"] = json!(1.0);
        })
        .await;
    service.posts(12, 0.08).await;
    service.posts(5, 0.03).await;

    let accepted = service.post("/v1/pipelines/hook/runs", Value::Null).await;
    let location = accepted.header("location").to_owned();
    assert_eq!(accepted.header("etag"), "\"1\"");
    let queued = accepted.expect(202);
    let id = queued["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/runs/{id}"));
    assert_eq!((&queued["trigger"], &queued["config_version"]), (&json!("api"), &json!(1)));
    let path = format!("/v1/runs/{id}/events");
    let stream = service.text(&path, &[("accept", "text/event-stream")]);
    let drive = async {
        let testing = service.wait_for_test(&id).await;
        let arms = service.weights("hook").await;
        assert_eq!(arms, [("1.0.0".to_owned(), 5000), ("0.0.0".to_owned(), 5000)]);
        service.traffic("hook", 0..80, BETTER).await;
        let experiment = testing["experiment_id"].as_str().unwrap();
        let dry_run = format!("/v1/experiments/{experiment}/decide?dry_run=true");
        service.post(&dry_run, Value::Null).await.expect(200);
        service.wait_until(&id, "succeeded").await
    };
    let (stream, run) = tokio::join!(stream, drive);

    let steps: Vec<_> = run["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    let way = [
        "collect",
        "preflight",
        "upload",
        "train",
        "register",
        "evaluate",
        "test",
        "decide",
        "promote",
        "watch",
    ];
    assert_eq!(steps, way);
    assert!(run["steps"].as_array().unwrap().iter().all(|step| step["finished_at"].is_string()), "{run:#}");
    assert_eq!(run["version"], "1.0.0");
    // Nobody is served during this watch, and it says that it could not judge.
    assert_eq!(run["reason_code"], "watched_without_evidence", "{run:#}");
    assert_eq!(run["dataset"]["examples"], 12);
    let counts = json!({"posts": 17, "too_old": 0, "below_threshold": 5, "empty": 0, "examples": 12});
    for (stage, count) in counts.as_object().unwrap() {
        assert_eq!(&run["dataset"]["counts"][stage], count, "{stage}");
    }

    the_training_is_what_the_provider_has(&service, &run);
    the_version_has_its_lineage(&service, &run).await;
    the_decision_counts_every_outcome(&service, &run).await;
    the_history_of_traffic_tells_the_way(&service).await;
    the_trail_tells_who_did_what(&service, &id).await;

    let stream = events(&stream);
    let ids: Vec<i64> = stream.iter().map(|(id, ..)| *id).collect();
    assert!(ids.is_sorted() && BTreeSet::from_iter(&ids).len() == ids.len(), "{ids:?}");
    let listed = service.read(&format!("{path}?limit=200")).await;
    let listed = listed["items"].as_array().unwrap();
    assert_eq!(stream.iter().map(|(.., data)| data).collect::<Vec<_>>(), listed.iter().collect::<Vec<_>>());
    assert_eq!(stream.last().unwrap().1, "finished");
    let rest = [("accept", "text/event-stream"), ("last-event-id", &*ids[2].to_string())];
    let rest = service.text(&path, &rest).await;
    assert_eq!(events(&rest).iter().map(|(id, ..)| *id).collect::<Vec<_>>(), ids[3..]);
    service.end().await;
}

fn the_training_is_what_the_provider_has(service: &TestService, run: &Value) {
    let (jobs, training) = (service.simulator.jobs(), &run["training"]);
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    assert_eq!((job.status, training["status"].as_str()), (JobStatus::Succeeded, Some("succeeded")));
    assert_eq!(training["job_id"], job.id);
    assert_eq!(training["file_id"], job.training_file);
    assert_eq!(training["model_id"], *job.fine_tuned_model.as_ref().unwrap());
    assert_eq!(job.model, "gpt-4o-2024-08-06");
    assert_eq!(training["id"], *job.metadata["training_id"]);
    assert_eq!(run["id"], *job.metadata["run_id"]);
    assert!(training["trained_tokens"].as_i64().unwrap() > 0, "{training}");
    assert!(training["final_loss"].as_f64().unwrap() > 0.0, "{training}");
    let file = service.simulator.file_content(&job.training_file).unwrap();
    assert_eq!(run["dataset"]["bytes"], file.len());
    assert_eq!(run["dataset"]["digest"], hex::encode(Sha256::digest(&file)));
}

async fn the_version_has_its_lineage(service: &TestService, run: &Value) {
    let version = service.read("/v1/pipelines/hook/models/1.0.0").await;
    assert_eq!((&version["name"], &version["status"]), (&json!("hook@1.0.0"), &json!("live")));
    assert_eq!(version["parent"], "0.0.0");
    assert_eq!(version["run_id"], run["id"]);
    assert_eq!(version["training_id"], run["training"]["id"]);
    assert_eq!(version["dataset_digest"], run["dataset"]["digest"]);
    assert_eq!(version["model_id"], run["training"]["model_id"]);
    assert_eq!(version["metrics"]["final_loss"], run["training"]["final_loss"]);
    let former = service.read("/v1/pipelines/hook/models/0.0.0").await;
    assert_eq!((&former["status"], &former["model_id"]), (&json!("retired"), &json!("gpt-4o")));
    let pipeline = service.read("/v1/pipelines/hook").await;
    assert_eq!(pipeline["live"], json!({"version": "1.0.0", "model_id": version["model_id"]}));
}

async fn the_decision_counts_every_outcome(service: &TestService, run: &Value) {
    let decision = &run["decision"];
    assert_eq!(
        (&decision["verdict"], &decision["reason_code"]),
        (&json!("promote"), &json!("primary_superior"))
    );
    let counts = &decision["estimate"]["counts"];
    let outcomes = |arm: &str| counts[arm]["outcomes"].as_u64().unwrap();
    assert_eq!(outcomes("baseline") + outcomes("candidate"), 160, "{counts}");
    let relative = decision["estimate"]["relative"].as_f64().unwrap();
    assert!((0.2..0.5).contains(&relative), "{relative}");
    let experiment =
        service.read(&format!("/v1/experiments/{}", run["experiment_id"].as_str().unwrap())).await;
    assert_eq!((&experiment["status"], &experiment["run_id"]), (&json!("decided"), &run["id"]));
    assert_eq!((&experiment["baseline"], &experiment["candidate"]), (&json!("0.0.0"), &json!("1.0.0")));
    assert_eq!(experiment["decision"], *decision);
    assert_eq!(experiment["decision_digest"].as_str().unwrap().len(), 64);
}

async fn the_history_of_traffic_tells_the_way(service: &TestService) {
    let history = service.read("/v1/pipelines/hook/traffic/history").await;
    let revisions = history["items"].as_array().unwrap();
    let told: Vec<_> = revisions
        .iter()
        .map(|revision| (revision["kind"].as_str().unwrap(), revision["live"].as_str().unwrap()))
        .collect();
    let expected =
        [("watch_ended", "1.0.0"), ("promotion", "1.0.0"), ("test_started", "0.0.0"), ("created", "0.0.0")];
    assert_eq!(told, expected);
    assert_eq!(revisions[1]["weights"][0]["weight"], 9000, "{revisions:#?}");
    assert_eq!(revisions[1]["weights"][1]["version"], "0.0.0");
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 10_000)]);
}

async fn the_trail_tells_who_did_what(service: &TestService, run: &str) {
    let trail = service.read("/v1/audit?pipeline=hook&limit=200").await;
    let trail: Vec<_> = trail["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| (event["actor"].as_str().unwrap(), event["action"].as_str().unwrap()))
        .collect();
    for action in ["pipeline.create", "traffic.created", "run.trigger"] {
        assert!(trail.contains(&("key:admin", action)), "{action}: {trail:?}");
    }
    for action in [
        "model.register",
        "traffic.test_started",
        "experiment.decide",
        "traffic.promotion",
        "traffic.watch_ended",
        "run.finish",
    ] {
        let count = trail.iter().filter(|event| **event == ("worker", action)).count();
        assert_eq!(count, 1, "{action}: {trail:?}");
    }
    let of_run = service.read(&format!("/v1/audit?subject_kind=run&subject_id={run}&limit=200")).await;
    let steps = of_run["items"].as_array().unwrap().iter().filter(|event| event["action"] == "run.step");
    assert_eq!(steps.count(), 9, "one for each step that was entered after the first");
}

#[tokio::test]
async fn metrics_show_runs_steps_jobs_and_requests() {
    let service = TestService::with_training_time(Duration::from_millis(100)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "waiting_approval").await;
    let metrics = service.text("/metrics", &[]).await;
    for line in [
        r#"tuneloop_runs{pipeline="hook",status="waiting_approval"} 1"#,
        r#"tuneloop_step_duration_seconds_count{outcome="next",pipeline="hook",step="upload"} 1"#,
        r#"tuneloop_jobs{kind="run",state="ready"} 1"#,
        "tuneloop_database_up 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    let routes: Vec<_> = metrics.lines().filter(|line| line.contains("/v1/runs/")).collect();
    assert!(!routes.is_empty() && routes.iter().all(|line| line.contains("/v1/runs/{id}")), "{routes:?}");
    service.end().await;
}
