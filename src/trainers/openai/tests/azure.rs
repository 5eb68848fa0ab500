//! What is different at Azure.

use serde_json::json;

use super::*;
use crate::trainers::ChatMessage;

/// The stand-in's address without what the trainer adds to it.
fn azure(provider: &StandIn) -> OpenAiTrainer {
    let endpoint = provider.base_url.trim_end_matches("/v1");
    let settings = OpenAiSettings {
        dialect: Dialect::Azure,
        base_url: OpenAiSettings::azure(endpoint, ApiKey::new(KEY)).base_url,
        ..settings("")
    };
    OpenAiTrainer::new(&settings, &clock()).expect("valid settings")
}

async fn created_with(request: &TrainingRequest) -> Seen {
    let provider = StandIn::start(|_| Reply::json(200, &job("ftjob-1", 1, json!(null)))).await;
    azure(&provider).create(request).await.expect("a job");
    provider.only()
}

fn question() -> CompletionRequest {
    CompletionRequest {
        model: "gpt.ft-1".to_owned(),
        messages: vec![ChatMessage { role: "user".to_owned(), content: "Hello".to_owned() }],
        maximum_tokens: None,
        json: false,
    }
}

#[tokio::test]
async fn the_key_has_its_own_header_and_the_paths_their_own_base() {
    let provider = StandIn::start(|seen| match seen.path.as_str() {
        "/openai/v1/files" => Reply::json(200, &json!({ "id": "file-1" })),
        _ => Reply::json(200, &job("ftjob-1", 1, json!(null))),
    });
    let provider = provider.await;
    let trainer = azure(&provider);
    trainer.upload(file("a.jsonl", b"{}")).await.expect("a file");
    trainer.create(&request()).await.expect("a job");
    trainer.poll("ftjob-1").await.expect("a job");
    let seen = provider.seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let expected = ["/openai/v1/files", "/openai/v1/fine_tuning/jobs", "/openai/v1/fine_tuning/jobs/ftjob-1"];
    assert_eq!(paths, expected);
    for seen in seen {
        assert_eq!((seen.header("api-key"), seen.headers.get("authorization")), (KEY, None), "{}", seen.path);
    }
}

#[tokio::test]
async fn create_tells_where_to_train_and_carries_the_training_in_its_suffix() {
    const ID: &str = "00000000-0000-0000-0000-000000000001";
    let fits = "a".repeat(3);
    let too_long = "a".repeat(4);
    let suffixes = [
        (None, ID.to_owned()),
        (Some("up"), format!("up-{ID}")),
        (Some(fits.as_str()), format!("{fits}-{ID}")),
        (Some(too_long.as_str()), ID.to_owned()),
    ];
    for (own, expected) in suffixes {
        let request = TrainingRequest {
            suffix: own.map(str::to_owned),
            training_type: Some("globalStandard".to_owned()),
            ..request()
        };
        let body = created_with(&request).await.json();
        assert_eq!((&body["suffix"], &body["trainingType"]), (&json!(expected), &json!("globalStandard")));
        assert_eq!(body["metadata"]["training_id"], ID);
    }
    assert_eq!(created_with(&request()).await.json().get("trainingType"), None);
}

#[tokio::test]
async fn only_azure_is_told_where_to_train() {
    let provider = StandIn::start(|_| Reply::json(200, &job("ftjob-1", 1, json!(null)))).await;
    let request = TrainingRequest { training_type: Some("standard".to_owned()), ..request() };
    trainer(&provider.base_url).create(&request).await.expect("a job");
    let body = provider.only().json();
    assert_eq!((body.get("trainingType"), body.get("suffix")), (None, None));
}

#[tokio::test]
async fn jobs_are_found_by_suffix_or_metadata_wherever_in_the_list_they_are() {
    let training = clock().uuid();
    let long_ago = 1_000;
    let mut by_given = job("ftjob-2", 20, json!(null));
    by_given["user_provided_suffix"] = json!(training.to_string());
    let mut by_suffix = job("ftjob-3", 30, json!({}));
    by_suffix["suffix"] = json!(format!("hook-{training}"));
    let mut by_model = job("ftjob-4", 40, json!(null));
    by_model["fine_tuned_model"] = json!(format!("gpt-4o.ft-1-{training}"));
    let mut other = job("ftjob-5", long_ago, of_training(Uuid::from_u128(9)));
    other["suffix"] = json!(Uuid::from_u128(9).to_string());
    let jobs = vec![
        // Older than the training by its clock, and none of it: no reason to stop.
        job("ftjob-6", long_ago, json!(null)),
        other,
        by_model,
        by_suffix,
        by_given,
        job("ftjob-1", 10, of_training(training)),
    ];
    let provider = StandIn::start(move |seen| page(seen, &jobs, 1)).await;
    let jobs = azure(&provider).find_jobs(training).await.expect("jobs");
    let ids: Vec<_> = jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["ftjob-1", "ftjob-2", "ftjob-3", "ftjob-4"]);
    assert_eq!(provider.seen().len(), 6);
    for seen in provider.seen() {
        assert_eq!(seen.query("metadata[training_id]"), None);
    }
}

#[tokio::test]
async fn a_suffix_says_nothing_where_metadata_is_kept() {
    let training = clock().uuid();
    let mut copied = job("ftjob-1", clock().now().timestamp(), json!(null));
    copied["user_provided_suffix"] = json!(training.to_string());
    let provider = StandIn::start(move |seen| page(seen, std::slice::from_ref(&copied), 1)).await;
    assert_eq!(trainer(&provider.base_url).find_jobs(training).await, Ok(Vec::new()));
}

#[tokio::test]
async fn jobs_speak_azures_words() {
    let model = "gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678";
    let provider = StandIn::start(move |_| {
        let mut answer = job("ftjob-1", 1, json!(null));
        answer["status"] = json!("pending");
        answer["fine_tuned_model"] = json!(format!("{model}-00000000-0000-0000-0000-000000000001"));
        Reply::json(200, &answer)
    });
    let job = azure(&provider.await).poll("ftjob-1").await.expect("a job");
    assert_eq!(job.status, JobStatus::Queued);
    assert_eq!(job.fine_tuned_model, Some(format!("{model}-00000")), "as long as a deployment's name");
}

#[tokio::test]
async fn a_model_serves_once_a_person_deployed_it() {
    let provider = StandIn::start(|seen| {
        if seen.path == "/openai/v1/models/gpt.ft-2" {
            return Reply::json(
                200,
                &json!({ "id": "gpt.ft-2", "deprecation": { "inference": 1_801_353_600 } }),
            );
        }
        if seen.path.starts_with("/openai/v1/models/") {
            let error = json!({ "code": "404", "message": "Resource not found" });
            return Reply::json(404, &json!({ "error": error }));
        }
        if seen.json()["model"] != "gpt.ft-1" {
            return Reply::json(200, &json!({ "choices": [{ "message": { "content": "yes" } }] }));
        }
        let error = json!({ "code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist." });
        Reply::json(404, &json!({ "error": error }))
    });
    let provider = provider.await;
    let trainer = azure(&provider);
    let error = trainer.complete(&question()).await.expect_err("not deployed");
    let TrainerError::Rejected { reason, message } = error else { panic!("{error:?}") };
    assert_eq!(reason, RejectReason::ModelNotFound);
    assert!(message.contains("deploy the model at Azure"), "{message}");
    assert_eq!(trainer.model("gpt.ft-1").await, Ok(None), "whatever describes it");
    let state = trainer.model("gpt.ft-2").await.expect("an answer").expect("a model");
    assert_eq!(state.shutdown_date.map(|date| date.to_string()).as_deref(), Some("2027-01-31"));
    // Deployed under a name that is no model's.
    assert_eq!(trainer.model("headlines").await, Ok(Some(ModelState::default())));
    let asked: Vec<String> = provider.seen().into_iter().map(|seen| seen.path).collect();
    let chat = "/openai/v1/chat/completions".to_owned();
    let model = |name: &str| format!("/openai/v1/models/{name}");
    assert_eq!(
        asked,
        [chat.clone(), chat.clone(), chat.clone(), model("gpt.ft-2"), chat, model("headlines")]
    );
}

#[tokio::test]
async fn remedies_name_azures_variables() {
    let unknown = json!({ "error": { "code": "404", "message": "Resource not found" } });
    let plain = json!({ "error": { "code": "Any", "message": "No" } });
    let cases = [
        (401, &plain, RejectReason::InvalidApiKey, "set AZURE_OPENAI_API_KEY"),
        (403, &plain, RejectReason::PermissionDenied, "the key of AZURE_OPENAI_API_KEY"),
        (404, &plain, RejectReason::JobNotFound, "AZURE_OPENAI_API_KEY belongs to the resource"),
        (404, &unknown, RejectReason::WrongBaseUrl, "set AZURE_OPENAI_ENDPOINT"),
        (302, &plain, RejectReason::WrongBaseUrl, "set AZURE_OPENAI_ENDPOINT"),
    ];
    for (status, body, expected, action) in cases {
        let body = body.clone();
        let provider = StandIn::start(move |_| Reply::json(status, &body)).await;
        let error = azure(&provider).poll("ftjob-1").await.expect_err("a refusal");
        let TrainerError::Rejected { reason, message } = error else { panic!("{error:?}") };
        assert_eq!(reason, expected, "{status}");
        assert!(message.contains(action) && !message.contains(" OPENAI"), "{message}");
    }
}

#[tokio::test]
async fn a_file_is_ready_once_azure_has_processed_it_and_openai_is_not_asked() {
    let provider = StandIn::start(|seen| {
        let status = seen.path.rsplit('-').next().unwrap_or_default().to_owned();
        Reply::json(200, &json!({ "id": "file", "status": status }))
    });
    let provider = provider.await;
    let ready = async |status: &str| azure(&provider).is_ready(&FileId::new(format!("file-{status}"))).await;
    for (status, expected) in [("processed", true), ("pending", false), ("running", false)] {
        assert_eq!(ready(status).await, Ok(expected), "{status}");
    }
    for status in ["error", "deleted"] {
        let error = ready(status).await.expect_err(status);
        assert!(
            matches!(error, TrainerError::Rejected { reason: RejectReason::InvalidTrainingFile, .. }),
            "{error:?}"
        );
    }
    let asked = provider.seen().len();
    assert_eq!(trainer(&provider.base_url).is_ready(&FileId::new("file-pending")).await, Ok(true));
    assert_eq!(provider.seen().len(), asked);
}

#[tokio::test]
async fn checkpoints_have_the_name_of_their_deployment() {
    let name = format!("{}:ckpt-step-7", "gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678");
    let provider = StandIn::start(move |_| {
        let checkpoint = json!({
            "id": "ckpt-1", "step_number": 7, "created_at": 1, "fine_tuned_model_checkpoint": name,
        });
        Reply::json(200, &json!({ "data": [checkpoint], "has_more": false }))
    });
    let checkpoints = azure(&provider.await).checkpoints("ftjob-1").await.expect("a list");
    assert!(checkpoints[0].model_id.len() <= 64 && !checkpoints[0].model_id.contains(':'), "{checkpoints:?}");
}

#[tokio::test]
async fn keys_do_not_travel_in_events_and_failures() {
    let provider = StandIn::start(|seen| {
        if seen.path.ends_with("/events") {
            let event = json!({ "id": "e", "created_at": 1, "message": format!("with {KEY}") });
            return Reply::json(200, &json!({ "data": [event], "has_more": false }));
        }
        let mut failed = job("ftjob-1", 1, json!(null));
        failed["error"] = json!({ "code": KEY, "message": format!("key {KEY}"), "param": KEY });
        Reply::json(200, &failed)
    });
    let provider = provider.await;
    let trainer = azure(&provider);
    let told = format!("{:?}", (trainer.events("ftjob-1", None).await, trainer.poll("ftjob-1").await));
    assert!(told.matches("[redacted]").count() == 4 && !told.contains(KEY), "{told}");
}
