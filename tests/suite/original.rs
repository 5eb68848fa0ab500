//! The behaviours that the tests of the loop that tuneloop replaces asserted, one for one.

use std::time::Duration;

use serde_json::{Value, json};
use tuneloop::experiments::decision::{cost_gain, lift};
use tuneloop::simulator::JobStatus;

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

/// The lines of the file that the provider got.
fn uploaded(service: &TestService) -> Vec<Value> {
    let files = service.simulator.files();
    let file = files.iter().find(|file| file.purpose == "fine-tune").unwrap();
    let text = String::from_utf8(service.simulator.file_content(&file.id).unwrap()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn post(service: &TestService, hook: &str, engagement_rate: f64) {
    let insert = "INSERT INTO posts (original_input, hook, body, engagement_rate)
                  VALUES ('about ' || $1, $1, 'all of ' || $1, $2)";
    sqlx::query(insert).bind(hook).bind(engagement_rate).execute(&service.db).await.unwrap();
}

#[tokio::test]
async fn the_configuration_is_kept_and_its_four_fields_are_readable() {
    let service = TestService::start().await;
    for (pipeline, model, base) in
        [("hook", "gpt-4o", "gpt-4o-2024-08-06"), ("body", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-0125")]
    {
        let config = json!({
            "serving_model": model, "training": {"base_model": base},
            "dataset": {"template": pipeline, "minimum_examples": 100, "engagement_threshold": 0.06},
        });
        service.put(&format!("/v1/pipelines/{pipeline}"), &[], config).await.expect(201);
        let kept = service.read(&format!("/v1/pipelines/{pipeline}")).await["config"].take();
        assert_eq!(kept["dataset"]["minimum_examples"], 100);
        assert_eq!(kept["dataset"]["engagement_threshold"], 0.06);
        assert_eq!(kept["serving_model"], model);
        assert_eq!(kept["schedule"]["cron"], "0 2 * * 0");
    }
    service.end().await;
}

#[tokio::test]
async fn with_enough_examples_the_run_succeeds_and_the_trainer_is_called_once() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["dataset"]["minimum_examples"] = json!(100)).await;
    service.posts(100, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "succeeded").await;
    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (1, 1));
    service.end().await;
}

#[tokio::test]
async fn with_too_few_examples_the_run_is_skipped() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["dataset"]["minimum_examples"] = json!(100)).await;
    service.posts(99, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_until(&run, "skipped").await;
    assert_eq!(run["reason_code"], "insufficient_training_data");
    assert_eq!(service.simulator.creates().jobs, 0);
    service.end().await;
}

#[tokio::test]
async fn posts_at_or_above_the_threshold_are_in_and_those_below_are_out() {
    for (template, user, assistant) in [
        ("hook", "about the best", "the best"),
        ("body", "the best\n\nWrite a detailed post:", "all of the best"),
    ] {
        let service = TestService::with_training_time(Duration::from_hours(1)).await;
        service.pipeline(template, |config| config["dataset"]["template"] = json!(template)).await;
        post(&service, "the better", 0.08).await;
        post(&service, "the best", 0.10).await;
        post(&service, "the worse", 0.04).await;
        service.posts(9, 0.06).await;
        let run = service.trigger(template).await;
        let run = service.wait_for(&run, "in training", |run| run["training"]["job_id"].is_string()).await;
        assert_eq!(
            (&run["dataset"]["examples"], &run["dataset"]["counts"]["below_threshold"]),
            (&json!(11), &json!(1))
        );
        let lines = uploaded(&service);
        assert_eq!(lines.len(), 11);
        // Highest engagement first.
        let best = json!([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]);
        assert_eq!(lines[0]["messages"], best);
        let said = |line: &Value, text: &str| line["messages"][1]["content"].as_str().unwrap().contains(text);
        assert!(
            said(&lines[1], "the better") && !lines.iter().any(|line| said(line, "the worse")),
            "{lines:#?}"
        );
        service.end().await;
    }
}

#[tokio::test]
async fn an_example_is_exactly_two_messages_user_then_assistant_with_no_other_key() {
    for template in ["hook", "body"] {
        let service = TestService::with_training_time(Duration::from_hours(1)).await;
        service.pipeline(template, |config| config["dataset"]["template"] = json!(template)).await;
        service.posts(12, 0.08).await;
        let run = service.trigger(template).await;
        service.wait_for(&run, "in training", |run| run["training"]["job_id"].is_string()).await;
        let lines = uploaded(&service);
        assert_eq!(lines.len(), 12);
        for line in lines {
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&line), ["messages"]);
            let messages = line["messages"].as_array().unwrap();
            assert_eq!(
                messages.iter().map(|message| &message["role"]).collect::<Vec<_>>(),
                ["user", "assistant"]
            );
            assert!(
                messages
                    .iter()
                    .all(|message| keys(message).iter().all(|key| key == "role" || key == "content"))
            );
        }
        service.end().await;
    }
}

#[tokio::test]
async fn a_training_that_was_started_has_the_providers_job_id_and_keeps_the_base_model() {
    let service = TestService::with_training_time(Duration::from_hours(1)).await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for(&run, "in training", |run| run["training"]["job_id"].is_string()).await;
    let job = &service.simulator.jobs()[0];
    assert_eq!(run["training"]["job_id"], job.id);
    assert_eq!(
        (&run["training"]["base_model"], &*job.model),
        (&json!("gpt-4o-2024-08-06"), "gpt-4o-2024-08-06")
    );
    service.end().await;
}

#[tokio::test]
async fn a_training_is_running_and_then_succeeded() {
    let service = TestService::with_training_time(Duration::from_secs(2)).await;
    service.pipeline("hook", |config| config["training"]["poll_seconds"] = json!(0.05)).await;
    service.posts(12, 0.08).await;
    let id = service.trigger("hook").await;
    service.wait_for_test(&id).await;
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let mut states: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["step"] == "train")
        .filter_map(|event| event["data"]["status"].as_str())
        .collect();
    states.dedup();
    assert!(states.ends_with(&["running", "succeeded"]), "{states:?}");
    let job = &service.simulator.jobs()[0];
    assert_eq!(job.status, JobStatus::Succeeded);
    assert_eq!(service.run(&id).await["training"]["model_id"], *job.fine_tuned_model.as_ref().unwrap());
    service.end().await;
}

#[tokio::test]
async fn a_test_at_ten_percent_and_168_hours_keeps_both_versions_and_its_start() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            // The defaults.
            let experiment = config["experiment"].as_object_mut().unwrap();
            experiment.remove("candidate_weight");
            experiment.remove("horizon_seconds");
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 1000), ("0.0.0".to_owned(), 9000)]);
    let experiment =
        service.read(&format!("/v1/experiments/{}", run["experiment_id"].as_str().unwrap())).await;
    assert_eq!((&experiment["baseline"], &experiment["candidate"]), (&json!("0.0.0"), &json!("1.0.0")));
    assert_eq!(experiment["status"], "running");
    let time =
        |field: &str| experiment[field].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(time("horizon_at") - time("started_at"), chrono::TimeDelta::hours(168));
    service.end().await;
}

#[test]
fn engagement_from_6_to_8_percent_is_a_lift_of_33_percent_and_a_cost_from_2_to_1_5_mills_a_gain_of_25() {
    let near = |figure: Option<f64>, expected: f64| (figure.unwrap() - expected).abs() < 1e-9;
    assert!(near(lift(0.06, 0.08), 1.0 / 3.0));
    assert!(near(cost_gain(0.002, 0.0015), 0.25));
}

#[tokio::test]
async fn promotion_keeps_the_way_back_and_rollback_restores_the_previous_version_with_its_reason() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "succeeded").await;
    assert_eq!(service.read("/v1/pipelines/hook").await["live"]["version"], "1.0.0");
    let former = service.read("/v1/pipelines/hook/models/0.0.0").await;
    assert_eq!((&former["status"], &former["model_id"]), (&json!("retired"), &json!("gpt-4o")));

    let why = json!({"reason": "engagement fell"});
    let back = service.post("/v1/pipelines/hook/rollback", why).await.expect(200);
    assert_eq!((&back["live"], &back["reason"]), (&json!("0.0.0"), &json!("engagement fell")));
    assert_eq!(service.read("/v1/pipelines/hook").await["live"]["model_id"], "gpt-4o");
    service.end().await;
}

#[tokio::test]
async fn a_trained_model_is_registered_as_a_version() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let version = service.read("/v1/pipelines/hook/models/1.0.0").await;
    assert_eq!((&version["model_id"], &version["run_id"]), (&run["training"]["model_id"], &run["id"]));
    assert_eq!((&version["base_model"], &version["parent"]), (&json!("gpt-4o-2024-08-06"), &json!("0.0.0")));
    service.end().await;
}

#[tokio::test]
async fn end_to_end_at_a_minimum_of_50_with_60_posts_each_stage_happens_once() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["dataset"]["minimum_examples"] = json!(50)).await;
    service.posts(60, 0.08).await;
    let id = service.trigger("hook").await;
    service.wait_for_test(&id).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&id).await;
    let run = service.wait_until(&id, "succeeded").await;
    assert_eq!(run["dataset"]["examples"], 60);
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let entered: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "entered")
        .map(|event| event["step"].as_str().unwrap())
        .collect();
    let stages = [
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
    assert_eq!(entered, stages);
    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (1, 1));
    for (table, rows) in [("trainings", 1), ("model_versions", 2), ("experiments", 1), ("decisions", 1)] {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        assert_eq!(
            sqlx::query_scalar::<_, i64>(count).fetch_one(&service.db).await.unwrap(),
            rows,
            "{table}"
        );
    }
    service.end().await;
}
