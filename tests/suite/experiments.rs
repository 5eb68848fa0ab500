//! What an experiment shows of itself, and what it can be checked by.

use serde_json::{Value, json};
use tuneloop::experiments::{self, decision::Record};
use uuid::Uuid;

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

/// A service with a run of `hook` in test, which looks at its outcomes each `interval` seconds.
async fn in_test(interval: f64, change: impl FnOnce(&mut Value)) -> (TestService, String, String) {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["experiment"]["interval_seconds"] = json!(interval);
            change(config);
        })
        .await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let experiment = service.wait_for_test(&run).await["experiment_id"].as_str().unwrap().to_owned();
    (service, run, experiment)
}

fn both(arms: &Value) -> u64 {
    arms["baseline"].as_u64().unwrap() + arms["candidate"].as_u64().unwrap()
}

#[tokio::test]
async fn a_running_experiment_shows_its_epochs_its_power_and_the_days_left() {
    let (service, run, id) = in_test(3600.0, |_| {}).await;
    let path = format!("/v1/experiments/{id}");
    let empty = service.read(&path).await;
    assert_eq!((&empty["so_far"]["verdict"], empty.get("progress")), (&json!("collecting"), None));

    service.traffic("hook", 0..60, BETTER).await;
    let weights = json!({"weights": {"1.0.0": 2000, "0.0.0": 8000}, "reason": "less of it"});
    service.put("/v1/pipelines/hook/traffic", &[("if-match", "*")], weights).await.expect(200);
    service.traffic("hook", 60..80, BETTER).await;

    let shown = service.read(&path).await;
    let epochs = shown["epochs"].as_array().unwrap();
    let seen: Vec<_> = epochs
        .iter()
        .map(|epoch| {
            (epoch["weights"]["candidate"].as_u64(), both(&epoch["outcomes"]), both(&epoch["units"]))
        })
        .collect();
    assert_eq!(seen, [(Some(5000), 120, 60), (Some(2000), 40, 20)], "{shown:#}");
    assert_eq!(epochs[0]["ended_at"], epochs[1]["started_at"]);
    assert!(epochs.iter().all(|epoch| epoch["phase"] == "test") && epochs[1].get("ended_at").is_none());
    let so_far = &shown["so_far"];
    for figure in ["estimate", "sequence", "sample_ratio", "harm", "guardrails"] {
        assert!(so_far.get(figure).is_some(), "{figure}: {so_far:#}");
    }

    let progress = &shown["progress"];
    let input = &progress["input"];
    assert_eq!((&input["effect"], &input["candidate_share"]), (&json!(0.05), &json!(0.2)), "{progress:#}");
    assert_eq!(
        (&input["method"], &input["variability"]["clusters"]),
        (&json!("clustered_per_post"), &json!(80))
    );
    let power = progress["power"].as_f64().unwrap();
    assert!(power > 0.0 && power < 1.0, "{progress:#}");
    // 160 outcomes arrived within seconds: what is missing arrives before long.
    let days_left = progress["days_left"].as_f64().unwrap();
    assert!(days_left < 0.1, "{progress:#}");
    assert_eq!(days_left > 0.0, power < 0.8, "{progress:#}");

    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    assert_eq!(service.read(&path).await["epochs"].as_array().unwrap().len(), 2);
    service.end().await;
}

#[tokio::test]
async fn a_dry_run_freezes_nothing_and_spends_nothing() {
    let (service, run, id) = in_test(3600.0, |config| {
        config["experiment"]["rules"]["early_promotion"] = json!({"looks": 5});
    })
    .await;
    service.traffic("hook", 0..80, BETTER).await;
    // An early look is due.
    let begun = "UPDATE experiments SET started_at = now() - interval '30 minutes', horizon_at = now() + interval '30 minutes'";
    sqlx::query(begun).execute(&service.db).await.unwrap();
    let all = "SELECT jsonb_build_array(
                   (SELECT jsonb_agg(e) FROM experiments e), (SELECT jsonb_agg(l) FROM experiment_looks l),
                   (SELECT jsonb_agg(d) FROM decisions d), (SELECT jsonb_agg(r) FROM runs r),
                   (SELECT count(*) FROM audit_events), (SELECT count(*) FROM traffic_revisions))";
    let before: Value = sqlx::query_scalar(all).fetch_one(&service.db).await.unwrap();
    let dry_run = format!("/v1/experiments/{id}/decide?dry_run=true");
    let said = service.post(&dry_run, Value::Null).await.expect(200);
    assert!(said.get("early_look").is_some(), "a look that would spend: {said:#}");
    assert!(said["planned_standard_errors"]["engagement"].is_f64(), "one that would freeze: {said:#}");
    service.read(&format!("/v1/experiments/{id}")).await;
    let again = service.post(&dry_run, Value::Null).await.expect(200);
    assert_eq!(again["early_look"]["information"], said["early_look"]["information"]);
    let after: Value = sqlx::query_scalar(all).fetch_one(&service.db).await.unwrap();
    assert_eq!(after, before);
    let for_real = format!("/v1/experiments/{id}/decide?dry_run=false");
    service.post(&for_real, Value::Null).await.problem(422, "invalid-request");
    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    service.end().await;
}

#[tokio::test]
async fn a_decision_read_back_from_the_database_is_decided_again_with_the_same_digest() {
    let (service, run, id) = in_test(3600.0, |_| {}).await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_until(&run, "succeeded").await;
    let stored = experiments::decision_of(&service.db, id.parse().unwrap()).await.unwrap().unwrap();
    let record = &stored.record;
    assert_eq!(record.redecide(), record.decision);
    let again = Record::decide(record.rules.clone(), record.evidence.clone());
    assert_eq!(&again, record);
    assert_eq!(
        (again.digest().unwrap(), record.digest().unwrap()),
        (stored.digest.clone(), stored.digest.clone())
    );

    let shown = service.read(&format!("/v1/experiments/{id}")).await;
    assert_eq!(
        (&shown["decision"]["verdict"], &shown["decision_digest"]),
        (&json!("promote"), &json!(stored.digest))
    );
    let power = shown["progress"]["power"].as_f64().unwrap();
    assert!(power > 0.0 && power <= 1.0, "what was known at the decision: {shown:#}");
    let phases: Vec<_> = shown["epochs"].as_array().unwrap().iter().map(|epoch| &epoch["phase"]).collect();
    assert_eq!(phases, ["test", "watch"]);

    // Another rate in the evidence, and the record gives itself away.
    let mut forged = record.clone();
    let observed = forged.evidence.metrics.values_mut().find(|observed| !observed.cells.is_empty()).unwrap();
    observed.cells[0].numerator += 1e-9;
    assert_ne!(forged.redecide(), forged.decision);
    assert_ne!(forged.digest().unwrap(), stored.digest);
    service.end().await;
}

#[tokio::test]
async fn the_series_shows_the_looks_of_the_test_and_of_the_watch_a_page_at_a_time() {
    let (service, run, id) = in_test(0.25, |config| {
        config["watch"] =
            json!({"duration_seconds": 3600.0, "interval_seconds": 0.25, "hold_back_weight": 5000});
    })
    .await;
    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&run).await;
    service.wait_for_watch(&run).await;
    service.traffic("hook", 0..80, crate::harness::outcomes::WORSE).await;
    service.wait_until(&run, "rolled_back").await;

    let path = format!("/v1/experiments/{id}/series");
    let whole = service.read(&path).await;
    let looks = whole["items"].as_array().unwrap();
    assert!(whole.get("next_cursor").is_none());
    assert!(
        looks.iter().map(|look| look["number"].as_u64().unwrap()).eq(1..=looks.len() as u64),
        "{whole:#}"
    );
    let times: Vec<_> = looks.iter().map(|look| look["looked_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(!whole.to_string().contains("null"), "what is not known is absent: {whole:#}");

    let of = |phase: &str| looks.iter().rfind(|look| look["phase"] == phase).unwrap();
    let decided = &service.read(&format!("/v1/experiments/{id}")).await["decision"];
    let last = &of("test")["metrics"][0];
    assert_eq!((&last["metric"], both_outcomes(last)), (&json!("engagement"), 160));
    for figure in ["difference", "relative", "standard_error"] {
        assert_eq!(last[figure], decided["estimate"][figure], "{figure}");
    }
    assert_eq!(last["sequence"], decided["sequence"]["interval"]);
    assert_eq!(last["e_value"], decided["harm"][0]["e_value"]);
    let harm = &of("watch")["metrics"][0];
    assert_eq!(both_outcomes(harm), 160);
    assert!(harm["e_value"].as_f64() >= harm["threshold"].as_f64(), "{harm:#}");
    assert!(harm["sequence"]["upper"].as_f64().unwrap() < 0.0, "{harm:#}");

    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.read(&format!("{path}?limit=1{cursor}")).await;
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page.get("next_cursor") else { break };
        cursor = format!("&cursor={}", next.as_str().unwrap());
    }
    assert_eq!(&paged, looks);
    service.get(&format!("/v1/experiments/{}/series", Uuid::nil())).await.problem(404, "not-found");
    service.end().await;
}

fn both_outcomes(look: &Value) -> u64 {
    look["counts"]["baseline"]["outcomes"].as_u64().unwrap()
        + look["counts"]["candidate"]["outcomes"].as_u64().unwrap()
}
