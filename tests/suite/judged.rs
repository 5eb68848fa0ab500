//! Live outcomes that a judge scores: on a sample, within a budget, each once.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tuneloop::experiments::outcomes::{
    self, MOST_ATTEMPTS, Recomputed, Verdict, Work, expire_samples, recompute, sampled,
};
use tuneloop::jobs;
use tuneloop::simulator::FaultPlan;
use uuid::Uuid;

use crate::harness::service::{TestService, config};

const JUDGE: &str = "/v1/pipelines/hook/outcomes/judge";
/// In every text, so that the database can be searched for them.
const MARK: &str = "zanzibar";

/// A service whose pipeline has a test under way and this judge, and the test's experiment.
async fn in_test(judge: Value) -> (TestService, Uuid) {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["outcomes"] = json!({"judge": judge})).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let experiment = run["experiment_id"].as_str().unwrap().parse().unwrap();
    (service, experiment)
}

fn every_one(budget: u32) -> Value {
    json!({"model": "gpt-4o", "sample": 1, "budget_per_day": budget})
}

/// An outcome of each of so many units, with its text.
async fn with_texts(service: &TestService, count: u32) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for unit in 0..count {
        let id = format!("post-{unit}");
        let assigned = service.assignment("hook", &id).await;
        let mut outcome = service.outcome("hook", &id, &id, &assigned, 0.05);
        outcome["text"] = json!({"prompt": "Cats?", "answer": format!("{MARK} {id}.")});
        outcomes.push(outcome);
    }
    outcomes
}

/// Keeps the judge away from the texts that come from now on.
async fn hold(service: &TestService) {
    let hold = "ALTER TABLE outcome_samples ALTER COLUMN due_at SET DEFAULT 'infinity'";
    sqlx::query(hold).execute(&service.db).await.unwrap();
}

async fn release(service: &TestService) {
    sqlx::query("UPDATE outcome_samples SET due_at = now()").execute(&service.db).await.unwrap();
}

/// Has the judge look again at once.
async fn wake(service: &TestService) {
    let mut tx = service.db.begin().await.unwrap();
    jobs::wake(&mut tx, "outcome_judge", "hook").await.unwrap();
    tx.commit().await.unwrap();
}

/// Where the judge stands once `wanted` holds of it.
async fn judge(service: &TestService, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut state = Value::Null;
    for _ in 0..600 {
        state = service.read(JUDGE).await;
        if wanted(&state) {
            return state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never came: {state:#}");
}

/// How many outcomes of the experiment have a quality by its sums, and the sum of these.
async fn quality(service: &TestService, experiment: Uuid) -> (i64, f64) {
    let sums = "SELECT coalesce(sum(quality_n), 0)::bigint, coalesce(sum(quality_s), 0)::float8
                  FROM experiment_sums WHERE experiment_id = $1";
    sqlx::query_as(sums).bind(experiment).fetch_one(&service.db).await.unwrap()
}

/// The tables with a row that has this text anywhere.
async fn tables_with(service: &TestService, text: &str) -> Vec<String> {
    let tables = "SELECT quote_ident(relname) FROM pg_class
                   WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&service.db).await.unwrap();
    let mut found = Vec::new();
    for table in tables {
        let query = format!("SELECT EXISTS (SELECT FROM {table} t WHERE strpos(t::text, $1) > 0)");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(text);
        if query.fetch_one(&service.db).await.unwrap() {
            found.push(table);
        }
    }
    found
}

#[tokio::test]
async fn the_sample_of_both_arms_is_scored_into_the_sums_and_no_other_text_is_stored() {
    let judge_settings = json!({"model": "gpt-4o", "sample": 0.5, "budget_per_day": 1000});
    let (service, experiment) = in_test(judge_settings).await;
    hold(&service).await;
    let outcomes = with_texts(&service, 60).await;
    // The first ten have a score of the caller's, and one more without a text.
    let mut sent = outcomes.clone();
    for outcome in &mut sent[..10] {
        outcome["quality"] = json!(0.5);
    }
    sent[10].as_object_mut().unwrap().remove("text");
    let expected: BTreeSet<String> = sent[11..]
        .iter()
        .map(|outcome| outcome["id"].as_str().unwrap().to_owned())
        .filter(|id| sampled("hook", id, 0.5))
        .collect();
    let arms: BTreeSet<&str> = outcomes
        .iter()
        .filter(|outcome| expected.contains(outcome["id"].as_str().unwrap()))
        .map(|outcome| outcome["version"].as_str().unwrap())
        .collect();
    assert_eq!(arms.len(), 2, "both arms are in the sample");
    service.record(sent.clone()).await;
    // A repeat, even one that has another text, is not taken again.
    service.post("/v1/outcomes", json!([outcomes[10], outcomes[20]])).await.expect(200);
    for outcome in &outcomes {
        let (id, text) = (outcome["id"].as_str().unwrap(), outcome["text"]["answer"].as_str().unwrap());
        let kept: &[&str] = if expected.contains(id) { &["outcome_samples"] } else { &[] };
        assert_eq!(tables_with(&service, text).await, kept, "{id}");
    }
    assert_eq!(quality(&service, experiment).await.0, 10);

    release(&service).await;
    let scored = i64::try_from(expected.len()).unwrap();
    let state = judge(&service, |state| state["waiting"] == 0 && state["scored"] == scored).await;
    assert!(tables_with(&service, MARK).await.is_empty(), "what is scored is forgotten");
    let judged = "SELECT id FROM outcomes WHERE judged AND quality BETWEEN 0.25 AND 1";
    let judged: Vec<String> = sqlx::query_scalar(judged).fetch_all(&service.db).await.unwrap();
    assert_eq!(judged.into_iter().collect::<BTreeSet<_>>(), expected);
    let total: f64 =
        sqlx::query_scalar("SELECT sum(quality) FROM outcomes").fetch_one(&service.db).await.unwrap();
    let (n, sum) = quality(&service, experiment).await;
    assert_eq!(n, scored + 10);
    assert!((sum - total).abs() < 1e-9, "{sum} {total}");
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);

    // A token read costs a dollar, one written two; it is in the totals and in the month's budget.
    let usage = &state["usage"][0];
    let tokens = |what: &str| usage[what].as_f64().unwrap();
    let cost = tokens("prompt_tokens") + 2.0 * tokens("completion_tokens");
    assert_eq!((&usage["calls"], usage["cost"].as_f64()), (&json!(scored), Some(cost)), "{state}");
    let costs = service.read("/v1/costs?pipeline=hook").await;
    let priced = costs["items"].as_array().unwrap().iter().find(|item| item["currency"] == "USD").unwrap();
    let evaluations = "SELECT coalesce(sum(cost), 0)::float8 FROM evaluation_usage WHERE currency = 'USD'";
    let evaluations: f64 = sqlx::query_scalar(evaluations).fetch_one(&service.db).await.unwrap();
    assert_eq!(priced["evaluation_cost"].as_f64(), Some(cost + evaluations), "{costs}");
    service.end().await;
}

#[tokio::test]
async fn the_quality_of_the_caller_wins_before_during_and_after_the_judge() {
    let (service, experiment) = in_test(every_one(1000)).await;
    hold(&service).await;
    let replace = "/v1/outcomes?repeats=replace";
    let outcomes = with_texts(&service, 2).await;
    let told = |outcome: &Value, quality: Value, rate: f64| {
        let mut outcome = outcome.clone();
        outcome["quality"] = quality;
        outcome["engagement_rate"] = json!(rate);
        json!([outcome])
    };
    service.record(outcomes.clone()).await;
    // Before: what has a quality waits for none.
    service.post(replace, told(&outcomes[0], json!(0.125), 0.05)).await.expect(200);
    assert_eq!(service.read(JUDGE).await["waiting"], 1);

    // During: the answer of the judge is late.
    let late = json!({"scripts": [{"route": "complete", "faults": ["late"]}], "late_seconds": 3});
    service.simulator.set_faults(FaultPlan::parse(&late.to_string()).unwrap());
    release(&service).await;
    judge(&service, |state| state["asked_today"] == 1).await;
    service.post(replace, told(&outcomes[1], json!(0.25), 0.05)).await.expect(200);
    let state = judge(&service, |state| state["overtaken"] == 1).await;
    assert_eq!((&state["scored"], &state["waiting"]), (&json!(0), &json!(0)), "{state}");
    assert_eq!(quality(&service, experiment).await, (2, 0.375));

    // After: a rate that has grown leaves the judge's score, and a quality takes its place.
    let mut third = outcomes[0].clone();
    third["id"] = json!("third");
    service.record(vec![third.clone()]).await;
    release(&service).await;
    judge(&service, |state| state["scored"] == 1).await;
    let (n, with_score) = quality(&service, experiment).await;
    service.post(replace, told(&third, Value::Null, 0.5)).await.expect(200);
    assert_eq!(quality(&service, experiment).await, (n, with_score));
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    service.post(replace, told(&third, json!(0.5), 0.5)).await.expect(200);
    assert_eq!(quality(&service, experiment).await, (3, 0.875));
    service.post(replace, told(&third, Value::Null, 0.5)).await.expect(200);
    assert_eq!(quality(&service, experiment).await, (3, 0.875), "what is left out stays");
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    service.end().await;
}

#[tokio::test]
async fn the_judge_stops_at_the_days_and_at_the_months_budget_and_says_so() {
    let (service, experiment) = in_test(every_one(3)).await;
    service.record(with_texts(&service, 8).await).await;
    let state = judge(&service, |state| state["standstill"].is_string()).await;
    assert!(state["standstill"].as_str().unwrap().starts_with("the 3 questions of today"), "{state}");
    assert_eq!((&state["scored"], &state["waiting"]), (&json!(3), &json!(5)), "{state}");
    wake(&service).await;

    let mut changed = config();
    changed["outcomes"] = json!({"judge": every_one(5)});
    changed["budget"] = json!({"per_month": 0.5});
    service.put("/v1/pipelines/hook", &[("if-match", "*")], changed.clone()).await.expect(200);
    wake(&service).await;
    let month =
        |state: &Value| state["standstill"].as_str().is_some_and(|why| why.contains("budget.per_month"));
    let state = judge(&service, month).await;
    assert_eq!((&state["scored"], &state["asked_today"]), (&json!(3), &json!(3)), "{state}");

    changed["budget"] = json!({"per_month": 1e9});
    service.put("/v1/pipelines/hook", &[("if-match", "*")], changed).await.expect(200);
    wake(&service).await;
    let state = judge(&service, |state| state["scored"] == 5).await;
    assert_eq!((&state["waiting"], &state["usage"][0]["calls"]), (&json!(3), &json!(5)), "{state}");
    assert_eq!(quality(&service, experiment).await.0, 5);
    // The rest is deleted in time, and counted.
    assert_eq!(expire_samples(&service.db, chrono::TimeDelta::days(2)).await.unwrap(), 0);
    assert_eq!(expire_samples(&service.db, chrono::TimeDelta::zero()).await.unwrap(), 3);
    let state = service.read(JUDGE).await;
    assert_eq!((&state["expired"], &state["waiting"]), (&json!(3), &json!(0)), "{state}");
    assert!(state.get("standstill").is_none(), "{state}");
    service.end().await;
}

#[tokio::test]
async fn a_judge_that_fails_is_asked_again_and_given_up_after_the_last_attempt() {
    let (service, experiment) = in_test(every_one(1000)).await;
    hold(&service).await;
    service.record(with_texts(&service, 2).await).await;
    let attempts = "UPDATE outcome_samples SET attempts = $1 WHERE id = 'post-0'";
    sqlx::query(attempts).bind(MOST_ATTEMPTS - 1).execute(&service.db).await.unwrap();
    let broken = json!({"scripts": [{"route": "complete", "faults": ["server_error", "server_error"]}]});
    service.simulator.set_faults(FaultPlan::parse(&broken.to_string()).unwrap());
    release(&service).await;
    let state = judge(&service, |state| state["failed"] == 1).await;
    assert_eq!(
        (&state["scored"], &state["waiting"], &state["asked_today"]),
        (&json!(0), &json!(1), &json!(0))
    );
    assert!(state["standstill"].as_str().unwrap().contains("does not answer"), "{state}");
    let state = judge(&service, |state| state["scored"] == 1).await;
    assert!(state.get("standstill").is_none() && state["last_error"].is_string(), "{state}");
    assert_eq!(quality(&service, experiment).await.0, 1);
    service.end().await;
}

#[tokio::test]
async fn a_score_that_comes_twice_is_folded_once() {
    let (service, experiment) = in_test(every_one(1000)).await;
    hold(&service).await;
    service.record(with_texts(&service, 1).await).await;
    // Two workers have asked about the same text: the first was thought dead, and takes its time.
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut tx = service.db.begin().await.unwrap();
        sqlx::query("UPDATE outcome_samples SET due_at = now()").execute(&mut *tx).await.unwrap();
        let work = outcomes::take_samples(&mut tx, "hook", 1000, 16).await.unwrap();
        sqlx::query("UPDATE outcome_samples SET due_at = 'infinity'").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let Work::Some(mut texts) = work else { panic!("nothing is due") };
        taken.push((texts.pop().unwrap(), texts.len()));
    }
    for ((text, others), score) in taken.into_iter().zip([0.75, 0.5]) {
        assert_eq!(others, 0);
        let mut tx = service.db.begin().await.unwrap();
        outcomes::settle(&mut tx, "hook", vec![(text, Verdict::Score(score))], 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(quality(&service, experiment).await, (1, 0.75));
    }
    let state = service.read(JUDGE).await;
    assert_eq!((&state["scored"], &state["asked_today"]), (&json!(1), &json!(2)), "{state}");
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    service.end().await;
}

#[tokio::test]
async fn texts_are_pulled_with_their_outcomes_and_a_pull_that_reads_them_again_leaves_the_score() {
    let (service, experiment) = in_test(every_one(1000)).await;
    let mut changed = config();
    let query = "SELECT id, version, unit, served_at, rate AS engagement_rate,
                        jsonb_build_object('prompt', 'Cats?', 'answer', answer) AS text
                   FROM app_answers WHERE served_at >= :since AND served_at < :until";
    sqlx::query("CREATE TABLE app_answers (id text, version text, unit text, served_at timestamptz, rate float8, answer text)")
        .execute(&service.db)
        .await
        .unwrap();
    changed["outcomes"] = json!({"judge": every_one(1000), "pull": {"query": query, "interval_seconds": 0.2, "maturity_seconds": 0.5}});
    service.put("/v1/pipelines/hook", &[("if-match", "*")], changed).await.expect(200);
    let assigned = service.assignment("hook", "unit").await;
    sqlx::query("INSERT INTO app_answers VALUES ('a', $1, 'unit', now(), 0.25, 'Purr.')")
        .bind(assigned["version"].as_str().unwrap())
        .execute(&service.db)
        .await
        .unwrap();
    judge(&service, |state| state["scored"] == 1 && state["waiting"] == 0).await;
    let scored = quality(&service, experiment).await;
    assert_eq!(scored.0, 1);
    sqlx::query("UPDATE app_answers SET rate = 0.5").execute(&service.db).await.unwrap();
    let grown = "SELECT EXISTS (SELECT FROM outcomes WHERE engagement_rate = 0.5)";
    for attempt in 0.. {
        if sqlx::query_scalar(grown).fetch_one(&service.db).await.unwrap() {
            break;
        }
        assert!(attempt < 600, "the rate was not read again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(quality(&service, experiment).await, scored);
    let state = service.read(JUDGE).await;
    assert_eq!((&state["waiting"], &state["asked_today"]), (&json!(0), &json!(1)), "{state}");
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    service.end().await;
}

#[tokio::test]
async fn texts_and_judges_that_cannot_be_are_refused() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    let with = |id: &str, prompt: String, answer: String| {
        json!({"id": id, "pipeline": "hook", "version": "0.0.0", "unit": "u", "served_at": service.clock.now(),
               "text": {"prompt": prompt, "answer": answer}})
    };
    let batch = json!([
        with("long enough", "é".repeat(20_000), "é".repeat(20_000)),
        with("too long", "é".repeat(20_001), "a".into()),
        with("empty", "Cats?".into(), String::new()),
        with("nul", "Cats?".into(), "a\0b".into()),
    ]);
    let recorded = service.post("/v1/outcomes", batch).await.expect(200);
    let reason = |at: usize| recorded["rejected"][at]["reason"].as_str().unwrap();
    assert_eq!(recorded["accepted"], 1, "{recorded}");
    assert!(reason(0).starts_with("text.prompt must have up to 20000 characters"), "{recorded}");
    assert!(reason(1).starts_with("text.answer is empty") && reason(2).starts_with("text.answer must"));
    for (field, value) in
        [("sample", json!(0)), ("sample", json!(1.5)), ("budget_per_day", json!(0)), ("model", json!(" "))]
    {
        let mut config = config();
        let mut judge = every_one(1);
        judge[field] = value;
        config["outcomes"] = json!({"judge": judge});
        let problem = service.put("/v1/pipelines/other", &[], config).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["field"], format!("/outcomes/judge/{field}"), "{problem}");
    }
    service.get("/v1/pipelines/nowhere/outcomes/judge").await.problem(404, "not-found");
    service.end().await;
}
