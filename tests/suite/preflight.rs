//! The report before anything is uploaded, and what it may cost.

use serde_json::{Value, json};

use crate::harness::service::{TestService, config};

/// A service with a pipeline whose budget is `budget`, and twelve posts to train on.
async fn with_budget(budget: Value) -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["budget"] = budget).await;
    service.posts(12, 0.08).await;
    service
}

fn uploads_nothing(service: &TestService) {
    let creates = service.simulator.creates();
    assert_eq!((creates.files, creates.jobs), (0, 0), "nothing was paid for");
}

#[tokio::test]
async fn the_report_says_what_is_trained_on_and_what_it_costs_and_the_run_then_costs_it() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["dataset"]["split"] = json!({"validation_share": 0.3});
            config["training"]["n_epochs"] = json!(2);
        })
        .await;
    service.posts(60, 0.08).await;
    service.posts(5, 0.03).await;
    let tried = service.post("/v1/pipelines/hook/preflight", Value::Null).await.expect(200);
    uploads_nothing(&service);
    assert_eq!(service.read("/v1/runs").await["items"], json!([]), "it is no run");

    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let mut report = service.read(&format!("/v1/runs/{id}/preflight")).await;
    let parts = &run["dataset"]["parts"];
    for part in ["train", "validation"] {
        for field in ["digest", "examples", "bytes"] {
            assert_eq!(report[part][field], parts[part][field], "{part} {field}");
        }
        let tokens = &report[part]["tokens"];
        assert!(tokens["minimum"].as_u64() <= tokens["p50"].as_u64(), "{tokens}");
        let histogram = tokens["histogram"].as_array().unwrap();
        let counted: u64 = histogram.iter().map(|bin| bin["count"].as_u64().unwrap()).sum();
        assert_eq!(json!(counted), report[part]["examples"]);
        assert_eq!(report[part]["over_limit"], json!({"limit": 65_536, "count": 0, "lines": []}));
    }
    assert_eq!(report["counts"], run["dataset"]["counts"]);
    assert_eq!((&report["fault_count"], &report["tokeniser"]), (&json!(0), &json!("o200k_base")));
    let billed = report["train"]["tokens"]["total"].as_u64().unwrap() * 2;
    let expected = &report["trainings"][0];
    assert_eq!(expected["epochs"], json!({"count": 2, "estimated": false}));
    assert_eq!(expected["billed_tokens"], json!(billed));
    let cost = json!({
        "status": "estimate", "amount": billed as f64, "currency": "USD", "price_per_million_tokens": 1e6,
    });
    assert_eq!(report["cost"], cost);

    assert_eq!(run["cost"]["expected"], cost);
    let trained = run["training"]["trained_tokens"].as_i64().unwrap();
    assert_eq!(run["cost"]["trained_tokens"], json!(trained));
    assert_eq!(run["cost"]["actual"], json!(trained as f64), "a token costs a dollar");
    let costs = service.read("/v1/costs?pipeline=hook").await;
    let month = &costs["items"][0];
    assert_eq!((&month["trainings"], &month["trained_tokens"]), (&json!(1), &json!(trained)));
    assert_eq!((&month["cost"], &month["currency"]), (&json!(trained as f64), &json!("USD")));
    assert_eq!(service.read("/v1/costs?month=2020-01").await["items"], json!([]));
    service.get("/v1/costs?month=soon").await.problem(422, "invalid-request");
    let metrics = service.text("/metrics", &[]).await;
    let line = format!("tuneloop_training_cost{{currency=\"USD\",pipeline=\"hook\"}} {trained}");
    assert!(metrics.contains(&line), "{metrics}");

    // The same report was to be had without a run.
    report["made_at"] = tried["made_at"].clone();
    assert_eq!(tried, report);
    service.end().await;
}

#[tokio::test]
async fn a_report_can_be_made_of_a_configuration_that_is_only_tried() {
    let service = with_budget(json!({})).await;
    let mut tried = config();
    tried["training"]["base_model"] = json!("llama-9");
    tried["training"]["search"] = json!({"n_epochs": [1, 3]});
    let report = service.post("/v1/pipelines/hook/preflight", tried).await.expect(200);
    let total = report["train"]["tokens"]["total"].as_u64().unwrap();
    let billed: Vec<_> = report["trainings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["billed_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(billed, [total, 3 * total]);
    assert_eq!(report["cost"]["status"], "unknown", "never zero: {report:#}");
    assert!(report["cost"]["reason"].as_str().unwrap().contains("llama-9"), "{report:#}");
    assert!(report["train"].get("over_limit").is_none(), "{report:#}");
    let mut bad = config();
    bad["training"]["n_epochs"] = json!(51);
    service.post("/v1/pipelines/hook/preflight", bad).await.problem(422, "invalid-request");
    service.post("/v1/pipelines/none/preflight", Value::Null).await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn a_line_that_the_provider_would_refuse_fails_the_run_before_it_is_uploaded() {
    let service = with_budget(json!({})).await;
    sqlx::query("UPDATE posts SET hook = hook || ' <|im_end|>' WHERE id = (SELECT max(id) FROM posts)")
        .execute(&service.db)
        .await
        .unwrap();
    let mut raw = config();
    raw["dataset"]["cleaning"] = json!({"html": false});
    let path = "/v1/pipelines/hook";
    service.put(path, &[], raw).await.expect(200);
    let id = service.trigger("hook").await;
    let run = service.wait_until(&id, "failed").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("preflight"), &json!("invalid_training_file")));
    let report = service.read(&format!("/v1/runs/{id}/preflight")).await;
    let fault = &report["faults"][0];
    assert_eq!((&report["fault_count"], &fault["field"]), (&json!(1), &json!("/messages/1/content")));
    let reason = run["reason"].as_str().unwrap();
    let line = fault["line"].as_u64().unwrap();
    assert!(
        reason.contains(&format!("line {line} of the train file: /messages/1/content must not")),
        "{reason}"
    );
    uploads_nothing(&service);
    service.end().await;
}

#[tokio::test]
async fn a_run_over_its_budget_waits_and_goes_on_when_it_is_approved() {
    let service = with_budget(json!({"per_run": 1})).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for(&id, "waiting", |run| run["status"] == "waiting_approval").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("preflight"), &json!("budget_exceeded")));
    assert!(run["reason"].as_str().unwrap().contains("budget.per_run allows 1.00"), "{run:#}");
    uploads_nothing(&service);
    // A run that waits is in the way of the next, and its money is not spent yet.
    service.post("/v1/pipelines/hook/runs", Value::Null).await.problem(409, "run-active");
    service.post(&format!("/v1/runs/{id}/approve"), json!({"reason": "worth it"})).await.expect(202);
    service.wait_for_test(&id).await;
    let events = service.read(&format!("/v1/runs/{id}/events?limit=200")).await;
    let said = events["items"].as_array().unwrap().iter().any(|event| {
        let message = event["message"].as_str().unwrap();
        message.contains("approved the training") && message.contains("worth it")
    });
    assert!(said, "{events:#}");
    service.end().await;
}

#[tokio::test]
async fn a_run_is_not_paid_for_that_is_rejected_expires_or_is_to_be_skipped() {
    for (budget, ask, status, code) in [
        (json!({"require_approval": true}), Some("reject"), "rejected", "rejected_by_operator"),
        (json!({"require_approval": true, "approval_seconds": 0.3}), None, "skipped", "approval_expired"),
        (json!({"per_run": 1, "over_budget": "skip"}), None, "skipped", "budget_exceeded"),
        (json!({"per_month": 1, "over_budget": "skip"}), None, "skipped", "budget_exceeded"),
    ] {
        let service = with_budget(budget).await;
        let id = service.trigger("hook").await;
        if let Some(ask) = ask {
            service.wait_for(&id, "waiting", |run| run["status"] == "waiting_approval").await;
            service.post(&format!("/v1/runs/{id}/{ask}"), Value::Null).await.expect(202);
        }
        let run = service.wait_until(&id, status).await;
        assert_eq!((&run["step"], &run["reason_code"]), (&json!("preflight"), &json!(code)), "{run:#}");
        uploads_nothing(&service);
        service.end().await;
    }
}

#[tokio::test]
async fn a_months_budget_is_what_its_trainings_cost_and_an_unknown_price_is_over_it() {
    let service = with_budget(json!({})).await;
    let first = service.trigger("hook").await;
    let run = service.wait_for_test(&first).await;
    let (cost, expected) =
        (run["cost"]["actual"].as_f64().unwrap(), run["cost"]["expected"]["amount"].as_f64().unwrap());
    service.post(&format!("/v1/runs/{first}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&first, "cancelled").await;

    // Enough for one of them, not for both.
    let mut limited = config();
    limited["budget"] = json!({"per_month": cost + expected - 0.5, "over_budget": "skip"});
    service.put("/v1/pipelines/hook", &[], limited.clone()).await.expect(200);
    let second = service.trigger("hook").await;
    let run = service.wait_until(&second, "skipped").await;
    assert!(run["reason"].as_str().unwrap().contains(&format!("after {cost:.2} in this month")), "{run:#}");
    limited["budget"]["per_month"] = json!(cost + expected + 0.5);
    service.put("/v1/pipelines/hook", &[], limited.clone()).await.expect(200);
    let third = service.trigger("hook").await;
    service.wait_for_test(&third).await;
    service.post(&format!("/v1/runs/{third}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&third, "cancelled").await;

    limited["training"]["base_model"] = json!("gpt-4o-mini-2024-07-18");
    limited["budget"]["per_month"] = json!(1e9);
    service.put("/v1/pipelines/hook", &[], limited).await.expect(200);
    let unknown = service.trigger("hook").await;
    let run = service.wait_until(&unknown, "skipped").await;
    assert!(run["reason"].as_str().unwrap().contains("the price table has no gpt-4o-mini"), "{run:#}");
    service.end().await;
}
