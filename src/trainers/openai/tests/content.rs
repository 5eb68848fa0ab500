//! Uploads whose own content fails.

use std::io;

use serde_json::json;

use super::*;
use crate::outbound::BreakerState;

/// A file of which only the first part can be read.
fn broken_file() -> TrainingFile {
    let pieces = [Ok(Bytes::from_static(b"{}\n")), Err(io::Error::other("the dataset was altered."))];
    TrainingFile { name: "a.jsonl".to_owned(), bytes: 1_000, content: stream::iter(pieces).boxed() }
}

#[tokio::test]
async fn a_content_that_ends_in_an_error_leaves_no_doubt_and_is_not_the_providers_fault() {
    let provider = StandIn::start(|seen| match seen.method.as_str() {
        "GET" => Reply::json(200, &job("ftjob-1", 1, json!(null))),
        _ => Reply::json(200, &json!({ "id": "file-1" })),
    });
    let provider = provider.await;
    let breaker = CircuitBreaker::new("openai", clock());
    let settings = OpenAiSettings { breaker: Some(breaker.clone()), ..settings(&provider.base_url) };
    let trainer = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    for _ in 0..20 {
        let error = trainer.upload(broken_file()).await.expect_err("no file");
        let TrainerError::Retryable { message, ambiguous, retry_after: None } = error else {
            panic!("{error:?}")
        };
        assert!(!ambiguous, "{message}");
        let expected = "Uploading the training file failed: the file could not be read to its end: \
                        the dataset was altered.";
        assert_eq!(message, expected);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    trainer.poll("ftjob-1").await.expect("a job");
}

#[tokio::test]
async fn it_does_not_count_as_an_answer_of_the_provider_either() {
    let (_socket, base_url) = stand_in::refusing();
    let breaker = CircuitBreaker::new("openai", clock());
    let settings = OpenAiSettings { breaker: Some(breaker.clone()), ..settings(&base_url) };
    let failing = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    let provider = StandIn::start(|_| Reply::json(200, &json!({ "id": "file-1" }))).await;
    let settings = OpenAiSettings { base_url: provider.base_url.clone(), ..settings.clone() };
    let trainer = OpenAiTrainer::new(&settings, &clock()).expect("valid settings");
    // One breaker for both: nine failures, a content's fault, and the tenth failure opens it.
    for _ in 0..9 {
        failing.create(&request()).await.expect_err("nobody is there");
    }
    trainer.upload(broken_file()).await.expect_err("no file");
    assert_eq!(breaker.state(), BreakerState::Closed);
    failing.create(&request()).await.expect_err("nobody is there");
    assert_eq!(breaker.state(), BreakerState::Open);
}
