//! What the provider's errors become, and what they never show.

use serde_json::json;

use super::*;

async fn create_error(reply: impl Fn() -> Reply + Send + Sync + 'static) -> TrainerError {
    let provider = StandIn::start(move |_| reply()).await;
    trainer(&provider.base_url).create(&request()).await.expect_err("a refusal")
}

fn error_body(message: &str, kind: &str, code: Option<&str>, param: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": kind, "code": code, "param": param } })
}

#[tokio::test]
async fn refusals_get_a_reason_and_say_what_to_do() {
    const INVALID: &str = "invalid_request_error";
    let cases = [
        (401, Some("invalid_api_key"), None, RejectReason::InvalidApiKey, "set OPENAI_API_KEY"),
        (401, None, None, RejectReason::InvalidApiKey, "set OPENAI_API_KEY"),
        (401, Some("training_not_available"), None, RejectReason::TrainingNotAvailable, "enable fine-tuning"),
        (403, Some("training_not_available"), None, RejectReason::TrainingNotAvailable, "enable fine-tuning"),
        (400, Some("training_not_available"), None, RejectReason::TrainingNotAvailable, "enable fine-tuning"),
        (403, None, None, RejectReason::PermissionDenied, "OPENAI_API_KEY"),
        (403, Some("model_not_found"), None, RejectReason::ModelNotFound, "set base_model"),
        (404, Some("model_not_found"), Some("model"), RejectReason::ModelNotFound, "set base_model"),
        (400, Some("model_not_available"), Some("model"), RejectReason::ModelNotFound, "set base_model"),
        (400, None, Some("model"), RejectReason::ModelNotFound, "set base_model"),
        (400, Some("invalid_file"), None, RejectReason::InvalidTrainingFile, "correct the dataset"),
        (404, None, Some("training_file"), RejectReason::InvalidTrainingFile, "correct the dataset"),
        (400, Some("invalid_value"), Some("seed"), RejectReason::Rejected, "Something is wrong"),
        (404, None, None, RejectReason::Rejected, "Something is wrong"),
        (422, None, None, RejectReason::Rejected, "Something is wrong"),
        (402, None, None, RejectReason::InsufficientQuota, "add credit"),
        (429, Some("insufficient_quota"), None, RejectReason::InsufficientQuota, "add credit"),
        (400, Some("billing_hard_limit_reached"), None, RejectReason::InsufficientQuota, "add credit"),
    ];
    for (status, code, param, expected, action) in cases {
        let body = error_body("Something is wrong.", INVALID, code, param);
        let error = create_error(move || Reply::json(status, &body)).await;
        let TrainerError::Rejected { reason, message } = error else {
            panic!("{status} {code:?}: {error:?}")
        };
        assert_eq!(reason, expected, "{status} {code:?} {param:?}");
        assert!(message.contains(action), "{message}");
        assert!(message.ends_with('.') && !message.contains(".)") && !message.contains('\n'), "{message}");
    }
}

#[tokio::test]
async fn a_quota_is_known_by_its_type_too() {
    let body = error_body("You exceeded your current quota", "insufficient_quota", None, None);
    let error = create_error(move || Reply::json(429, &body)).await;
    assert!(
        matches!(error, TrainerError::Rejected { reason: RejectReason::InsufficientQuota, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_for_as_long_as_asked() {
    // The clock of these tests stands at 2023-11-14T22:13:20Z.
    let cases = [
        (vec![], None),
        (vec![("retry-after", "20")], Some(Duration::from_secs(20))),
        (vec![("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT")], Some(Duration::from_mins(1))),
        (vec![("retry-after", "20"), ("retry-after-ms", "1500")], Some(Duration::from_millis(1500))),
    ];
    for status in [429, 503] {
        for (headers, expected) in cases.clone() {
            let error = create_error(move || {
                let body = error_body("Slow down.", "requests", Some("rate_limit_exceeded"), None);
                let reply = Reply::json(status, &body);
                headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
            });
            let TrainerError::Retryable { retry_after, ambiguous, message } = error.await else {
                panic!("a rate limit passes")
            };
            assert_eq!(retry_after, expected);
            assert_eq!(ambiguous, status != 429);
            assert!(message.contains("Slow down"), "{message}");
        }
    }
}

#[tokio::test]
async fn jobs_that_are_not_there_are_told_from_wrong_addresses() {
    let missing = error_body("Could not find fine tune: ftjob-1", "invalid_request_error", None, None);
    let provider = StandIn::start(move |_| Reply::json(404, &missing)).await;
    let trainer = trainer(&provider.base_url);
    let errors = [
        trainer.poll("ftjob-1").await.expect_err("no job"),
        trainer.cancel("ftjob-1").await.expect_err("no job"),
        trainer.events("ftjob-1", None).await.expect_err("no job"),
    ];
    for error in errors {
        assert!(
            matches!(error, TrainerError::Rejected { reason: RejectReason::JobNotFound, .. }),
            "{error:?}"
        );
    }
    let error = create_error(|| Reply::text(404, "404 page not found")).await;
    assert!(matches!(error, TrainerError::Rejected { reason: RejectReason::WrongBaseUrl, .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_too_large_is_the_files_fault() {
    let provider = StandIn::start(|_| Reply::text(413, "")).await;
    let file = file("a.jsonl", b"{}");
    let error = trainer(&provider.base_url).upload(file).await.expect_err("too large");
    let TrainerError::Rejected { reason, message } = error else { panic!("{error:?}") };
    assert_eq!(reason, RejectReason::InvalidTrainingFile);
    assert!(message.contains("413"), "{message}");
}

#[tokio::test]
async fn the_key_is_never_shown_even_when_the_provider_repeats_it() {
    let said = format!("Incorrect API key provided: {KEY}.");
    for status in [400, 401, 403, 404, 409, 422, 429, 500] {
        let body = error_body(&said, "invalid_request_error", None, None);
        let error = create_error(move || Reply::json(status, &body)).await;
        assert!(!format!("{error:?} {error}").contains(KEY), "{error:?}");
    }
    let text = said.clone();
    let error = create_error(move || Reply::text(200, &text)).await;
    assert!(!format!("{error:?} {error}").contains(KEY), "{error:?}");
    let trainer = trainer("http://127.0.0.1:9/v1");
    let registry = crate::trainers::Trainers::new().with_openai(trainer.clone());
    let shown = format!("{trainer:?} {registry:?} {:?}", settings("http://127.0.0.1:9/v1"));
    assert!(!shown.contains(KEY), "{shown}");
}

#[test]
fn training_files_do_not_show_their_content() {
    let file = file("a.jsonl", b"private words");
    assert_eq!(format!("{file:?}"), r#"TrainingFile { name: "a.jsonl", bytes: 13, .. }"#);
}
