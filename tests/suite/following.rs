//! A training from its creation to its clean-up: searches, the loss curve, notices of the provider, files.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tuneloop::simulator::{FaultPlan, JobStatus};
use tuneloop::standard_webhooks::WebhookSecret;

use crate::harness::service::{TestService, WEBHOOK_SECRET};

/// Enough posts that some are set aside.
async fn with_validation(service: &TestService) {
    service.posts(60, 0.08).await;
}

#[tokio::test]
async fn a_search_trains_each_combination_on_one_file_and_the_best_goes_on() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["dataset"]["split"] = json!({"validation_share": 0.3});
            config["training"]["search"] =
                json!({"n_epochs": [1, 4], "learning_rate_multiplier": [0.5, 2.0]});
        })
        .await;
    with_validation(&service).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;

    let trainings = service.read(&format!("/v1/runs/{id}/trainings")).await;
    let trainings = trainings["items"].as_array().unwrap();
    let tried: Vec<_> = trainings
        .iter()
        .map(|training| {
            let chosen = &training["hyperparameters"];
            (chosen["n_epochs"].as_i64(), chosen["learning_rate_multiplier"].as_f64())
        })
        .collect();
    let grid = [(1, 0.5), (1, 2.0), (4, 0.5), (4, 2.0)];
    assert_eq!(tried, grid.map(|(epochs, rate)| (Some(epochs), Some(rate))));
    let loss = |training: &Value| training["validation_loss"].as_f64().expect("is measured");
    let best = trainings.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!(run["training"]["id"], best["id"], "{trainings:#?}");

    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (2, 4), "the files are uploaded once for all");
    let jobs = service.simulator.jobs();
    let asked: Vec<_> = jobs.iter().map(|job| job.metadata["training_id"].clone()).collect();
    let known: Vec<_> =
        trainings.iter().map(|training| training["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(asked, known, "each training has its job");

    let mut versions = service.versions("hook").await;
    versions.sort();
    let statuses: Vec<_> = versions.iter().map(|(_, status)| status.as_str()).collect();
    assert_eq!(statuses, ["live", "rejected", "rejected", "rejected", "testing"], "{versions:?}");
    assert_eq!(run["version"], versions[4].0);
    service.end().await;
}

#[tokio::test]
async fn a_training_of_a_search_that_fails_leaves_the_others() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["training"]["search"] = json!({"n_epochs": [1, 2]})).await;
    service.posts(12, 0.08).await;
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    let id = service.trigger("hook").await;
    service.wait_for_test(&id).await;
    let statuses: Vec<_> = service.simulator.jobs().iter().map(|job| job.status).collect();
    assert_eq!(statuses, [JobStatus::Failed, JobStatus::Succeeded]);
    service.end().await;
}

#[tokio::test]
async fn the_providers_reports_and_the_curve_are_kept_and_served() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["dataset"]["split"] = json!({"validation_share": 0.3})).await;
    with_validation(&service).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let training = format!("/v1/trainings/{}", run["training"]["id"].as_str().unwrap());

    let events = service.read(&format!("{training}/events?limit=200")).await;
    let messages: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(messages[0].starts_with("Created fine-tuning job"), "{messages:?}");
    assert!(messages.last().unwrap().contains("successfully completed"), "{messages:?}");
    let reported = messages.iter().filter(|message| message.starts_with("Step ")).count();

    let curve = service.read(&format!("{training}/curve?points=10000")).await;
    let curve = curve["items"].as_array().unwrap();
    assert_eq!(curve.len(), reported, "a point for each report");
    assert!(curve.iter().all(|point| point["train_loss"].as_f64().is_some()), "{curve:?}");
    let few = service.read(&format!("{training}/curve?points=3")).await;
    let few = few["items"].as_array().unwrap();
    assert!(few.len() <= 3 && few.last() == curve.last(), "{few:?}");
    service.get(&format!("{training}/curve?points=0")).await.problem(422, "invalid-request");

    let checkpoints = service.read(&format!("{training}/checkpoints")).await;
    let last = checkpoints["items"].as_array().unwrap().last().expect("the provider keeps some");
    let shown = service.read(&training).await;
    assert_eq!(last["step"], curve.last().unwrap()["step"]);
    assert_eq!(shown["final_loss"], curve.last().unwrap()["train_loss"]);
    assert!(shown["validation_loss"].as_f64().unwrap() > 0.0, "{shown:#}");
    let version =
        service.read(&format!("/v1/pipelines/hook/models/{}", run["version"].as_str().unwrap())).await;
    assert_eq!(version["metrics"]["validation_loss"], shown["validation_loss"]);
    service.end().await;
}

/// Sends a notice as the provider does.
async fn notice(service: &TestService, id: &str, sent_ago: i64, job: &str, secret: &str) -> u16 {
    let body = json!({
        "id": "evt_1", "object": "event", "type": "fine_tuning.job.succeeded", "created_at": 1, "data": {"id": job},
    });
    let bytes = serde_json::to_vec(&body).unwrap();
    let timestamp = (service.clock.now().timestamp() - sent_ago).to_string();
    let signature = WebhookSecret::new(secret).unwrap().sign(id, &timestamp, &bytes);
    let headers = [("webhook-id", id), ("webhook-timestamp", &timestamp), ("webhook-signature", &signature)];
    service.send(Method::POST, "/v1/webhooks/openai", &headers, Some(body)).await.status.as_u16()
}

#[tokio::test]
async fn a_notice_of_the_provider_wakes_the_run_once_and_only_with_its_signature() {
    let service = TestService::with_training_time(Duration::from_secs(2)).await;
    service
        .pipeline("hook", |config| {
            config["training"]["poll_seconds"] = json!(3600.0);
            config["training"]["maximum_poll_seconds"] = json!(3600.0);
        })
        .await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for(&id, "training", |run| run["training"].get("job_id").is_some()).await;
    let job = run["training"]["job_id"].as_str().unwrap();
    let ended = async {
        while !service.simulator.jobs().iter().all(|job| job.status.is_final()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ended).await.expect("the job ends");

    assert_eq!(notice(&service, "msg_1", 0, job, "whsec_b3RoZXI=").await, 400, "another secret");
    assert_eq!(notice(&service, "msg_1", 301, job, WEBHOOK_SECRET).await, 400, "an old notice");
    assert_eq!(notice(&service, "msg_0", 0, "ftjob-unknown", WEBHOOK_SECRET).await, 204);
    assert_eq!(service.run(&id).await["step"], "train", "nobody has woken it");
    assert_eq!(notice(&service, "msg_1", 0, job, WEBHOOK_SECRET).await, 204);
    assert_eq!(notice(&service, "msg_1", 0, job, WEBHOOK_SECRET).await, 204);
    service.wait_for_test(&id).await;
    let metrics = service.text("/metrics", &[]).await;
    for (outcome, count) in [("accepted", 1), ("replayed", 1), ("refused", 2), ("kept", 1)] {
        let line =
            format!("tuneloop_webhooks_received_total{{outcome=\"{outcome}\",provider=\"openai\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    service.end().await;
}

#[tokio::test]
async fn uploaded_files_are_deleted_when_the_run_has_ended_and_a_retry_uploads_anew() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["training"]["delete_files"] = json!(true);
            config["dataset"]["split"] = json!({"validation_share": 0.3});
        })
        .await;
    with_validation(&service).await;
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    let id = service.trigger("hook").await;
    service.wait_until(&id, "failed").await;
    let gone = async {
        while service.simulator.files().iter().any(|file| file.purpose == "fine-tune") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.expect("the files are deleted");
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.expect(202);
    service.wait_for_test(&id).await;
    assert_eq!(service.simulator.creates().files, 4, "two files, twice");
    let trail = service.read("/v1/audit?action=training.delete_files").await;
    assert_eq!(trail["items"].as_array().unwrap().len(), 1, "{trail:#}");
    service.end().await;
}

#[tokio::test]
async fn training_settings_out_of_bounds_are_told_by_their_field() {
    let service = TestService::start().await;
    let mut config = crate::harness::service::config();
    config["training"]["method"] = json!("preference");
    config["training"]["beta"] = json!(3);
    config["training"]["search"] = json!({"n_epochs": [0, 2]});
    let problem = service.put("/v1/pipelines/hook", &[], config).await.problem(422, "invalid-request");
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    for field in ["/training/method", "/training/beta", "/training/search/n_epochs"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_notice_that_comes_before_the_jobs_id_is_stored_wakes_the_run_once_it_is() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["training"]["poll_seconds"] = json!(3600.0);
            config["training"]["maximum_poll_seconds"] = json!(3600.0);
        })
        .await;
    service.posts(12, 0.08).await;
    // The job is created and ends while the answer is on its way.
    let late = json!({"scripts": [{"route": "create", "faults": ["late"]}], "late_seconds": 3});
    service.simulator.set_faults(FaultPlan::parse(&late.to_string()).unwrap());
    let id = service.trigger("hook").await;
    let ended = async {
        while !service.simulator.jobs().first().is_some_and(|job| job.status.is_final()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ended).await.expect("the job ends");
    let job = service.simulator.jobs()[0].id.clone();
    assert_eq!(service.run(&id).await["training"].get("job_id"), None, "it is not known yet");
    assert_eq!(notice(&service, "msg_1", 0, &job, WEBHOOK_SECRET).await, 204);
    service.wait_for_test(&id).await;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM early_notices").fetch_one(&service.db).await.unwrap();
    assert_eq!(left, 0);
    service.end().await;
}

#[tokio::test]
async fn a_run_goes_on_without_reports_that_cannot_be_read_and_they_are_read_later() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["dataset"]["split"] = json!({"validation_share": 0.3})).await;
    with_validation(&service).await;
    let broken = json!({"route_rates": {"report": {"server_error": 1.0}}});
    service.simulator.set_faults(FaultPlan::parse(&broken.to_string()).unwrap());
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let noted = |event: &Value| event["message"].as_str().unwrap().contains("its reports could not be read");
    assert!(events["items"].as_array().unwrap().iter().any(noted), "{events:#}");
    let training = format!("/v1/trainings/{}", run["training"]["id"].as_str().unwrap());
    let shown = service.read(&training).await;
    assert_eq!((&shown["reports_owed"], shown.get("validation_loss")), (&json!(true), None));

    service.simulator.set_faults(FaultPlan::default());
    let read = async {
        while service.read(&training).await["reports_owed"] == json!(true) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), read).await.expect("they are read");
    let shown = service.read(&training).await;
    let version = run["version"].as_str().unwrap();
    let version = service.read(&format!("/v1/pipelines/hook/models/{version}")).await;
    assert!(shown["validation_loss"].is_f64(), "{shown:#}");
    assert_eq!(version["metrics"]["validation_loss"], shown["validation_loss"]);
    assert!(!service.read(&format!("{training}/checkpoints")).await["items"].as_array().unwrap().is_empty());
    service.end().await;
}

#[tokio::test]
async fn the_simulators_own_notices_wake_the_run() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["training"]["poll_seconds"] = json!(3600.0);
            config["training"]["maximum_poll_seconds"] = json!(3600.0);
        })
        .await;
    service.posts(12, 0.08).await;
    let (simulator, secret) = (service.simulator.clone(), WebhookSecret::new(WEBHOOK_SECRET).unwrap());
    let target = service.url("/v1/webhooks/openai").parse().unwrap();
    let sending = tokio::spawn(async move { simulator.send_notices(target, secret).await });
    let id = service.trigger("hook").await;
    service.wait_for_test(&id).await;
    sending.abort();
    service.end().await;
}
