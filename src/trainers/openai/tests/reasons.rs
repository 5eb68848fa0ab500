//! Each reason in three shapes: by code, by type and by the message alone.

use serde_json::json;

use super::*;

/// The reason, a code or type that means it, and messages that do.
const SHAPES: [(RejectReason, &str, &[&str]); 6] = [
    (
        RejectReason::InsufficientQuota,
        "insufficient_quota",
        &["You exceeded your current quota, please check your plan and billing details."],
    ),
    (
        RejectReason::ModerationBlocked,
        "moderation_failed",
        &[
            "The job failed due to an unsafe training file.",
            "Too many examples violate OpenAI's usage policies.",
            "The examples were flagged by our moderation system.",
            "The model failed its safety evaluations.",
        ],
    ),
    (
        RejectReason::TrainingNotAvailable,
        "training_not_available",
        &["Fine-tuning is not available for this account.", "You do not have access to fine-tuning."],
    ),
    (
        RejectReason::ModelNotFound,
        "model_not_found",
        &["Model gpt-9 is not available for fine-tuning or does not exist."],
    ),
    (
        RejectReason::InvalidTrainingFile,
        "invalid_training_file",
        &["The job failed due to an invalid training file. Line 3 is empty."],
    ),
    (RejectReason::InvalidApiKey, "invalid_api_key", &["Incorrect API key provided."]),
];

/// What a refused create and a failed job make of an error object.
async fn reasons(error: Value) -> [RejectReason; 2] {
    let provider = StandIn::start(move |seen| {
        if seen.method == "POST" {
            return Reply::json(400, &json!({ "error": error }));
        }
        let mut failed = job("ftjob-1", 1, json!(null));
        failed["status"] = json!("failed");
        failed["error"] = error.clone();
        Reply::json(200, &failed)
    });
    let provider = provider.await;
    let trainer = trainer(&provider.base_url);
    let refusal = trainer.create(&request()).await.expect_err("a refusal");
    let TrainerError::Rejected { reason, .. } = refusal else { panic!("{refusal:?}") };
    let failed = trainer.poll("ftjob-1").await.expect("a job");
    [reason, failed.error.expect("a failure").reason]
}

#[tokio::test]
async fn every_reason_is_known_by_code_by_type_and_by_message() {
    for (expected, code, messages) in SHAPES {
        let coded = json!({ "code": code, "message": "It did not work." });
        assert_eq!(reasons(coded).await, [expected; 2], "by the code {code}");
        let typed = json!({ "type": code, "code": null });
        assert_eq!(reasons(typed).await, [expected; 2], "by the type {code}");
        for message in messages {
            assert_eq!(reasons(json!({ "message": message })).await, [expected; 2], "by {message:?}");
            let general = json!({ "message": message, "type": "invalid_request_error", "code": null });
            assert_eq!(reasons(general).await, [expected; 2], "by {message:?} with a general type");
        }
    }
}

#[tokio::test]
async fn codes_may_be_written_as_azure_does() {
    for code in ["insufficientQuota", "InsufficientQuota"] {
        assert_eq!(reasons(json!({ "code": code })).await, [RejectReason::InsufficientQuota; 2]);
    }
}

#[tokio::test]
async fn a_file_that_breaks_the_policies_is_blocked_whatever_its_code() {
    let message = "The job failed due to an unsafe training file: it violates OpenAI's usage policies.";
    let error = json!({ "code": "invalid_training_file", "message": message, "param": "training_file" });
    assert_eq!(reasons(error).await, [RejectReason::ModerationBlocked; 2]);
}

#[tokio::test]
async fn the_parameter_counts_only_where_nothing_speaks_against_it() {
    let of = |code: Option<&str>, kind: &str, message: &str| {
        reasons(json!({ "code": code, "type": kind, "message": message, "param": "model" }))
    };
    let general = "invalid_request_error";
    assert_eq!(of(None, general, "Not this one.").await, [RejectReason::ModelNotFound; 2]);
    assert_eq!(of(Some("invalid_value"), general, "Not this one.").await, [RejectReason::ModelNotFound; 2]);
    assert_eq!(of(Some("unsupported_region"), general, "Not here.").await, [RejectReason::Rejected; 2]);
    assert_eq!(of(Some("server_error"), general, "Oh.").await, [RejectReason::Rejected; 2]);
    let quota = of(None, general, "You exceeded your current quota.").await;
    assert_eq!(quota, [RejectReason::InsufficientQuota; 2]);
}

#[tokio::test]
async fn a_failure_of_the_providers_own_is_not_taken_for_what_it_names() {
    let error = json!({ "code": "server_error", "message": "The moderation service did not answer." });
    assert_eq!(reasons(error).await, [RejectReason::Rejected; 2]);
    assert_eq!(reasons(json!({ "message": "Something else." })).await, [RejectReason::Rejected; 2]);
}
