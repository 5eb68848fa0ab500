//! What is sent, and that it is sent once.

use axum::extract::{FromRequest, Multipart, Request};
use serde_json::json;

use super::stand_in::{Cutting, refusing};
use super::*;

#[tokio::test]
async fn create_sends_the_training_with_its_names_and_leaves_the_rest_to_the_provider() {
    let provider =
        StandIn::start(|_| Reply::json(200, &job("ftjob-1", 1_700_000_000, of_training(Uuid::from_u128(1)))));
    let provider = provider.await;
    let created = trainer(&provider.base_url).create(&request()).await.expect("a job");
    assert_eq!((created.id.as_str(), created.status), ("ftjob-1", JobStatus::Queued));

    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/fine_tuning/jobs"));
    assert_eq!(seen.header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(
        seen.json(),
        json!({
            "model": "gpt-4o-mini-2024-07-18",
            "training_file": "file-1",
            "method": { "type": "supervised", "supervised": { "hyperparameters": {} } },
            "metadata": {
                "training_id": "00000000-0000-0000-0000-000000000001",
                "run_id": "00000000-0000-0000-0000-000000000002",
            },
        })
    );
}

#[tokio::test]
async fn create_sends_what_was_chosen() {
    let provider = StandIn::start(|_| Reply::json(200, &job("ftjob-1", 1, json!(null)))).await;
    let request = TrainingRequest {
        validation_file: Some(FileId::new("file-2")),
        suffix: Some("hook".to_owned()),
        seed: Some(42),
        hyperparameters: Hyperparameters {
            beta: None,
            n_epochs: Some(3),
            batch_size: Some(8),
            learning_rate_multiplier: Some(0.5),
        },
        ..request()
    };
    trainer(&provider.base_url).create(&request).await.expect("a job");
    let body = provider.only().json();
    assert_eq!(body["validation_file"], "file-2");
    assert_eq!((&body["suffix"], &body["seed"]), (&json!("hook"), &json!(42)));
    assert_eq!(
        body["method"]["supervised"]["hyperparameters"],
        json!({ "n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 0.5 })
    );
}

#[tokio::test]
async fn create_by_preference_sends_its_own_hyperparameters_and_what_is_handed_through() {
    let provider = StandIn::start(|_| Reply::json(200, &job("ftjob-1", 1, json!(null)))).await;
    let hyperparameters = Hyperparameters { beta: Some(0.25), n_epochs: Some(2), ..Default::default() };
    let integrations = vec![json!({ "type": "wandb", "wandb": { "project": "posts" } })];
    let preference = TrainingRequest {
        method: Method::Preference,
        hyperparameters,
        integrations: integrations.clone(),
        ..request()
    };
    let supervised = TrainingRequest { method: Method::Supervised, ..preference.clone() };
    let trainer = trainer(&provider.base_url);
    trainer.create(&preference).await.expect("a job");
    trainer.create(&supervised).await.expect("a job");
    let bodies: Vec<_> = provider.seen().iter().map(Seen::json).collect();
    let by_preference = json!({ "beta": 0.25, "n_epochs": 2 });
    assert_eq!(bodies[0]["method"], json!({ "type": "dpo", "dpo": { "hyperparameters": by_preference } }));
    assert_eq!(bodies[0]["integrations"], json!(integrations));
    let supervised = json!({ "type": "supervised", "supervised": { "hyperparameters": { "n_epochs": 2 } } });
    assert_eq!(bodies[1]["method"], supervised, "only preference training has a beta");
}

#[tokio::test]
async fn create_is_sent_once_whatever_the_answer_and_says_whether_it_may_have_worked() {
    let ok_without_id = json!({ "status": "queued", "created_at": 1 }).to_string();
    let answers = [
        (429, "{}", false),
        (408, "", true),
        (409, r#"{"error": {"message": "Conflict"}}"#, true),
        (500, "<html>oops</html>", true),
        (502, "", true),
        (503, r#"{"error": {"message": "Overloaded"}}"#, true),
        (200, "{\"id\": \"ftjob-1\", ", true),
        (200, "<html>", true),
        (200, "", true),
        (200, ok_without_id.as_str(), true),
    ];
    for (status, body, ambiguous) in answers {
        let text = body.to_owned();
        let provider = StandIn::start(move |_| Reply::text(status, &text)).await;
        let error = trainer(&provider.base_url).create(&request()).await.expect_err("no job");
        provider.only();
        assert!(matches!(error, TrainerError::Retryable { .. }), "{status} {body}: {error:?}");
        assert_eq!(error.is_ambiguous(), ambiguous, "{status} {body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 307, 308] {
        let provider = StandIn::start(move |_| Reply::text(status, "").header("location", "/v2/jobs")).await;
        let error = trainer(&provider.base_url).create(&request()).await.expect_err("no job");
        provider.only();
        let TrainerError::Rejected { reason, message } = error else { panic!("{error:?}") };
        assert_eq!(reason, RejectReason::WrongBaseUrl);
        assert!(message.contains("set OPENAI_BASE_URL"), "{message}");
    }
}

#[tokio::test]
async fn create_is_sent_once_when_the_connection_is_lost() {
    let cuts = ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"];
    for cut in cuts {
        let provider = Cutting::start(Vec::new(), cut).await;
        let error = trainer(&provider.base_url).create(&request()).await.expect_err("no job");
        assert_eq!(provider.seen(), ["post /v1/fine_tuning/jobs http/1.1"], "{cut}");
        assert!(error.is_ambiguous(), "{cut}: {error:?}");
    }
}

#[tokio::test]
async fn create_is_sent_once_when_a_connection_in_use_is_lost() {
    let body = job("ftjob-1", 1, json!(null)).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let provider = Cutting::start(vec![answer], "").await;
    let trainer = trainer(&provider.base_url);
    trainer.poll("ftjob-1").await.expect("a job");
    let error = trainer.create(&request()).await.expect_err("no job");
    let expected = ["get /v1/fine_tuning/jobs/ftjob-1 http/1.1", "post /v1/fine_tuning/jobs http/1.1"];
    assert_eq!(provider.seen(), expected);
    assert!(error.is_ambiguous(), "{error:?}");
}

#[tokio::test]
async fn create_is_sent_once_when_no_answer_comes_in_time() {
    let provider = StandIn::start(|_| Reply::never()).await;
    let settings = OpenAiSettings { total_timeout: Duration::from_secs(1), ..settings(&provider.base_url) };
    let trainer = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    let error = trainer.create(&request()).await.expect_err("no job");
    provider.only();
    assert!(error.is_ambiguous(), "{error:?}");
    assert!(error.to_string().contains("the time limit passed"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_leaves_no_doubt() {
    let (_socket, base_url) = refusing();
    let trainer = trainer(&base_url);
    let file = file("a.jsonl", b"{}");
    let errors = [
        trainer.create(&request()).await.expect_err("no job"),
        trainer.upload(file).await.expect_err("no file"),
        trainer.poll("ftjob-1").await.expect_err("no job"),
    ];
    for error in errors {
        let TrainerError::Retryable { message, ambiguous: false, .. } = &error else { panic!("{error:?}") };
        assert!(message.contains("refused"), "{message}");
    }
}

#[tokio::test]
async fn reading_is_tried_again_and_never_leaves_a_doubt() {
    let provider = StandIn::start(|_| Reply::text(500, "")).await;
    let error = trainer(&provider.base_url).poll("ftjob-1").await.expect_err("no job");
    assert!(matches!(error, TrainerError::Retryable { ambiguous: false, .. }), "{error:?}");
    assert_eq!(provider.seen().len(), 3);
    let refusing = StandIn::start(|_| Reply::json(404, &json!({ "error": { "message": "No." } }))).await;
    trainer(&refusing.base_url).poll("ftjob-1").await.expect_err("no job");
    refusing.only();
}

#[tokio::test]
async fn all_tries_of_a_read_share_one_time_limit() {
    let slow = StandIn::start(|_| Reply::text(503, "").after(Duration::from_millis(1_500))).await;
    let settings = OpenAiSettings { total_timeout: Duration::from_secs(2), ..settings(&slow.base_url) };
    let trainer = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    let begun = std::time::Instant::now();
    let error = trainer.poll("ftjob-1").await.expect_err("no job");
    assert!(error.to_string().contains("the time limit passed"), "{error}");
    // A second try with a limit of its own would be answered after 3 s.
    assert!(begun.elapsed() < Duration::from_millis(2_900), "{:?}", begun.elapsed());
    assert_eq!(slow.seen().len(), 2);
}

#[tokio::test]
async fn a_provider_that_always_fails_is_left_alone() {
    let provider = StandIn::start(|_| Reply::text(503, "")).await;
    let trainer = trainer(&provider.base_url);
    let mut suspended = false;
    for _ in 0..5 {
        let error = trainer.poll("ftjob-1").await.expect_err("no job");
        suspended |= matches!(&error, TrainerError::Retryable { retry_after: Some(_), ambiguous: false, .. });
    }
    assert!(suspended, "nothing is sent any more");
    assert_eq!(provider.seen().len(), 10);
}

#[tokio::test]
async fn upload_sends_name_purpose_and_bytes() {
    let provider = StandIn::start(|_| Reply::json(200, &json!({ "id": "file-9", "bytes": null }))).await;
    let content = b"{\"messages\": []}\n";
    let file = file("hook-1.jsonl", content);
    let id = trainer(&provider.base_url).upload(file).await.expect("a file");
    assert_eq!(id.as_str(), "file-9");

    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/files"));
    let request = Request::builder().header("content-type", seen.header("content-type"));
    let request = request.body(seen.body.clone().into()).expect("a request");
    let mut form = Multipart::from_request(request, &()).await.expect("a form");
    let mut parts = Vec::new();
    while let Some(part) = form.next_field().await.expect("a part") {
        let (name, file) = (part.name().map(str::to_owned), part.file_name().map(str::to_owned));
        parts.push((name.expect("a name"), file, part.bytes().await.expect("a content").to_vec()));
    }
    parts.sort();
    assert_eq!(
        parts,
        [
            ("file".to_owned(), Some("hook-1.jsonl".to_owned()), content.to_vec()),
            ("purpose".to_owned(), None, b"fine-tune".to_vec()),
        ]
    );
}

#[tokio::test]
async fn uploads_have_their_own_time_limit_and_are_sent_once() {
    let provider = StandIn::start(|_| Reply::never()).await;
    let settings = OpenAiSettings { upload_timeout: Duration::from_secs(1), ..settings(&provider.base_url) };
    let trainer = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    let file = file("a.jsonl", b"{}");
    let error = trainer.upload(file).await.expect_err("no file");
    provider.only();
    assert!(error.is_ambiguous(), "{error:?}");
}
