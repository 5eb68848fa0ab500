//! Checkpoints, deleted files and questions to models.

use serde_json::json;

use super::*;
use crate::trainers::ChatMessage;

type Answer = fn(&Seen) -> Reply;

fn checkpoint(id: &str, step: i64, metrics: Value) -> Value {
    let mut checkpoint = json!({
        "object": "fine_tuning.job.checkpoint", "id": id, "created_at": 1_700_000_000 + step,
        "fine_tuned_model_checkpoint": format!("ft:gpt-4o-mini:acme::abc:ckpt-step-{step}"),
        "step_number": step,
    });
    checkpoint["metrics"] = metrics;
    checkpoint
}

fn missing(message: &str) -> Reply {
    Reply::json(404, &json!({ "error": { "message": message, "type": "invalid_request_error" } }))
}

fn reason(error: &TrainerError) -> RejectReason {
    let TrainerError::Rejected { reason, .. } = error else { panic!("{error:?}") };
    *reason
}

#[tokio::test]
async fn checkpoints_of_all_pages_come_earliest_first_with_what_was_measured() {
    let listed = vec![
        checkpoint("ckpt-3", 30, json!({ "step": 30, "train_loss": 0.5, "full_valid_loss": 0.75 })),
        checkpoint("ckpt-2", 20, json!({ "valid_loss": 1.25 })),
        checkpoint("ckpt-1", 10, json!(null)),
    ];
    let provider = StandIn::start(move |seen| page(seen, &listed, 2)).await;
    let checkpoints = trainer(&provider.base_url).checkpoints("ftjob-1").await.expect("checkpoints");
    let found: Vec<_> = checkpoints.iter().map(|found| (found.id.as_str(), found.step)).collect();
    assert_eq!(found, [("ckpt-1", 10), ("ckpt-2", 20), ("ckpt-3", 30)]);
    assert_eq!(checkpoints[0].model_id, "ft:gpt-4o-mini:acme::abc:ckpt-step-10");
    assert_eq!(checkpoints[0].created_at.timestamp(), 1_700_000_010);
    let losses: Vec<_> = checkpoints
        .iter()
        .filter_map(|found| found.metrics)
        .map(|metrics| (metrics.step, metrics.train_loss, metrics.valid_loss, metrics.full_valid_loss))
        .collect();
    let expected = [(10, None, None, None), (20, None, Some(1.25), None), (30, Some(0.5), None, Some(0.75))];
    assert_eq!(losses, expected);
    let seen = provider.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].path, "/v1/fine_tuning/jobs/ftjob-1/checkpoints");
}

#[tokio::test]
async fn checkpoints_that_cannot_be_read_are_an_error() {
    for field in ["id", "created_at", "fine_tuned_model_checkpoint", "step_number"] {
        let mut broken = checkpoint("ckpt-1", 10, json!({}));
        broken[field] = json!(null);
        let provider = StandIn::start(move |_| Reply::json(200, &json!({ "data": [broken] }))).await;
        let error = trainer(&provider.base_url).checkpoints("ftjob-1").await.expect_err(field);
        assert!(matches!(error, TrainerError::Retryable { ambiguous: false, .. }), "{field}: {error:?}");
    }
    let provider = StandIn::start(|_| missing("Could not find fine tune: ftjob-1")).await;
    let error = trainer(&provider.base_url).checkpoints("ftjob-1").await.expect_err("no job");
    assert_eq!(reason(&error), RejectReason::JobNotFound);
}

#[tokio::test]
async fn a_file_is_deleted_and_one_that_is_gone_is_no_error() {
    let answers: [Answer; 3] = [
        |_| Reply::json(200, &json!({ "id": "file-1", "deleted": true })),
        |_| Reply::text(204, ""),
        |_| missing("No such File object: file-1"),
    ];
    for answer in answers {
        let provider = StandIn::start(answer).await;
        trainer(&provider.base_url).delete_file(&FileId::new("file-1")).await.expect("deleted");
        let seen = provider.only();
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("DELETE", "/v1/files/file-1"));
    }
}

#[tokio::test]
async fn a_file_that_may_still_be_there_is_an_error() {
    let answers: [(Answer, Option<RejectReason>); 4] = [
        (|_| Reply::text(404, "404 page not found"), Some(RejectReason::WrongBaseUrl)),
        (|_| missing("Invalid URL (DELETE /v1/files/file-1)"), Some(RejectReason::WrongBaseUrl)),
        (|_| Reply::text(403, ""), Some(RejectReason::PermissionDenied)),
        (|_| Reply::text(500, ""), None),
    ];
    for (answer, expected) in answers {
        let provider = StandIn::start(answer).await;
        let error = trainer(&provider.base_url).delete_file(&FileId::new("file-1")).await;
        let error = error.expect_err("not deleted");
        provider.only();
        match expected {
            Some(expected) => assert_eq!(reason(&error), expected),
            None => assert!(matches!(error, TrainerError::Retryable { .. }), "{error:?}"),
        }
    }
}

fn question(maximum_tokens: Option<u32>, json: bool) -> CompletionRequest {
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    CompletionRequest {
        model: "ft:gpt-4o-mini:acme:hook:abc".to_owned(),
        messages: vec![message("system", "Be short."), message("user", "Hello")],
        maximum_tokens,
        json,
    }
}

#[tokio::test]
async fn a_question_is_sent_whole_and_its_answer_read() {
    let provider = StandIn::start(|_| {
        let choice = json!({ "message": { "content": "Hi" }, "finish_reason": "stop" });
        let usage = json!({ "prompt_tokens": 7, "completion_tokens": 2 });
        Reply::json(200, &json!({ "choices": [choice, { "message": {} }], "usage": usage }))
    });
    let provider = provider.await;
    let answer = trainer(&provider.base_url).complete(&question(Some(50), true)).await.expect("an answer");
    let expected = Completion {
        content: "Hi".to_owned(),
        refusal: None,
        finish_reason: Some("stop".to_owned()),
        prompt_tokens: Some(7),
        completion_tokens: Some(2),
    };
    assert_eq!(answer, expected);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/chat/completions"));
    let body = json!({
        "model": "ft:gpt-4o-mini:acme:hook:abc",
        "messages": [
            { "role": "system", "content": "Be short." }, { "role": "user", "content": "Hello" },
        ],
        "max_completion_tokens": 50,
        "response_format": { "type": "json_object" },
    });
    assert_eq!(seen.json(), body);
}

#[tokio::test]
async fn an_answer_may_be_a_refusal_and_may_lack_its_bill() {
    let provider = StandIn::start(|_| {
        let message = json!({ "content": null, "refusal": "I will not." });
        Reply::json(200, &json!({ "choices": [{ "message": message }] }))
    });
    let provider = provider.await;
    let answer = trainer(&provider.base_url).complete(&question(None, false)).await.expect("an answer");
    assert_eq!((answer.content.as_str(), answer.refusal.as_deref()), ("", Some("I will not.")));
    assert_eq!((answer.finish_reason, answer.prompt_tokens, answer.completion_tokens), (None, None, None));
    let body = provider.only().json();
    assert_eq!((body.get("max_completion_tokens"), body.get("response_format")), (None, None));
}

#[tokio::test]
async fn a_malformed_answer_can_be_asked_for_again() {
    for body in ["{}", r#"{"choices": []}"#, r#"{"choices": [{"index": 0}]}"#, "<html>", "", "null"] {
        let provider = StandIn::start(move |_| Reply::text(200, body)).await;
        let error = trainer(&provider.base_url).complete(&question(None, false)).await.expect_err(body);
        provider.only();
        assert!(matches!(error, TrainerError::Retryable { ambiguous: false, .. }), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_from_a_wrong_address() {
    let cases: [(Answer, RejectReason); 3] = [
        (|_| missing("The model `ft:x` does not exist"), RejectReason::ModelNotFound),
        (|_| missing("Invalid URL (POST /v1/chat/completions)"), RejectReason::WrongBaseUrl),
        (|_| Reply::text(404, "not found"), RejectReason::WrongBaseUrl),
    ];
    for (answer, expected) in cases {
        let provider = StandIn::start(answer).await;
        let error = trainer(&provider.base_url).complete(&question(None, false)).await.expect_err("no model");
        assert_eq!(reason(&error), expected);
    }
}
