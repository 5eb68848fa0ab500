//! Following a job to its end, and the model that comes out of it.

use serde_json::json;

use super::*;

async fn polled(answer: Value) -> ProviderJob {
    let provider = StandIn::start(move |_| Reply::json(200, &answer)).await;
    let job = trainer(&provider.base_url).poll("ftjob-1").await.expect("a job");
    assert_eq!(provider.only().path, "/v1/fine_tuning/jobs/ftjob-1");
    job
}

/// What async-openai's typed structs refuse, and the real service sends.
fn odd_job() -> Value {
    json!({
        "object": "fine_tuning.job", "id": "ftjob-1", "model": "gpt-4o-mini-2024-07-18",
        "created_at": 1_700_000_000, "finished_at": null, "fine_tuned_model": null,
        "organization_id": null, "result_files": null, "status": "pausing",
        "validation_file": null, "training_file": "file-1", "trained_tokens": null,
        "hyperparameters": { "batch_size": null, "learning_rate_multiplier": "auto" },
        "error": {}, "seed": null, "metadata": null, "estimated_finish": "soon",
        "method": { "type": "novel" }, "integrations": "none", "user_provided_suffix": null,
        "usage_metrics": { "anything": [1, 2] },
    })
}

#[tokio::test]
async fn odd_jobs_are_read_and_unknown_statuses_kept() {
    let job = polled(odd_job()).await;
    assert_eq!(job.status, JobStatus::Unknown("pausing".to_owned()));
    assert!(!job.status.is_terminal());
    assert_eq!((job.error, job.finished_at, job.fine_tuned_model), (None, None, None));
    assert_eq!(job.training_file, Some(FileId::new("file-1")));
    assert!(job.metadata.is_empty());
}

#[tokio::test]
async fn a_finished_job_brings_its_model() {
    let mut answer = odd_job();
    answer["status"] = json!("succeeded");
    answer["fine_tuned_model"] = json!("ft:gpt-4o-mini:acme:hook:abc");
    answer["trained_tokens"] = json!(5_768_000_000_i64);
    answer["finished_at"] = json!(1_700_003_600);
    answer["seed"] = json!(42);
    answer["metadata"] = json!({ "training_id": "t", "count": 3 });
    let job = polled(answer).await;
    assert!(job.status.is_terminal());
    assert_eq!(job.fine_tuned_model.as_deref(), Some("ft:gpt-4o-mini:acme:hook:abc"));
    assert_eq!((job.trained_tokens, job.seed), (Some(5_768_000_000), Some(42)));
    assert_eq!(job.finished_at.map(|at| at - job.created_at), Some(TimeDelta::hours(1)));
    assert_eq!((job.metadata["training_id"].as_str(), job.metadata["count"].as_str()), ("t", "3"));
    assert_eq!(job.base_model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
}

#[tokio::test]
async fn a_failed_job_says_why_in_both_languages() {
    let cases = [
        ("invalid_training_file", json!("training_file"), RejectReason::InvalidTrainingFile),
        ("unknown_code", json!("validation_file"), RejectReason::InvalidTrainingFile),
        ("exceeded_quota", json!(null), RejectReason::InsufficientQuota),
        ("moderation_check_failed", json!(null), RejectReason::ModerationBlocked),
        ("server_error", json!(null), RejectReason::Rejected),
    ];
    for (code, param, reason) in cases {
        let mut answer = odd_job();
        answer["status"] = json!("failed");
        answer["error"] = json!({ "code": code, "message": "It broke.", "param": param });
        let error = polled(answer).await.error.expect("a failure");
        assert_eq!((error.code.as_deref(), error.reason), (Some(code), reason));
        assert_eq!((error.message.as_deref(), error.param.as_deref()), (Some("It broke."), param.as_str()));
    }
}

#[tokio::test]
async fn cancel_returns_the_cancelled_job() {
    let mut answer = odd_job();
    answer["status"] = json!("cancelled");
    let provider = StandIn::start(move |_| Reply::json(200, &answer)).await;
    let job = trainer(&provider.base_url).cancel("ftjob-1").await.expect("a job");
    assert_eq!(job.status, JobStatus::Cancelled);
    let seen = provider.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel"));
}

/// Refuses to cancel a job that has `status`.
async fn refusing_to_cancel(code: u16, status: &'static str) -> StandIn {
    StandIn::start(move |seen| {
        if seen.method == "POST" {
            return Reply::json(code, &json!({ "error": { "message": "Job has already completed." } }));
        }
        let mut answer = odd_job();
        answer["status"] = json!(status);
        Reply::json(200, &answer)
    })
    .await
}

#[tokio::test]
async fn cancelling_a_job_that_has_ended_is_fine() {
    for (code, status) in [(400, "succeeded"), (409, "failed"), (400, "cancelled")] {
        let provider = refusing_to_cancel(code, status).await;
        let job = trainer(&provider.base_url).cancel("ftjob-1").await.expect("no error");
        assert_eq!(job.status.as_str(), status);
    }
}

#[tokio::test]
async fn a_refusal_to_cancel_a_running_job_is_an_error() {
    let provider = refusing_to_cancel(400, "running").await;
    let error = trainer(&provider.base_url).cancel("ftjob-1").await.expect_err("it still runs");
    assert!(matches!(error, TrainerError::Rejected { reason: RejectReason::Rejected, .. }), "{error:?}");
    assert!(error.to_string().contains("already completed"), "{error}");
}

#[tokio::test]
async fn models_are_there_or_not_or_cannot_be_looked_for() {
    let provider = StandIn::start(|seen| match seen.path.as_str() {
        "/v1/models/ft:gpt-4o-mini:acme:hook:abc" => Reply::json(200, &json!({ "id": "x" })),
        "/v1/models/gpt-3.5-turbo" => Reply::json(200, &json!({ "id": "x", "shutdown_date": "2026-12-31" })),
        "/v1/models/org%2Fgone" => Reply::json(
            404,
            &json!({ "error": { "message": "The model does not exist", "code": "model_not_found" } }),
        ),
        "/v1/models/unrouted" => {
            Reply::json(404, &json!({ "error": { "message": "Invalid URL (GET /v1/models/unrouted)" } }))
        }
        "/v1/models/page" => Reply::text(404, "<html>not found</html>"),
        _ => Reply::text(500, ""),
    });
    let provider = provider.await;
    let trainer = trainer(&provider.base_url);
    assert_eq!(trainer.model_exists("ft:gpt-4o-mini:acme:hook:abc").await, Ok(true));
    assert_eq!(trainer.model("ft:gpt-4o-mini:acme:hook:abc").await, Ok(Some(ModelState::default())));
    let ending = ModelState { shutdown_date: "2026-12-31".parse().ok() };
    assert_eq!(trainer.model("gpt-3.5-turbo").await, Ok(Some(ending)));
    assert_eq!(trainer.model_exists("org/gone").await, Ok(false));
    for model in ["unrouted", "page"] {
        let error = trainer.model(model).await.expect_err(model);
        assert!(
            matches!(error, TrainerError::Rejected { reason: RejectReason::WrongBaseUrl, .. }),
            "{error:?}"
        );
    }
    let error = trainer.model("broken").await.expect_err("no answer");
    assert!(matches!(error, TrainerError::Retryable { .. }), "{error:?}");
}
