//! What a new model shows before it meets traffic; training by preference.

use serde_json::{Value, json};
use tuneloop::simulator::{FaultPlan, Route};

use crate::harness::service::{TestService, config};

async fn with_evaluation(evaluation: Value) -> TestService {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["dataset"]["split"] = json!({"validation_share": 0.3});
            config["evaluation"] = evaluation;
        })
        .await;
    service.posts(60, 0.08).await;
    service
}

#[tokio::test]
async fn a_judge_compares_the_new_model_with_the_live_one_on_what_was_set_aside() {
    let judge = json!({"by": "judge", "model": "gpt-4o", "examples": 8, "floor": 0.3});
    let service = with_evaluation(json!({"smoke": {"prompts": 2}, "comparison": judge})).await;
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let shown = service.read(&format!("/v1/runs/{id}/evaluation")).await;
    let found = &shown["found"];
    assert_eq!(found["smoke"], json!({"prompts": 2, "faults": []}));
    let compared = &found["judge"];
    assert_eq!((&compared["examples"], &compared["model"]), (&json!(8), &json!("gpt-4o")));
    // The simulator's judge likes how tuned models open.
    let score = |who: &str| compared[who].as_f64().unwrap();
    assert!(score("candidate") > score("live"), "{compared}");

    let answers = shown["answers"].as_array().unwrap();
    let of_model = |model: &Value| -> Vec<&Value> {
        answers
            .iter()
            .filter(|answer| &answer["model_id"] == model && answer.get("score").is_some())
            .collect()
    };
    let candidates = of_model(&run["training"]["model_id"]);
    assert_eq!((candidates.len(), of_model(&json!("gpt-4o")).len()), (8, 8), "{shown:#}");
    let mean = candidates.iter().map(|answer| answer["score"].as_f64().unwrap()).sum::<f64>() / 8.0;
    assert!((mean - score("candidate")).abs() < 1e-9);
    let version = run["version"].as_str().unwrap();
    let version = service.read(&format!("/v1/pipelines/hook/models/{version}")).await;
    assert_eq!(version["metrics"]["quality"], compared["candidate"]);

    // The live model and the judge are one here: 8 answers and 16 scores. What tuned models cost is not in the table.
    let usage = run["cost"]["evaluation"].as_array().unwrap();
    let of = |model: &Value| usage.iter().find(|usage| &usage["model_id"] == model).unwrap();
    let (live, tuned) = (of(&json!("gpt-4o")), of(&run["training"]["model_id"]));
    assert_eq!((&live["calls"], live["currency"].as_str()), (&json!(24), Some("USD")));
    let tokens = |usage: &Value, what: &str| usage[what].as_f64().unwrap();
    let cost = tokens(live, "prompt_tokens") + 2.0 * tokens(live, "completion_tokens");
    assert!(cost > 0.0 && (live["cost"].as_f64().unwrap() - cost).abs() < 1e-6, "{live}");
    assert_eq!((tuned.get("cost"), tuned.get("currency")), (None, None), "{tuned}");
    let all = service.read("/v1/costs").await;
    let mut items = all["items"].as_array().unwrap().clone();
    let priced = items.iter().find(|item| item["currency"] == "USD").unwrap();
    assert_eq!((&priced["evaluation_calls"], &priced["evaluation_cost"]), (&json!(24), &live["cost"]));
    let unpriced = items.iter().find(|item| item.get("currency").is_none()).unwrap();
    assert_eq!((&unpriced["evaluation_calls"], unpriced.get("evaluation_cost")), (&tuned["calls"], None));
    // The same in pages of one.
    let (mut path, mut paged) = ("/v1/costs?limit=1".to_owned(), Vec::new());
    loop {
        let page = service.read(&path).await;
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page.get("next_cursor") else { break };
        path = format!("/v1/costs?limit=1&cursor={}", cursor.as_str().unwrap());
    }
    assert_eq!(paged, std::mem::take(&mut items));
    // And it is in the month's budget.
    let mut conn = service.db.acquire().await.unwrap();
    let spent = tuneloop::preflight::spending(&mut conn, "hook", "USD").await.unwrap();
    let trained = run["cost"]["actual"].as_f64().unwrap();
    assert!((spent.amount - trained - cost).abs() < 1e-6, "{spent:?}");
    service.end().await;
}

#[tokio::test]
async fn a_model_below_the_floor_never_meets_traffic() {
    let judge = json!({"by": "judge", "model": "gpt-4o", "examples": 4, "floor": 1.0});
    let service = with_evaluation(json!({"comparison": judge})).await;
    let id = service.trigger("hook").await;
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("evaluate"), &json!("below_floor")), "{run:#}");
    assert!(run["reason"].as_str().unwrap().contains("below the floor of 1"), "{run:#}");
    assert_eq!(service.versions("hook").await.iter().filter(|(_, status)| status == "rejected").count(), 1);
    assert_eq!(service.weights("hook").await, [("0.0.0".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn a_model_that_fails_the_smoke_test_never_meets_traffic() {
    let service = with_evaluation(json!({"smoke": {"prompts": 3, "maximum_characters": 5}})).await;
    let id = service.trigger("hook").await;
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!(run["reason_code"], "smoke_test_failed", "{run:#}");
    let shown = service.read(&format!("/v1/runs/{id}/evaluation")).await;
    let faults = shown["found"]["smoke"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 3, "{shown:#}");
    assert!(faults.iter().all(|fault| fault["fault"] == "too_long"), "{shown:#}");
    service.end().await;
}

#[tokio::test]
async fn losses_are_compared_where_the_live_model_has_one() {
    let loss = json!({"by": "loss", "maximum_increase": 0.05});
    let service = with_evaluation(json!({"comparison": loss})).await;
    let first = service.trigger("hook").await;
    let run = service.wait_for_test(&first).await;
    let shown = service.read(&format!("/v1/runs/{first}/evaluation")).await;
    assert!(shown["found"]["loss"]["candidate"].as_f64().unwrap() > 0.0, "{shown:#}");
    assert_eq!(shown["found"]["loss"].get("live"), None, "nobody here trained the first live model");
    assert_eq!(shown["found"]["loss"]["outcome"], "no_data");
    let version = run["version"].as_str().unwrap();
    let promote = format!("/v1/pipelines/hook/models/{version}/promote");
    service.post(&promote, json!({"reason": "to compare with", "force": true})).await.expect(200);
    service.wait_until(&first, "cancelled").await;

    // Far from what the simulator trains best with.
    let mut worse = config();
    worse["dataset"]["split"] = json!({"validation_share": 0.3});
    worse["evaluation"] = json!({"comparison": {"by": "loss", "maximum_increase": 0.05}});
    worse["training"]["learning_rate_multiplier"] = json!(30.0);
    service.put("/v1/pipelines/hook", &[], worse).await.expect(200);
    let second = service.trigger("hook").await;
    let run = service.wait_until(&second, "rejected").await;
    assert_eq!(run["reason_code"], "below_floor", "{run:#}");
    assert!(run["reason"].as_str().unwrap().contains("maximum_increase allows 0.05"), "{run:#}");
    service.end().await;
}

#[tokio::test]
async fn a_pipeline_learns_from_pairs_of_better_and_worse_answers() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["dataset"]["pairs"] = json!({"minimum_gap": 0.05});
            config["training"]["method"] = json!("preference");
            config["training"]["beta"] = json!(0.3);
        })
        .await;
    // Two answers to each of thirty prompts; those to the last ten are equally good.
    sqlx::raw_sql(
        "INSERT INTO posts (persona_id, original_input, hook, engagement_rate)
         SELECT 'persona-' || n, 'prompt ' || n, 'answer ' || half || ' to ' || n,
                CASE WHEN half = 1 OR n > 20 THEN 0.09 ELSE 0.02 END
           FROM generate_series(1, 30) AS n, generate_series(1, 2) AS half",
    )
    .execute(&service.db)
    .await
    .unwrap();
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    let counts = &run["dataset"]["counts"];
    assert_eq!(
        (&counts["posts"], &counts["examples"], &counts["unpaired"]),
        (&json!(60), &json!(20), &json!(20))
    );
    let job = &service.simulator.jobs()[0];
    let file = service.simulator.file_content(&job.training_file).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 20);
    for line in &lines {
        let prompt = line["input"]["messages"][0]["content"].as_str().unwrap();
        let number = prompt.rsplit(' ').next().unwrap();
        assert_eq!(line["preferred_output"][0]["content"], format!("answer 1 to {number}"));
        assert_eq!(line["non_preferred_output"][0]["content"], format!("answer 2 to {number}"));
    }
    let digest = run["dataset"]["digest"].as_str().unwrap();
    let shown = service.read(&format!("/v1/datasets/{digest}/examples?limit=3")).await;
    assert_eq!(shown["items"][0]["preferred_output"], lines[0]["preferred_output"]);
    assert_eq!(shown["items"][2]["non_preferred_output"], lines[2]["non_preferred_output"]);
    let report = service.read(&format!("/v1/runs/{id}/preflight")).await;
    assert_eq!((&report["method"], &report["fault_count"]), (&json!("preference"), &json!(0)));
    service.end().await;
}

#[tokio::test]
async fn what_cannot_be_compared_is_rejected_where_the_settings_say_so() {
    let service = with_evaluation(json!({"comparison": {"by": "loss", "no_data": "reject"}})).await;
    let id = service.trigger("hook").await;
    let run = service.wait_until(&id, "rejected").await;
    assert_eq!((&run["step"], &run["reason_code"]), (&json!("evaluate"), &json!("no_data")), "{run:#}");
    service.end().await;
}

#[tokio::test]
async fn answers_under_way_when_another_fails_are_kept_and_not_paid_for_again() {
    let service = with_evaluation(json!({"smoke": {"prompts": 4}})).await;
    let faults = json!({
        "scripts": [{"route": "complete", "faults": ["server_error", "late", "late", "late"]}], "late_seconds": 1,
    });
    service.simulator.set_faults(FaultPlan::parse(&faults.to_string()).unwrap());
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    assert_eq!(service.simulator.calls(Route::Complete), 5, "one was asked again");
    assert_eq!(run["cost"]["evaluation"][0]["calls"], 4, "{run:#}");
    service.end().await;
}
