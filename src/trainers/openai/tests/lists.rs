//! Finding files, jobs and events, over any number of pages.

use serde_json::json;

use super::*;

fn file(id: &str, created_at: i64, bytes: Option<u64>) -> Value {
    json!({
        "id": id, "object": "file", "filename": "t.jsonl", "purpose": "fine-tune",
        "created_at": created_at, "bytes": bytes, "status": "processed", "status_details": null,
    })
}

async fn found(files: Vec<Value>, limit: usize) -> (Option<String>, Vec<Seen>) {
    let provider = StandIn::start(move |seen| page(seen, &files, limit)).await;
    let id = trainer(&provider.base_url).find_file("t.jsonl", 10).await.expect("an answer");
    (id.map(|id| id.as_str().to_owned()), provider.seen())
}

#[tokio::test]
async fn a_file_is_found_on_any_page_and_the_oldest_is_chosen() {
    let files = vec![file("f1", 40, Some(10)), file("f2", 30, Some(10)), file("f3", 20, Some(10))];
    let (id, seen) = found(files, 1).await;
    assert_eq!(id.as_deref(), Some("f3"));
    let cursors: Vec<_> = seen.iter().map(|seen| seen.query("after")).collect();
    assert_eq!(cursors, [None, Some("f1"), Some("f2")]);
    for seen in &seen {
        assert_eq!((seen.path.as_str(), seen.query("purpose")), ("/v1/files", Some("fine-tune")));
    }
    let same_second = vec![file("fb", 20, Some(10)), file("fa", 20, Some(10))];
    assert_eq!(found(same_second, 10).await.0.as_deref(), Some("fa"));
}

#[tokio::test]
async fn other_files_are_passed_over() {
    let mut other_name = file("f1", 1, Some(10));
    other_name["filename"] = json!("u.jsonl");
    let mut results = file("f2", 1, Some(10));
    results["purpose"] = json!("fine-tune-results");
    let mut unusable = file("f3", 1, Some(10));
    unusable["status"] = json!("error");
    let other_size = file("f4", 1, Some(11));
    assert_eq!(found(vec![other_name, results, unusable, other_size], 10).await.0, None);
    assert_eq!(found(Vec::new(), 10).await.0, None);
}

#[tokio::test]
async fn a_size_that_is_not_known_yet_does_not_hide_a_file() {
    assert_eq!(found(vec![file("f1", 1, None)], 10).await.0.as_deref(), Some("f1"));
}

#[tokio::test]
async fn jobs_are_asked_for_by_training_and_come_oldest_first() {
    let training = Uuid::from_u128(7);
    let jobs = vec![
        job("ftjob-3", 30, of_training(training)),
        job("ftjob-1", 10, of_training(training)),
        job("ftjob-2", 10, of_training(training)),
    ];
    let provider = StandIn::start(move |seen| page(seen, &jobs, 10)).await;
    let jobs = trainer(&provider.base_url).find_jobs(training).await.expect("jobs");
    let ids: Vec<_> = jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["ftjob-1", "ftjob-2", "ftjob-3"]);
    assert_eq!(jobs[0].metadata["training_id"], training.to_string());
    assert_eq!(provider.only().query("metadata[training_id]"), Some(training.to_string().as_str()));
}

#[tokio::test]
async fn a_provider_that_ignores_the_filter_is_searched_page_by_page() {
    let training = Uuid::from_u128(7);
    let jobs = vec![
        job("ftjob-6", 60, of_training(Uuid::from_u128(8))),
        job("ftjob-5", 50, json!(null)),
        job("ftjob-4", 40, of_training(training)),
        json!({ "id": "ftjob-3", "odd": "and not ours" }),
        job("ftjob-2", 20, json!({})),
        job("ftjob-1", 10, of_training(training)),
    ];
    let provider = StandIn::start(move |seen| page(seen, &jobs, 2)).await;
    let jobs = trainer(&provider.base_url).find_jobs(training).await.expect("jobs");
    let ids: Vec<_> = jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["ftjob-1", "ftjob-4"]);
    assert_eq!(provider.seen().len(), 3);
}

#[tokio::test]
async fn the_search_ends_where_all_jobs_are_older_than_the_training() {
    const DAY: i64 = 24 * 3600;
    let (made_at, training) = (clock().now().timestamp(), clock().uuid());
    let other = of_training(Uuid::from_u128(8));
    let jobs = vec![
        job("ftjob-4", made_at + 5, other.clone()),
        // Within what the clocks may differ by.
        job("ftjob-3", made_at - DAY + 60, of_training(training)),
        job("ftjob-2", made_at - 2 * DAY, other.clone()),
        job("ftjob-1", made_at - 3 * DAY, other),
    ];
    let provider = StandIn::start(move |seen| page(seen, &jobs, 1)).await;
    let jobs = trainer(&provider.base_url).find_jobs(training).await.expect("jobs");
    assert_eq!(jobs.len(), 1);
    let cursors: Vec<_> = provider.seen().iter().map(|seen| seen.query("after").map(str::to_owned)).collect();
    assert_eq!(cursors, [None, Some("ftjob-4".to_owned()), Some("ftjob-3".to_owned())]);
}

#[tokio::test]
async fn a_list_that_cannot_be_walked_is_an_error_and_not_an_empty_answer() {
    let repeats = json!({ "data": [job("ftjob-1", 10, json!({}))], "has_more": true });
    let without_ids = json!({ "data": [{ "status": "queued" }], "has_more": true });
    let broken = job("ftjob-1", 10, of_training(Uuid::from_u128(7)));
    let mut broken = json!({ "data": [broken], "has_more": false });
    broken["data"][0]["status"] = json!(null);
    for answer in [repeats, without_ids, broken, json!({}), json!([]), json!({ "data": {} })] {
        let shown = answer.to_string();
        let provider = StandIn::start(move |_| Reply::json(200, &answer)).await;
        let error = trainer(&provider.base_url).find_jobs(Uuid::from_u128(7)).await.expect_err(&shown);
        assert!(matches!(error, TrainerError::Retryable { ambiguous: false, .. }), "{shown}: {error:?}");
    }
}

#[tokio::test]
async fn a_failing_page_fails_the_search() {
    let jobs = vec![job("ftjob-2", 20, json!({})), job("ftjob-1", 10, of_training(Uuid::from_u128(7)))];
    let provider = StandIn::start(move |seen| match seen.query("after") {
        None => page(seen, &jobs, 1),
        Some(_) => Reply::text(500, ""),
    });
    let provider = provider.await;
    trainer(&provider.base_url).find_jobs(Uuid::from_u128(7)).await.expect_err("half a list");
}

/// As the real service lists them: newest first, of more types than it documents.
fn events() -> Vec<Value> {
    vec![
        json!({
            "object": "fine_tuning.job.event", "id": "e5", "created_at": 50, "level": "info",
            "message": "Moderation checks passed", "type": "moderation_checks", "data": { "blocked": false },
        }),
        json!({
            "id": "e4", "created_at": 40, "level": "info", "type": "metrics",
            "message": "Step 2/2: training loss=0.5, full validation loss=0.7",
            "data": { "step": 2, "train_loss": 0.5, "full_valid_loss": 0.7, "total_steps": 2 },
        }),
        json!({
            "id": "e3", "created_at": 40, "level": "info", "message": "Step 1/2", "type": "metrics",
            "data": { "step": 1.0, "train_loss": 1.5, "valid_loss": 1.75, "train_mean_token_accuracy": 0.6 },
        }),
        json!({ "id": "e2", "created_at": 20, "message": "Fine-tuning job started", "data": {} }),
        json!({ "id": "e1", "created_at": 10, "level": "warn", "message": "Queued", "type": "message", "data": null }),
    ]
}

#[tokio::test]
async fn events_of_all_pages_come_oldest_first_with_their_metrics() {
    let provider = StandIn::start(|seen| page(seen, &events(), 2)).await;
    let events = trainer(&provider.base_url).events("ftjob-1", None).await.expect("events");
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4", "e5"]);
    assert_eq!(provider.seen().len(), 3);
    assert_eq!(provider.seen()[0].path, "/v1/fine_tuning/jobs/ftjob-1/events");

    let metrics: Vec<_> = events.iter().map(|event| event.metrics).collect();
    let point = |step, train_loss, valid_loss, full_valid_loss| {
        Some(crate::trainers::TrainingMetrics { step, train_loss, valid_loss, full_valid_loss })
    };
    let expected =
        [None, None, point(1, Some(1.5), Some(1.75), None), point(2, Some(0.5), None, Some(0.7)), None];
    assert_eq!(metrics, expected);
    assert_eq!((events[0].level.as_str(), events[4].kind.as_str()), ("warn", "moderation_checks"));
    assert_eq!(events[1].message, "Fine-tuning job started");
}

#[tokio::test]
async fn events_after_a_known_one_are_only_the_newer_ones() {
    let provider = StandIn::start(|seen| page(seen, &events(), 2)).await;
    let trainer = trainer(&provider.base_url);
    let events = trainer.events("ftjob-1", Some("e3")).await.expect("events");
    let ids: Vec<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["e4", "e5"]);
    assert_eq!(provider.seen().len(), 2, "older pages are not read");
    assert_eq!(trainer.events("ftjob-1", Some("e5")).await.expect("events"), []);
}

#[tokio::test]
async fn one_old_job_among_newer_ones_does_not_end_the_search() {
    let (made_at, training) = (clock().now().timestamp(), clock().uuid());
    let old = made_at - 30 * 24 * 3600;
    let jobs = vec![
        job("ftjob-3", old, json!({})),
        job("ftjob-2", made_at, json!({})),
        job("ftjob-1", made_at, of_training(training)),
    ];
    let provider = StandIn::start(move |seen| page(seen, &jobs, 2)).await;
    let jobs = trainer(&provider.base_url).find_jobs(training).await.expect("jobs");
    assert_eq!(jobs.len(), 1);
}
