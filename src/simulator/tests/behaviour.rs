//! What the simulator does, over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::harness::{Harness, examples};
use super::spec::events;
use crate::simulator::{CreateCounts, FaultPlan, JobStatus, Settings};

const JOBS: &str = "/fine_tuning/jobs";

fn list(answer: &Value, key: &str) -> Vec<String> {
    answer["data"].as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_job_goes_its_way_and_leaves_a_model_and_a_result_file() {
    let harness = Harness::new();
    let file = harness.file(&examples(120)).await;
    let id = harness.job(&file).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let job = harness.job_now(&id).await;
        assert_eq!(job["fine_tuned_model"], Value::Null);
        assert_eq!(job["finished_at"], Value::Null);
        statuses.push(job["status"].as_str().unwrap().to_owned());
        harness.pass(10);
    }
    assert_eq!(statuses[..3], ["validating_files", "queued", "running"]);

    let created_at = harness.job_now(&id).await["created_at"].as_i64().unwrap();
    harness.pass(1_000);
    let job = harness.job_now(&id).await;
    assert_eq!(job["status"], "succeeded");
    assert_eq!(job["finished_at"], created_at + 100);
    assert_eq!(job["trained_tokens"], 120 * 16 * 3);
    assert_eq!(
        job["hyperparameters"],
        json!({"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 2.0})
    );
    let model = job["fine_tuned_model"].as_str().unwrap();
    assert!(model.starts_with("ft:gpt-4o-2024-08-06:tuneloop::") && model.len() == 31 + 8, "{model}");
    assert!(list(&harness.get("/models").await.ok(), "id").contains(&model.to_owned()));

    let result = job["result_files"][0].as_str().unwrap();
    assert_eq!(harness.get(&format!("/files/{result}")).await.ok()["purpose"], "fine-tune-results");
    let csv = harness.get(&format!("/files/{result}/content")).await.text;
    assert_eq!(csv.lines().count(), 1 + 360);
}

#[tokio::test]
async fn a_model_that_a_plan_ends_is_neither_described_nor_asked_nor_trained_until_another_plan() {
    let harness = Harness::new();
    let file = harness.file(&examples(120)).await;
    let (name, ask) = ("gpt-4o-2024-08-06", json!({"role": "user", "content": "Hello"}));
    let job = json!({"model": name, "training_file": file});
    let ask = json!({"model": name, "messages": [ask]});
    let plan = json!({"models": {name: {"gone": true}}});
    harness.simulator.set_faults(FaultPlan::parse(&plan.to_string()).unwrap());
    let missing = (404, json!("model"), json!("model_not_found"));
    assert_eq!(harness.get(&format!("/models/{name}")).await.error(), missing);
    assert_eq!(harness.post("/chat/completions", &ask).await.error(), missing);
    harness.post(JOBS, &job).await.error();
    let left = list(&harness.get("/models").await.ok(), "id");
    assert!(!left.contains(&name.to_owned()) && left.contains(&"gpt-4o".to_owned()), "{left:?}");

    harness.simulator.set_faults(FaultPlan::default());
    assert_eq!(harness.get(&format!("/models/{name}")).await.ok().get("shutdown_date"), None);
    harness.post("/chat/completions", &ask).await.ok();
    harness.post(JOBS, &job).await.ok();
}

#[tokio::test]
async fn events_come_newest_first_with_a_falling_loss() {
    let harness = Harness::new();
    let id = harness.job(&harness.file(&examples(120)).await).await;
    harness.pass(60);
    let half = harness.get(&format!("{JOBS}/{id}/events?limit=1000")).await.ok();
    harness.pass(60);
    let all = harness.get(&format!("{JOBS}/{id}/events?limit=1000")).await.ok();
    let (half, all) = (list(&half, "id"), all["data"].as_array().unwrap().clone());
    let ids: Vec<&str> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert!(half.len() < ids.len() && ids.ends_with(&half.iter().map(String::as_str).collect::<Vec<_>>()));

    let messages: Vec<&str> = all.iter().rev().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(messages[0], format!("Created fine-tuning job: {id}"));
    assert!(messages[1].starts_with("Validating training file: file-"));
    assert_eq!(messages[2..4], ["Files validated, moving job to queued state", "Fine-tuning job started"]);
    assert!(messages[messages.len() - 2].starts_with("New fine-tuned model created: ft:"));
    assert_eq!(messages[messages.len() - 1], "The job has successfully completed");

    let losses: Vec<f64> = all
        .iter()
        .rev()
        .filter(|event| event["type"] == "metrics")
        .map(|event| event["data"]["train_loss"].as_f64().unwrap())
        .collect();
    assert!(losses.len() > 50 && losses.len() < 130, "{}", losses.len());
    assert!(losses[0] > 2.0 && losses[losses.len() - 1] < 1.0, "{losses:?}");
    assert_eq!(all[2]["data"]["step"], 360);
}

#[tokio::test]
async fn lists_are_paged() {
    let harness = Harness::new();
    let file = harness.file(&examples(10)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, harness.job(&file).await);
        harness.pass(1);
    }
    let page = harness.get(&format!("{JOBS}?limit=2")).await.ok();
    assert_eq!((list(&page, "id"), &page["has_more"]), (ids[..2].to_vec(), &json!(true)));
    let page = harness.get(&format!("{JOBS}?limit=3&after={}", ids[1])).await.ok();
    assert_eq!((list(&page, "id"), &page["has_more"]), (ids[2..].to_vec(), &json!(false)));
    assert_eq!(harness.get(&format!("{JOBS}?after=ftjob-none")).await.error().0, 400);

    let events = harness.get(&format!("{JOBS}/{}/events?limit=1", ids[0])).await.ok();
    let next = format!("{JOBS}/{}/events?after={}", ids[0], list(&events, "id")[0]);
    let rest = harness.get(&next).await.ok();
    assert_eq!(list(&rest, "message"), [format!("Created fine-tuning job: {}", ids[0])]);

    let other = harness.file("other").await;
    let files = harness.get("/files?limit=1").await.ok();
    assert_eq!(
        (&files["first_id"], &files["last_id"], &files["has_more"]),
        (&json!(other), &json!(other), &json!(true))
    );
    let files = harness.get(&format!("/files?order=asc&after={file}")).await.ok();
    assert_eq!(list(&files, "id"), [other]);
}

#[tokio::test]
async fn jobs_are_found_by_their_metadata() {
    let harness = Harness::new();
    let file = harness.file(&examples(10)).await;
    let job =
        |metadata: Value| json!({"model": "gpt-4o-2024-08-06", "training_file": file, "metadata": metadata});
    for metadata in [json!({"training_id": "a b", "run": "1"}), json!({"training_id": "c"}), Value::Null] {
        harness.post(JOBS, &job(metadata)).await.ok();
    }
    let found = async |query: &str| {
        let answer = harness.get(&format!("{JOBS}?{query}")).await.ok();
        let jobs = answer["data"].as_array().unwrap().iter();
        jobs.map(|job| job["metadata"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("metadata%5Btraining_id%5D=a%20b").await, [json!({"training_id": "a b", "run": "1"})]);
    assert_eq!(found("metadata[training_id]=c").await, [json!({"training_id": "c"})]);
    assert!(found("metadata[training_id]=c&metadata[run]=1").await.is_empty());
    assert_eq!(found("metadata=null").await, [Value::Null]);
    assert_eq!(found("").await.len(), 3);
    let first = &harness.simulator.jobs()[0];
    assert_eq!(
        first.metadata,
        BTreeMap::from([("run", "1"), ("training_id", "a b")].map(|(k, v)| (k.into(), v.into())))
    );
}

#[tokio::test]
async fn invalid_files_fail_their_jobs_after_validation() {
    let harness = Harness::new();
    let bad_role = examples(2) + &examples(10).replace("assistant", "bot");
    let cases = [
        (
            examples(9),
            "invalid_n_examples",
            "Training file has 9 example(s), but must have at least 10 examples",
        ),
        (
            bad_role,
            "invalid_training_file",
            "The job failed due to an invalid training file. Invalid file format. Line 3, message 2, key \"role\": \"bot\"",
        ),
    ];
    for (content, code, message) in cases {
        let id = harness.job(&harness.file(&content).await).await;
        harness.pass(9);
        let job = harness.job_now(&id).await;
        assert_eq!((&job["status"], &job["error"]), (&json!("validating_files"), &Value::Null));
        harness.pass(1);
        let job = harness.job_now(&id).await;
        assert_eq!(job["status"], "failed");
        assert_eq!((&job["error"]["code"], &job["error"]["param"]), (&json!(code), &json!("training_file")));
        assert!(job["error"]["message"].as_str().unwrap().starts_with(message), "{job:#}");
        let events = harness.get(&format!("{JOBS}/{id}/events")).await.ok();
        assert_eq!(events["data"][0]["level"], "error");
        assert_eq!(events["data"].as_array().unwrap().len(), 3);
    }

    let good = harness.file(&examples(10)).await;
    let bad = harness.file("{}").await;
    let body = json!({"model": "gpt-4o-2024-08-06", "training_file": good, "validation_file": bad});
    harness.post(JOBS, &body).await.ok();
    harness.pass(10);
    let error = harness.simulator.jobs().pop().unwrap().error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.param.as_deref()),
        ("invalid_validation_file", Some("validation_file"))
    );
}

#[tokio::test]
async fn a_test_can_make_the_next_job_fail() {
    let harness = Harness::new();
    let file = harness.file(&examples(10)).await;
    harness.simulator.fail_next_job("server_error", "The training broke.");
    let ids = [harness.job(&file).await, harness.job(&file).await];
    harness.pass(59);
    assert_eq!(harness.simulator.jobs()[0].status, JobStatus::Running);
    harness.pass(50);
    let jobs = harness.simulator.jobs();
    assert_eq!(
        jobs.iter().map(|job| job.status).collect::<Vec<_>>(),
        [JobStatus::Failed, JobStatus::Succeeded]
    );
    assert_eq!(jobs[0].error.as_ref().unwrap().code, "server_error");
    assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(jobs[0].fine_tuned_model, None);
    assert_eq!(harness.simulator.creates(), CreateCounts { files: 1, jobs: 2 });
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_leaves_its_job_behind() {
    let prompt = Harness::new();
    let slow = Harness::with(Settings { latency: Duration::from_hours(1), ..Settings::default() });
    let body = |file: &str| json!({"model": "gpt-4o-2024-08-06", "training_file": file});
    let file = prompt.file(&examples(10)).await;
    assert!(prompt.post(JOBS, &body(&file)).now_or_never().is_some());

    let upload = [("purpose", "fine-tune"), ("file", &examples(10))];
    assert!(slow.upload(&upload).now_or_never().is_none());
    let file = slow.simulator.files().remove(0).id;
    assert!(slow.post(JOBS, &body(&file)).now_or_never().is_none());
    assert_eq!(slow.simulator.jobs()[0].training_file, file);
}

#[tokio::test]
async fn jobs_are_paused_resumed_and_cancelled() {
    let harness = Harness::new();
    let id = harness.job(&harness.file(&examples(10)).await).await;
    let act = async |action: &str| harness.post(&format!("{JOBS}/{id}/{action}"), &json!({})).await;
    harness.pass(50);
    assert_eq!(act("pause").await.ok()["status"], "queued");
    harness.pass(1_000);
    assert_eq!(act("pause").await.error().0, 400);
    assert_eq!(act("resume").await.ok()["status"], "running");
    assert_eq!(act("resume").await.error().0, 400);
    harness.pass(9);
    let cancelled = act("cancel").await.ok();
    assert_eq!((&cancelled["status"], &cancelled["fine_tuned_model"]), (&json!("cancelled"), &Value::Null));
    harness.pass(1_000);
    assert_eq!(harness.job_now(&id).await["finished_at"], cancelled["finished_at"]);
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(act(action).await.error().0, 400);
    }
    let events = harness.get(&format!("{JOBS}/{id}/events?limit=1000")).await.ok();
    let messages = list(&events, "message");
    assert_eq!(messages[0], "The job was cancelled on request");
    for message in ["Fine-tuning job paused", "Fine-tuning job resumed"] {
        assert_eq!(messages.iter().filter(|other| *other == message).count(), 1);
    }
    assert!(
        harness.get("/files?purpose=fine-tune-results").await.ok()["data"].as_array().unwrap().is_empty()
    );
}

#[tokio::test]
async fn checkpoints_are_models_of_each_epoch() {
    let harness = Harness::new();
    let id = harness.job(&harness.file(&examples(120)).await).await;
    let checkpoints = format!("{JOBS}/{id}/checkpoints");
    assert_eq!(harness.get(&checkpoints).await.ok()["first_id"], Value::Null);
    harness.pass(100);
    let model = harness.job_now(&id).await["fine_tuned_model"].as_str().unwrap().to_owned();
    let answer = harness.get(&checkpoints).await.ok();
    let steps: Vec<_> =
        answer["data"].as_array().unwrap().iter().map(|one| one["step_number"].clone()).collect();
    assert_eq!(steps, [360, 240, 120]);
    let models = list(&answer, "fine_tuned_model_checkpoint");
    assert_eq!(models, [model.clone(), format!("{model}:ckpt-step-240"), format!("{model}:ckpt-step-120")]);
    for model in &models {
        harness.get(&format!("/models/{model}")).await.ok();
    }
    assert_eq!(harness.get(&format!("/models/{model}:ckpt-step-121")).await.error().0, 404);
}

#[tokio::test]
async fn a_tuned_model_is_trained_further_and_deleted() {
    let harness = Harness::new();
    let file = harness.file(&examples(10)).await;
    harness.job(&file).await;
    harness.pass(100);
    let first = harness.simulator.jobs()[0].fine_tuned_model.clone().unwrap();
    let body = json!({"model": first, "training_file": file, "suffix": "again"});
    assert_eq!(harness.post(JOBS, &body).await.ok()["model"], json!(first));
    harness.pass(100);
    let second = harness.simulator.jobs()[1].fine_tuned_model.clone().unwrap();
    assert!(second.starts_with("ft:gpt-4o-2024-08-06:tuneloop:again:"), "{second}");
    harness.delete(&format!("/models/{first}")).await.ok();
    assert_eq!(harness.post(JOBS, &body).await.error(), (400, json!("model"), json!("model_not_available")));
    harness.get(&format!("/models/{second}")).await.ok();
}

#[tokio::test]
async fn files_are_kept_as_uploaded_until_they_are_deleted_or_expire() {
    let harness = Harness::new();
    let kept = harness.file("one\r\ntwo\n").await;
    let expiring = [
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
        ("purpose", "batch"),
        ("file", "x"),
    ];
    let expiring = harness.upload(&expiring).await.ok();
    assert_eq!(expiring["expires_at"].as_i64().unwrap() - expiring["created_at"].as_i64().unwrap(), 3_600);
    assert_eq!(harness.get(&format!("/files/{kept}/content")).await.text, "one\r\ntwo\n");
    assert_eq!(harness.simulator.file_content(&kept).unwrap(), b"one\r\ntwo\n");
    assert_eq!(harness.get(&format!("/files/{kept}")).await.ok()["filename"], "examples.jsonl");
    assert_eq!(harness.simulator.files().len(), 2);
    harness.pass(3_600);
    assert_eq!(list(&harness.get("/files").await.ok(), "id"), std::slice::from_ref(&kept));
    harness.delete(&format!("/files/{kept}")).await.ok();
    assert!(harness.simulator.files().is_empty());
}

#[tokio::test]
async fn completions_are_the_same_whole_and_streamed() {
    let harness = Harness::new();
    let mut body = json!({
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Write hooks."},
            {"role": "user", "content": [{"type": "text", "text": "Gardening in winter"}]},
        ],
        "temperature": 0.7,
    });
    let whole = harness.post("/chat/completions", &body).await.ok();
    let content = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let usage = |key: &str| whole["usage"][key].as_u64().unwrap();
    assert_eq!(usage("prompt_tokens"), 3 + (4 + 3) + (4 + 5));
    assert_eq!(usage("total_tokens"), usage("prompt_tokens") + usage("completion_tokens"));

    body["stream"] = json!(true);
    let streamed: String = events(&harness.post("/chat/completions", &body).await)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(streamed, content);

    body["stream"] = json!(false);
    body["max_completion_tokens"] = json!(3);
    let short = harness.post("/chat/completions", &body).await.ok();
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
    assert!(content.starts_with(short["choices"][0]["message"]["content"].as_str().unwrap()));
}

#[tokio::test]
async fn routes_have_rates_of_their_own_and_are_counted_apart() {
    let harness = Harness::new();
    let job = harness.job(&harness.file(&examples(12)).await).await;
    let plan = r#"{"rates": {"conflict": 1}, "route_rates": {"cancel": {}, "report": {"server_error": 1}}}"#;
    harness.simulator.set_faults(FaultPlan::parse(plan).unwrap());
    let status = async |path: &str, posts: bool| {
        let answer = if posts { harness.post(path, &json!({})).await } else { harness.get(path).await };
        answer.status.as_u16()
    };
    let job = format!("/fine_tuning/jobs/{job}");
    assert_eq!(status(&job, false).await, 409);
    for reports in ["events", "checkpoints"] {
        assert_eq!(status(&format!("{job}/{reports}"), false).await, 500);
    }
    assert_eq!(status(&format!("{job}/pause"), true).await, 409);
    assert_eq!(status(&format!("{job}/cancel"), true).await, 200, "its rates are all 0");
    let counts = harness.send(Request::get("/simulator/counts").body(Body::empty()).unwrap()).await.ok();
    for (route, count) in [("cancel", 1), ("pause", 1), ("report", 2)] {
        assert_eq!(counts["calls"][route], count, "{counts}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_answered_with_its_field() {
    let body = json!({"model": "gpt-4o-2024-08-06", "training_file": "file-1", "metadata": {"a": 7}});
    let (status, param, _) = Harness::new().post("/fine_tuning/jobs", &body).await.error();
    assert_eq!((status, param), (400, json!("metadata.a")));
}

#[tokio::test]
async fn azure_has_its_paths_and_header_and_answers_under_deployments_alone() {
    let harness = Harness::with(Settings { api_key: Some("secret".into()), ..Settings::default() });
    let send = async |method: &str, path: &str, header: (&str, &str), body: Value| {
        let request = Request::builder().method(method).uri(path).header(header.0, header.1);
        harness.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let ours = ("api-key", "secret");
    let models = "/openai/v1/models";
    assert_eq!(send("GET", models, ours, Value::Null).await.status, 200);
    for wrong in [("authorization", "Bearer secret"), ("api-key", "other")] {
        assert_eq!(send("GET", models, wrong, Value::Null).await.status, 401, "{wrong:?}");
    }
    assert_eq!(send("GET", "/v1/models", ours, Value::Null).await.status, 401, "OpenAI has another header");

    let ask = json!({"model": "mine", "messages": [{"role": "user", "content": "Hello"}]});
    let chat = "/openai/v1/chat/completions";
    let (status, _, code) = send("POST", chat, ours, ask.clone()).await.error();
    assert_eq!((status, code), (404, json!("DeploymentNotFound")));
    let deployment = "/simulator/deployments/mine";
    assert_eq!(send("PUT", deployment, ours, json!({"model": "gpt-17"})).await.status, 404);
    send("PUT", deployment, ours, json!({"model": "gpt-4o"})).await.ok();
    assert_eq!(send("POST", chat, ours, ask).await.ok()["model"], "gpt-4o");

    let create = |prefix: &str| format!("{prefix}/fine_tuning/jobs");
    let body = json!({"model": "gpt-4o-2024-08-06", "training_file": "file-1", "trainingType": "standard"});
    let (_, param, _) = send("POST", &create("/openai/v1"), ours, body.clone()).await.error();
    assert_eq!(param, json!("training_file"), "the rest is as it should be");
    let (_, param, _) = send("POST", &create("/v1"), ("authorization", "Bearer secret"), body).await.error();
    assert_eq!(param, json!("trainingType"));
}
