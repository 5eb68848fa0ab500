//! What comes before a model is there: too little data, and trainings that do not go well.

use std::time::Duration;

use serde_json::{Value, json};
use tuneloop::simulator::{FaultPlan, JobStatus};

use crate::harness::service::{TestService, config};

#[tokio::test]
async fn too_few_examples_skip_the_run_and_are_counted_for_their_pipeline() {
    let service = TestService::start().await;
    for pipeline in ["hook", "body"] {
        service.pipeline(pipeline, |_| {}).await;
    }
    service.posts(9, 0.08).await;
    service.posts(20, 0.05).await;
    for _ in 0..2 {
        let run = service.trigger("hook").await;
        let run = service.wait_until(&run, "skipped").await;
        assert_eq!(
            (&run["step"], &run["reason_code"]),
            (&json!("preflight"), &json!("insufficient_training_data"))
        );
        assert!(run["reason"].as_str().unwrap().starts_with("9 examples are fewer than the 10"), "{run:#}");
        assert_eq!(run.get("training"), None);
    }
    let metrics = service.text("/metrics", &[]).await;
    let skipped = |pipeline: &str| {
        let of = |line: &&str| {
            line.starts_with("tuneloop_runs_finished_total")
                && line.contains(&format!("pipeline=\"{pipeline}\""))
                && line.contains("insufficient_training_data")
        };
        metrics.lines().find(of).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!((skipped("hook").as_deref(), skipped("body")), (Some("2"), None), "{metrics}");
    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (0, 0), "nothing was paid for");
    service.end().await;
}

#[tokio::test]
async fn a_failed_training_fails_the_run_with_the_providers_reason_and_a_retry_pays_for_another() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!(failed["step"], "train");
    assert!(failed["reason"].as_str().unwrap().contains("The GPU caught fire."), "{failed:#}");
    assert_eq!(failed["training"]["status"], "failed");
    assert_eq!(service.versions("hook").await, [("0.0.0".to_owned(), "live".to_owned())]);

    let why = json!({"reason": "the fire is out"});
    let retried = service.post(&format!("/v1/runs/{id}/retry"), why).await.expect(202);
    assert_eq!((&retried["status"], &retried["step"]), (&json!("running"), &json!("preflight")));
    let again = service.wait_for_test(&id).await;
    assert_ne!(again["training"]["id"], failed["training"]["id"]);
    assert_ne!(again["training"]["job_id"], failed["training"]["job_id"]);
    assert_eq!(again["dataset"], failed["dataset"]);
    let states: Vec<_> = service.simulator.jobs().iter().map(|job| job.status).collect();
    assert_eq!(states, [JobStatus::Failed, JobStatus::Succeeded]);
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.problem(409, "run-not-failed");
    service.end().await;
}

#[tokio::test]
async fn a_base_model_that_does_not_exist_fails_the_run_and_says_so() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["training"]["base_model"] = json!("gpt-17")).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!((&failed["step"], &failed["reason_code"]), (&json!("train"), &json!("model_not_found")));
    assert!(failed["reason"].as_str().unwrap().contains("gpt-17"), "{failed:#}");
    assert_eq!(service.simulator.creates().jobs, 1, "what the provider refuses is not asked for again");
    service.end().await;
}

#[tokio::test]
async fn cancelling_in_training_cancels_the_providers_job() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    service.wait_for(&id, "in training", |run| run["training"]["job_id"].is_string()).await;
    let why = json!({"reason": "wrong posts"});
    let asked = service.post(&format!("/v1/runs/{id}/cancel"), why).await.expect(202);
    assert_eq!(asked["request"], "cancel");
    let cancelled = service.wait_until(&id, "cancelled").await;
    assert_eq!(cancelled["reason"], "key:admin cancelled the run: wrong posts");
    let states: Vec<_> = service.simulator.jobs().iter().map(|job| job.status).collect();
    assert_eq!(states, [JobStatus::Cancelled]);
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.problem(409, "run-finished");
    // The place is free again.
    service.trigger("hook").await;
    service.end().await;
}

#[tokio::test]
async fn a_training_that_takes_too_long_is_cancelled_and_fails_the_run() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |config| config["training"]["time_limit_seconds"] = json!(0.5)).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    let failed = service.wait_until(&id, "failed").await;
    assert_eq!((&failed["step"], &failed["reason_code"]), (&json!("train"), &json!("training_time_limit")));
    assert_eq!(service.simulator.jobs()[0].status, JobStatus::Cancelled);
    service.end().await;
}

/// A pipeline that searches in two trainings, which a budget lets be paid for once and a half, and a run of it whose
/// trainings both have failed.
async fn failed_search(service: &TestService) -> String {
    let search = |config: &mut Value| config["training"]["search"] = json!({"n_epochs": [1, 2]});
    service.pipeline("hook", search).await;
    service.posts(12, 0.08).await;
    let report = service.post("/v1/pipelines/hook/preflight", Value::Null).await.expect(200);
    let mut limited = config();
    search(&mut limited);
    limited["budget"] = json!({"per_month": report["cost"]["amount"].as_f64().unwrap() * 1.5});
    service.put("/v1/pipelines/hook", &[], limited).await.expect(200);
    service.simulator.fail_next_job("server_error", "The GPU caught fire.");
    service.simulator.fail_next_job("server_error", "The other one, too.");
    let id = service.trigger("hook").await;
    service.wait_until(&id, "failed").await;
    id
}

#[tokio::test]
async fn a_retry_renews_a_whole_search_at_the_price_of_the_day_once_its_budget_allows_it() {
    let service = TestService::start().await;
    let id = failed_search(&service).await;
    // What it was priced at then.
    sqlx::query("UPDATE trainings SET price_per_million = price_per_million / 1.25")
        .execute(&service.db)
        .await
        .unwrap();
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.expect(202);
    let run = service.wait_for(&id, "held", |run| run["status"] == "waiting_approval").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("preflight"), &json!("budget_exceeded")));
    assert_eq!(service.simulator.creates().jobs, 2, "nothing was paid for again");
    service.post(&format!("/v1/runs/{id}/approve"), Value::Null).await.expect(202);
    service.wait_for_test(&id).await;

    let trainings = service.read(&format!("/v1/runs/{id}/trainings")).await;
    let told: Vec<_> = trainings["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|training| (training["trial"].as_i64().unwrap(), training["status"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(0, "failed"), (0, "succeeded"), (1, "failed"), (1, "succeeded")]);
    let expected = |at: usize| trainings["items"][at]["expected_cost"].as_f64().unwrap();
    for (old, new) in [(0, 1), (2, 3)] {
        assert!((expected(new) - expected(old) * 1.25).abs() < 1e-6, "{trainings:#}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_retry_that_is_forced_asks_no_budget_and_nobody_else_and_says_who_forced_it() {
    let service = TestService::start().await;
    let id = failed_search(&service).await;
    let why = json!({"reason": "it is worth it", "force": true});
    service.post(&format!("/v1/runs/{id}/retry"), why).await.expect(202);
    service.wait_for_test(&id).await;
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let messages: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(messages.contains(&"key:admin approved the training: it is worth it"), "{messages:#?}");
    assert_eq!(service.simulator.creates().jobs, 4);
    service.end().await;
}

/// A run that has failed although its job goes on: the create was carried out and not answered, and its job is hidden until
/// nobody looks for it any more.
async fn failed_with_a_job(service: &TestService) -> (String, String) {
    let plan = |more: Value| {
        let mut plan = json!({"jobs": {"hidden_seconds": 3600.0, "slowness": 1e5}});
        plan.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        FaultPlan::parse(&plan.to_string()).unwrap()
    };
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let scripts = json!([{"route": "create", "faults": ["dropped_after", "rate_limited"]}]);
    service.simulator.set_faults(plan(json!({"scripts": scripts})));
    let id = service.trigger("hook").await;
    let created = async {
        while service.simulator.jobs().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), created).await.expect("a job is created");
    let jobs = json!({"hidden_seconds": 3600.0, "training_available": false});
    service.simulator.set_faults(plan(json!({"jobs": jobs})));
    service.wait_until(&id, "failed").await;
    let left = "SELECT count(*) FROM jobs WHERE kind <> 'model_check' AND state IN ('ready', 'leased')";
    let settled = async {
        while sqlx::query_scalar::<_, i64>(left).fetch_one(&service.db).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), settled).await.expect("the clean-up ends");
    (id, service.simulator.jobs()[0].id.clone())
}

#[tokio::test]
async fn a_retry_leaves_a_job_alone_that_the_clean_up_is_about_to_cancel() {
    let service = TestService::start().await;
    let (id, job) = failed_with_a_job(&service).await;
    // The clean-up was killed between noting it and cancelling it.
    sqlx::query("INSERT INTO training_duplicates (training_id, job_id) SELECT id, $1 FROM trainings")
        .bind(&job)
        .execute(&service.db)
        .await
        .unwrap();
    service.simulator.set_faults(FaultPlan::default());
    service.post(&format!("/v1/runs/{id}/retry"), Value::Null).await.expect(202);
    let run = service.wait_for_test(&id).await;
    assert_ne!(run["training"]["job_id"], json!(job), "{run:#}");
    let cancelled = async {
        while service.simulator.jobs()[0].status != JobStatus::Cancelled {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), cancelled)
        .await
        .expect("the other is cancelled all the same");
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&id, "cancelled").await;
    service.end().await;
}

#[tokio::test]
async fn the_clean_up_leaves_a_job_alone_that_a_retry_has_adopted_since_it_looked() {
    let service = TestService::start().await;
    let (id, job) = failed_with_a_job(&service).await;
    // The run is held while the clean-up finds the job, and adopts it before it lets go.
    let mut tx = service.db.begin().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid() FROM runs WHERE id = $1::uuid FOR UPDATE")
        .bind(&id)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    service.simulator.set_faults(FaultPlan::default());
    let mut waking = service.db.begin().await.unwrap();
    tuneloop::jobs::wake(&mut waking, "training_cleanup", &id).await.unwrap();
    waking.commit().await.unwrap();
    service.until_blocked_by(pid).await;
    sqlx::query(
        "UPDATE trainings SET provider_job_id = $1, provider_status = 'running', create_sent_at = NULL",
    )
    .bind(&job)
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query(
        "UPDATE runs SET status = 'running', place = 'building', finished_at = NULL, version = version + 1",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tuneloop::jobs::wake(&mut tx, tuneloop::runs::JOB_KIND, &id).await.unwrap();
    tx.commit().await.unwrap();
    service.wait_for(&id, "followed", |run| run["training"]["status"] == "validating_files").await;
    let done = "SELECT count(*) FROM jobs WHERE kind = 'training_cleanup' AND state IN ('ready', 'leased')";
    let looked = async {
        while sqlx::query_scalar::<_, i64>(done).fetch_one(&service.db).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), looked).await.expect("the clean-up ends");
    assert_eq!(service.simulator.jobs()[0].status, JobStatus::ValidatingFiles, "it goes on");
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&id, "cancelled").await;
    service.end().await;
}
