//! The history of traffic: what was live at a time, what changed, and that nobody can alter it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::harness::service::TestService;

const TRAFFIC: &str = "/v1/pipelines/hook/traffic";

/// A service with three revisions: created, everything to the live version under the kill switch, and back.
async fn switched() -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    for enabled in [true, false] {
        let body = json!({"enabled": enabled, "reason": "an incident"});
        service.put("/v1/pipelines/hook/kill-switch", &[], body).await.expect(200);
    }
    service
}

#[tokio::test]
async fn a_revision_is_in_force_from_its_moment_until_that_of_the_next() {
    let service = switched().await;
    let history = service.read(&format!("{TRAFFIC}/history")).await;
    let revisions = history["items"].as_array().unwrap();
    let moment =
        |revision: &Value| -> DateTime<Utc> { revision["created_at"].as_str().unwrap().parse().unwrap() };
    let at = async |time: DateTime<Utc>| {
        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        service.get(&format!("{TRAFFIC}/history?at={time}")).await
    };
    assert_eq!(revisions.len(), 3);
    for (index, revision) in revisions.iter().enumerate() {
        let exactly = at(moment(revision)).await.expect(200);
        assert_eq!(exactly["items"], json!([revision]));
        let before = at(moment(revision) - TimeDelta::microseconds(1)).await;
        match revisions.get(index + 1) {
            Some(former) => assert_eq!(before.expect(200)["items"], json!([former])),
            None => drop(before.problem(404, "not-found")),
        }
    }
    service.get("/v1/pipelines/tail/traffic/history?at=2013-01-01T00:00:00Z").await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn a_diff_tells_what_changed_as_a_whole_and_by_whom() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["experiment"]["candidate_weight"] = json!(1000)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let split = json!({"weights": {"1.0.0": 2000, "0.0.0": 8000}, "reason": "faster"});
    service.put(TRAFFIC, &[("if-match", "\"2\"")], split).await.expect(200);
    let forced = json!({"reason": "by hand", "force": true});
    service.post("/v1/pipelines/hook/models/1.0.0/promote", forced).await.expect(200);
    service.wait_until(&run, "cancelled").await;

    let diff = async |from: i64, to: i64| service.get(&format!("{TRAFFIC}/diff?from={from}&to={to}")).await;
    let step = diff(2, 3).await.expect(200);
    let weights = json!([{"version": "1.0.0", "before": 1000, "after": 2000}, {"version": "0.0.0", "before": 9000, "after": 8000}]);
    assert_eq!(step["weights"], weights);
    for absent in ["live", "salt", "experiment_id", "kill_switch"] {
        assert_eq!(step.get(absent), None, "{step:#}");
    }
    let whole = diff(1, 4).await.expect(200);
    assert_eq!(whole["live"], json!({"before": "0.0.0", "after": "1.0.0"}));
    assert_eq!(
        (whole.get("salt"), whole.get("experiment_id")),
        (None, None),
        "it began and ended in between"
    );
    let experiment = service.run(&run).await["experiment_id"].clone();
    let started = diff(1, 2).await.expect(200);
    assert_eq!(started["experiment_id"], json!({"after": experiment}));
    assert_eq!(started["salt"], json!({"before": "hook", "after": experiment}));
    let told = |change: &Value| {
        let text = |field: &str| change[field].as_str().unwrap().to_owned();
        (
            change["revision"].as_i64().unwrap(),
            text("kind"),
            text("actor"),
            change["forced"].as_bool().unwrap(),
        )
    };
    let changes: Vec<_> = whole["changes"].as_array().unwrap().iter().map(told).collect();
    let expected = [
        (2, "test_started", "worker", false),
        (3, "split", "key:admin", false),
        (4, "promotion", "key:admin", true),
    ];
    assert_eq!(
        changes,
        expected.map(|(n, kind, actor, forced)| (n, kind.to_owned(), actor.to_owned(), forced))
    );
    assert_eq!(whole["changes"][1]["reason"], "faster");

    diff(1, 5).await.problem(404, "not-found");
    diff(0, 1).await.problem(404, "not-found");
    for (from, to) in [(2, 2), (3, 1)] {
        diff(from, to).await.problem(422, "invalid-request");
    }
    service.get(&format!("{TRAFFIC}/diff?from=1")).await.problem(422, "invalid-request");
    service.get("/v1/pipelines/tail/traffic/diff?from=1&to=2").await.problem(404, "not-found");
    service.end().await;
}

#[tokio::test]
async fn the_database_refuses_to_alter_the_history() {
    let service = switched().await;
    let before = service.read(&format!("{TRAFFIC}/history")).await;
    for change in [
        "UPDATE traffic_revisions SET reason = 'another' WHERE revision = 1",
        "UPDATE traffic_revisions SET forced = NOT forced",
        "DELETE FROM traffic_revisions WHERE revision = 3",
        "TRUNCATE traffic_revisions CASCADE",
        "UPDATE traffic_weights SET weight = 9999 WHERE revision = 1",
        "DELETE FROM traffic_weights",
        "TRUNCATE traffic_weights",
        "UPDATE traffic_withheld SET weight = 9999",
        "DELETE FROM traffic_withheld",
        "TRUNCATE traffic_withheld",
        "TRUNCATE decisions CASCADE",
    ] {
        let refused = sqlx::raw_sql(change).execute(&service.db).await.expect_err(change);
        let refused = refused.as_database_error().expect("is refused by the database").to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    // Nor can a version be added to what served.
    let late = "INSERT INTO traffic_weights (pipeline, revision, position, model_version_id, weight)
                SELECT 'hook', 1, 1, id, 1 FROM (INSERT_VERSION) v";
    let version = "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
                   VALUES (gen_random_uuid(), 'hook', 9, 0, 0, 'candidate', 'openai', 'm', 'b') RETURNING id";
    let late = format!("WITH v AS ({version}) {}", late.replace("(INSERT_VERSION) v", "v"));
    let refused =
        sqlx::raw_sql(sqlx::AssertSqlSafe(late)).execute(&service.db).await.expect_err("a late weight");
    assert!(refused.to_string().contains("sum to 10001"), "{refused}");
    assert_eq!(service.read(&format!("{TRAFFIC}/history")).await, before);
    service.end().await;
}
