//! What a test would take, from figures that are given and from what was observed.

use serde_json::{Value, json};

use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

const PLAN: &str = "/v1/pipelines/hook/plan";

async fn service(change: impl FnOnce(&mut Value)) -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", change).await;
    service
}

#[track_caller]
fn close(found: &Value, expected: f64, tolerance: f64) {
    let found = found.as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < tolerance, "{found} is not {expected}");
}

#[tokio::test]
async fn given_figures_make_the_plan_of_the_reference() {
    let service = service(|_| {}).await;
    let figures = json!({"mean": 0.06, "deviation": 0.045, "effect": 0.05, "candidate_weight": 1000,
                         "outcomes_per_day": 1000.0});
    let planned = service.post(PLAN, figures).await.expect(200);
    let input = json!({"variability": {"mean": 0.06, "deviation": 0.045, "intra_cluster": 0.0, "clusters": 0},
                       "method": "welch", "effect": 0.05, "alpha": 0.025, "power": 0.8, "candidate_share": 0.1,
                       "outcomes_per_day": 1000.0});
    assert_eq!(planned["input"], input);
    let plan = &planned["plan"];
    assert_eq!(plan["status"], "reachable");
    // By normal quantiles 1962.2 of the candidate; Student's ask for a few more.
    close(&plan["candidate_outcomes"], 1964.0, 2e-3);
    close(&plan["days"], plan["outcomes"].as_f64().unwrap() / 1000.0, 1e-3);
    // An hour is not enough for twenty days.
    assert_eq!(
        (&planned["horizon_days"], &planned["within_horizon"]),
        (&json!(3600.0 / 86_400.0), &json!(false))
    );
    assert_eq!(planned["best_split"]["candidate_weight"], 5000);
    close(&planned["best_split"]["needed"]["outcomes"], 4.0 * 1_962.219_934 * 0.9, 2e-3);
    service.end().await;
}

#[tokio::test]
async fn few_clusters_in_one_arm_each_make_a_plan_unreachable_and_it_says_what_can_be_found() {
    let service = service(|config| config["experiment"]["rules"]["assignment"] = json!("sticky")).await;
    let figures = json!({"mean": 0.06, "deviation": 0.045, "intra_cluster": 0.2, "clusters": 20,
                         "candidate_weight": 1000, "outcomes_per_day": 1e6});
    let planned = service.post(PLAN, figures).await.expect(200);
    assert_eq!((&planned["plan"]["status"], planned.get("history")), (&json!("unreachable"), None));
    assert_eq!(planned["within_horizon"], false);
    // Chance divides the clusters: 1/2 and 1/18 are on average 1 + 0.9/2 and 1 + 0.1/18 times as large. The quantiles of t with
    // one degree of freedom are tan(0.475π) and tan(0.3π).
    let error = 0.045 * (0.2 * (1.45 / 2.0 + (1.0 + 0.1 / 18.0) / 18.0_f64)).sqrt();
    let quantiles = (0.475 * std::f64::consts::PI).tan() + (0.3 * std::f64::consts::PI).tan();
    close(&planned["plan"]["smallest_effect"], error * quantiles / 0.06, 1e-9);
    service.end().await;
}

#[tokio::test]
async fn what_neither_history_nor_request_tells_is_named() {
    let service = service(|config| config["experiment"]["rules"]["assignment"] = json!("sticky")).await;
    let fields = |problem: Value| -> Vec<String> {
        let errors = problem["errors"].as_array().unwrap();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    };
    let refused = async |body: Value| fields(service.post(PLAN, body).await.problem(422, "invalid-request"));
    assert_eq!(refused(Value::Null).await, ["/mean", "/deviation"]);
    assert_eq!(refused(json!({"mean": 0.06, "deviation": 0.045, "clusters": 20})).await, ["/intra_cluster"]);
    assert_eq!(refused(json!({"mean": 0.06, "intra_cluster": 0.2})).await, ["/deviation", "/clusters"]);
    let senseless = json!({"mean": 0.0, "deviation": -1.0, "effect": 0.0, "power": 1.0, "alpha": 0.5,
                           "candidate_weight": 10_000, "intra_cluster": 1.5, "outcomes_per_day": -1.0, "clusters": 0});
    assert_eq!(refused(senseless).await.len(), 9);
    service.post("/v1/pipelines/none/plan", Value::Null).await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn without_an_experiment_the_live_versions_outcomes_tell() {
    let service = service(|_| {}).await;
    let assigned = service.assignment("hook", "u-0").await;
    let outcome = |unit: u32, rate: f64| {
        let unit = format!("u-{unit}");
        let mut outcome = service.outcome("hook", &unit, &unit, &assigned, rate);
        outcome.as_object_mut().unwrap().remove("persona");
        outcome
    };
    service
        .record(
            [0.02, 0.04, 0.06, 0.08].into_iter().zip(0..).map(|(rate, unit)| outcome(unit, rate)).collect(),
        )
        .await;
    // Two of them ten days ago, two the day before yesterday, and one too long ago.
    service.record(vec![outcome(9, 0.9)]).await;
    for (days, unit) in [(10, "u-0"), (10, "u-1"), (2, "u-2"), (2, "u-3"), (30, "u-9")] {
        for change in [
            "SELECT make_outcomes_partition(now() - make_interval(days => $1)) WHERE $2 <> ''",
            "UPDATE outcomes SET served_at = now() - make_interval(days => $1) WHERE unit = $2",
        ] {
            sqlx::query(change).bind(days).bind(unit).execute(&service.db).await.unwrap();
        }
    }
    let planned = service.post(PLAN, json!({"effect": 0.5})).await.expect(200);
    assert_eq!((&planned["history"], &planned["input"]["method"]), (&json!("outcomes"), &json!("welch")));
    close(&planned["input"]["variability"]["mean"], 0.05, 1e-9);
    close(&planned["input"]["variability"]["deviation"], (0.002_f64 / 3.0).sqrt(), 1e-9);
    close(&planned["input"]["outcomes_per_day"], 2.0 / 7.0, 1e-9);
    close(&planned["input"]["candidate_share"], 0.5, 1e-9);
    // Only what is left out is looked up.
    let planned =
        service.post(PLAN, json!({"effect": 0.5, "mean": 0.1, "outcomes_per_day": 9.0})).await.expect(200);
    let input = &planned["input"];
    assert_eq!((&input["variability"]["mean"], &input["outcomes_per_day"]), (&json!(0.1), &json!(9.0)));
    close(&input["variability"]["deviation"], (0.002_f64 / 3.0).sqrt(), 1e-9);
    service.end().await;
}

#[tokio::test]
async fn the_newest_experiment_tells_without_its_raw_outcomes() {
    let service = service(|config| config["experiment"]["interval_seconds"] = json!(3600.0)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let experiment = service.wait_for_test(&run).await["experiment_id"].clone();
    service.traffic("hook", 0..80, BETTER).await;
    let mean: f64 =
        sqlx::query_scalar("SELECT avg(engagement_rate) FROM outcomes").fetch_one(&service.db).await.unwrap();
    sqlx::query("DELETE FROM outcomes").execute(&service.db).await.unwrap();
    let planned = service.post(PLAN, Value::Null).await.expect(200);
    assert_eq!((&planned["history"], &planned["experiment_id"]), (&json!("experiment"), &experiment));
    let (input, known) = (&planned["input"], &planned["input"]["variability"]);
    close(&known["mean"], mean, 1e-9);
    assert_eq!((&known["clusters"], &input["method"]), (&json!(80), &json!("clustered_per_post")));
    // Most of the noise is that of the arms and from persona to persona.
    assert!(known["intra_cluster"].as_f64().unwrap() > 0.5, "{planned:#}");
    assert!(input["outcomes_per_day"].as_f64().unwrap() > 160.0, "{planned:#}");
    assert_eq!(
        (&input["effect"], &input["power"], &planned["plan"]["status"]),
        (&json!(0.05), &json!(0.8), &json!("reachable"))
    );
    // Nothing is known of a metric that no outcome has.
    service.post(PLAN, json!({"metric": "quality"})).await.problem(422, "invalid-request");
    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    service.end().await;
}

#[tokio::test]
async fn the_looks_of_a_test_are_planned_from_the_last_28_days() {
    let service = service(|config| {
        config["experiment"]["interval_seconds"] = json!(3600.0);
        config["experiment"]["horizon_seconds"] = json!(4.0 * 86_400.0);
    })
    .await;
    let assigned = service.assignment("hook", "u-0").await;
    let outcome = |number: u32, assigned: &Value| {
        let unit = format!("u-{number}");
        let rate = if number.is_multiple_of(2) { 0.04 } else { 0.06 };
        let mut outcome = service.outcome("hook", &unit, &unit, assigned, rate);
        outcome.as_object_mut().unwrap().remove("persona");
        outcome
    };
    service.record((0..200).map(|number| outcome(number, &assigned)).collect()).await;
    let moved = "UPDATE outcomes SET served_at = now() - interval '84 hours'";
    sqlx::query("SELECT make_outcomes_partition(now() - interval '84 hours')")
        .execute(&service.db)
        .await
        .unwrap();
    sqlx::query(moved).execute(&service.db).await.unwrap();

    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let id = service.wait_for_test(&run).await["experiment_id"].as_str().unwrap().to_owned();
    let mut served = Vec::new();
    for number in 200..220 {
        served.push(outcome(number, &service.assignment("hook", &format!("u-{number}")).await));
    }
    service.record(served).await;
    // Too few to be judged: what is planned is from before. 200 outcomes in 3.5 days make 114.3 an arm in four.
    let said =
        service.post(&format!("/v1/experiments/{id}/decide?dry_run=true"), Value::Null).await.expect(200);
    let look = &said["harm"][0];
    assert_eq!(look["enough"], false, "{said:#}");
    let variance = 200.0 * 0.0001 / 199.0;
    close(&look["planned_standard_error"], (variance * 2.0 / (200.0 / 3.5 * 2.0_f64)).sqrt(), 1e-4);
    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    service.end().await;
}
