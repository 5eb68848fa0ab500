//! Promotion by hand: safety checks, each shown with its result, and what may override them.

use serde_json::{Value, json};

use crate::harness::outcomes::{BETTER, WORSE};
use crate::harness::service::{TestService, config};

const SWITCH: &str = "/v1/pipelines/hook/kill-switch";

fn path(version: &str) -> String {
    format!("/v1/pipelines/hook/models/{version}/promote")
}

/// Names of the checks with this result.
fn with<'a>(answer: &'a Value, result: &str) -> Vec<&'a str> {
    let checks = answer["checks"].as_array().unwrap().iter();
    checks.filter(|check| check["result"] == result).map(|check| check["name"].as_str().unwrap()).collect()
}

async fn dry_run(service: &TestService, version: &str) -> Value {
    service.post(&path(version), json!({"dry_run": true})).await.expect(200)
}

async fn revision(service: &TestService) -> i64 {
    service.read("/v1/pipelines/hook/traffic").await["revision"].as_i64().unwrap()
}

/// A service with a candidate 1.0.0 that won its test, and was not promoted because its run was cancelled.
async fn with_winner() -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    service.traffic("hook", 0..80, BETTER).await;
    let switch = async |enabled: bool| {
        service.put(SWITCH, &[], json!({"enabled": enabled, "reason": "to look closer"})).await.expect(200);
    };
    switch(true).await;
    service.reach_horizon(&run).await;
    let waits = |run: &Value| run["step"] == "promote" && run["reason_code"] == "kill_switch";
    service.wait_for(&run, "waiting for the switch", waits).await;
    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    // A test that is cut short carries out no decision, not even the one that was taken.
    let ended = service.read("/v1/pipelines/hook/traffic").await;
    assert_eq!((&ended["kind"], ended.get("decision_id")), (&json!("test_ended"), None));
    switch(false).await;
    service
}

#[tokio::test]
async fn a_winner_is_promoted_without_force_and_its_revision_names_the_decision() {
    let service = with_winner().await;
    let before = revision(&service).await;
    let events = service.read("/v1/audit?limit=1").await["items"][0]["id"].clone();
    let dry = dry_run(&service, "1.0.0").await;
    assert_eq!(with(&dry, "passed").len(), 6, "{dry:#}");
    assert_eq!(
        (&dry["dry_run"], &dry["forced"], &dry["traffic"]["revision"]),
        (&json!(true), &json!(false), &json!(before))
    );
    assert_eq!(
        service.read("/v1/audit?limit=1").await["items"][0]["id"],
        events,
        "a dry run changes nothing"
    );

    // Force that overrides nothing is not kept as such.
    let answer = service.post(&path("1.0.0"), json!({"reason": "it won", "force": true})).await;
    assert_eq!(answer.header("etag"), format!("\"{}\"", before + 1));
    let promoted = answer.expect(200);
    assert_eq!((&promoted["forced"], &promoted["dry_run"]), (&json!(false), &json!(false)));
    let traffic = &promoted["traffic"];
    assert_eq!(
        (&traffic["live"], &traffic["kind"], &traffic["forced"]),
        (&json!("1.0.0"), &json!("promotion"), &json!(false))
    );
    let decision: String =
        sqlx::query_scalar("SELECT id::text FROM decisions").fetch_one(&service.db).await.unwrap();
    assert_eq!(traffic["decision_id"], decision);
    assert_eq!(traffic.get("experiment_id"), None, "a promotion by hand has no experiment to look at");
    assert_eq!(revision(&service).await, before + 1);
    service.post(&path("1.0.0"), json!({"reason": "again"})).await.problem(409, "already-live");
    service.end().await;
}

#[tokio::test]
async fn a_decision_that_is_too_old_or_about_another_version_is_no_decision() {
    let service = with_winner().await;
    let mut impatient = config();
    impatient["deployment"]["decision_max_age_seconds"] = json!(0.001);
    service.put("/v1/pipelines/hook", &[], impatient).await.expect(200);
    let old =
        service.post(&path("1.0.0"), json!({"reason": "it won"})).await.problem(409, "promotion-unsafe");
    assert_eq!(with(&old, "failed"), ["decision"]);
    assert!(
        old["detail"].as_str().unwrap().contains("`deployment.decision_max_age_seconds` allows"),
        "{old:#}"
    );
    service.put("/v1/pipelines/hook", &[], config()).await.expect(200);

    // Another version goes live in the meantime.
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
         VALUES (gen_random_uuid(), 'hook', 3, 0, 0, 'candidate', 'openai', 'gpt-4.1', 'gpt-4.1')",
    )
    .execute(&service.db)
    .await
    .unwrap();
    let by_hand =
        service.post(&path("3.0.0"), json!({"reason": "a larger one", "force": true})).await.expect(200);
    assert_eq!(with(&by_hand, "skipped"), ["decision"]);
    let overtaken = dry_run(&service, "1.0.0").await;
    assert_eq!(with(&overtaken, "failed"), ["decision"]);
    assert!(
        overtaken.to_string().contains("against another version than the one that is live"),
        "{overtaken:#}"
    );
    service.end().await;
}

#[tokio::test]
async fn a_version_in_test_is_promoted_only_by_force_which_is_told_for_ever() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let why = || json!({"reason": "agreed with marketing"});
    service.post(&path("0.0.0"), why()).await.problem(409, "already-live");
    service.post(&path("9.0.0"), why()).await.problem(404, "not-found");
    for body in [json!({"reason": ""}), json!({}), json!({"force": true})] {
        let refused = service.post(&path("1.0.0"), body).await.problem(422, "invalid-request");
        assert_eq!(refused["errors"][0]["field"], "/reason");
    }
    let live = dry_run(&service, "0.0.0").await;
    assert!(with(&live, "failed").contains(&"status"), "{live:#}");

    let refused = service.post(&path("1.0.0"), why()).await.problem(409, "promotion-unsafe");
    assert_eq!(with(&refused, "failed"), ["decision"]);
    assert!(refused["detail"].as_str().unwrap().contains("`\"force\": true` overrides this"), "{refused:#}");
    assert_eq!(revision(&service).await, 2);
    assert_eq!(service.run(&run).await["step"], "test", "nothing gave way");

    let forced = json!({"reason": "agreed with marketing", "force": true});
    let promoted = service.post(&path("1.0.0"), forced).await.expect(200);
    assert_eq!((&promoted["forced"], with(&promoted, "skipped")), (&json!(true), vec!["decision"]));
    assert_eq!(promoted["traffic"].get("decision_id"), None);
    assert_eq!(service.weights("hook").await, [("1.0.0".to_owned(), 10_000)]);
    assert_eq!(service.wait_until(&run, "cancelled").await["reason_code"], "test_aborted");
    let history = service.read("/v1/pipelines/hook/traffic/history").await;
    assert_eq!((&history["items"][0]["forced"], &history["items"][0]["revision"]), (&json!(true), &json!(3)));
    let trail = service.read("/v1/audit?subject_kind=model_version&subject_id=hook@1.0.0").await;
    assert_eq!(trail["items"][0]["action"], "model.force");
    assert_eq!(trail["items"][0]["after"]["skipped"][0]["name"], "decision");
    let trail = service.read("/v1/audit?subject_kind=pipeline&subject_id=hook").await;
    let promotion =
        trail["items"].as_array().unwrap().iter().find(|event| event["action"] == "traffic.promotion");
    assert_eq!(promotion.unwrap()["after"]["forced"], true);

    // What was rolled back comes back by force alone.
    service.post("/v1/pipelines/hook/rollback", json!({"reason": "a mistake"})).await.expect(200);
    let refused = service.post(&path("1.0.0"), why()).await.problem(409, "promotion-unsafe");
    assert_eq!(with(&refused, "failed"), ["status", "decision"]);
    let forced = json!({"reason": "it was not that", "force": true});
    let back = service.post(&path("1.0.0"), forced).await.expect(200);
    assert_eq!(
        (&back["traffic"]["live"], with(&back, "skipped")),
        (&json!("1.0.0"), vec!["status", "decision"])
    );
    service.end().await;
}

#[tokio::test]
async fn a_version_that_did_harm_says_so_and_a_run_that_proves_another_one_is_in_the_way() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    let harmful = service.trigger("hook").await;
    service.wait_for_test(&harmful).await;
    service.traffic("hook", 0..300, WORSE).await;
    service.wait_until(&harmful, "rejected").await;
    let other = service.trigger("hook").await;
    service.wait_for_test(&other).await;
    let found = dry_run(&service, "1.0.0").await;
    assert_eq!(with(&found, "failed"), ["status", "decision", "no_other_change", "no_harm"], "{found:#}");
    assert!(found.to_string().contains(&format!("Run {other} is testing another version")), "{found:#}");

    // A person may know better, and that is kept.
    let forced = json!({"reason": "the outcomes were of a broken import", "force": true});
    let promoted = service.post(&path("1.0.0"), forced).await.expect(200);
    assert_eq!(promoted["traffic"]["live"], "1.0.0");
    service.wait_until(&other, "cancelled").await;
    let versions = service.versions("hook").await;
    let expected = [("1.0.1", "candidate"), ("1.0.0", "live"), ("0.0.0", "retired")];
    assert_eq!(versions, expected.map(|(version, status)| (version.to_owned(), status.to_owned())));
    service.end().await;
}

#[tokio::test]
async fn a_look_that_shows_harm_counts_before_anybody_has_decided() {
    let service = with_winner().await;
    let look = json!([{
        "metric": "engagement", "counts": {"baseline": {"outcomes": 200, "clusters": 20}, "candidate": {"outcomes": 200, "clusters": 20}},
        "e_value": 100.0, "threshold": 100.0,
    }]);
    sqlx::query(
        "INSERT INTO experiment_looks (experiment_id, number, phase, looked_at, metrics)
         SELECT id, 1000, 'test', now(), $1 FROM experiments",
    )
    .bind(&look)
    .execute(&service.db)
    .await
    .unwrap();
    let found = dry_run(&service, "1.0.0").await;
    assert_eq!(with(&found, "failed"), ["no_harm"], "{found:#}");
    assert!(found.to_string().contains("shows harm to engagement"), "{found:#}");
    service.end().await;
}

#[tokio::test]
async fn a_model_that_is_not_there_cannot_be_forced_and_one_that_cannot_be_asked_for_can() {
    let service = with_winner().await;
    let set = async |column: &str, value: &str| {
        let query = format!("UPDATE model_versions SET {column} = '{value}' WHERE major = 1");
        sqlx::raw_sql(sqlx::AssertSqlSafe(query)).execute(&service.db).await.unwrap();
    };
    let id: String = sqlx::query_scalar("SELECT provider_model_id FROM model_versions WHERE major = 1")
        .fetch_one(&service.db)
        .await
        .unwrap();
    let forced = || json!({"reason": "we need it", "force": true});
    set("provider_model_id", "ft:gpt-4o-2024-08-06:gone::1").await;
    let missing = service.post(&path("1.0.0"), forced()).await.problem(409, "promotion-unsafe");
    assert_eq!(with(&missing, "failed"), ["model"]);
    assert!(!missing["detail"].as_str().unwrap().contains("force"), "{missing:#}");
    set("provider_model_id", &id).await;

    set("provider", "azure_openai").await;
    let unknown =
        service.post(&path("1.0.0"), json!({"reason": "we need it"})).await.problem(409, "promotion-unsafe");
    assert_eq!(with(&unknown, "failed"), ["model"]);
    assert!(unknown["detail"].as_str().unwrap().contains("AZURE_OPENAI_ENDPOINT"), "{unknown:#}");
    let promoted = service.post(&path("1.0.0"), forced()).await.expect(200);
    assert_eq!((with(&promoted, "skipped"), &promoted["forced"]), (vec!["model"], &json!(true)));
    // The decision is carried out all the same.
    assert!(promoted["traffic"]["decision_id"].is_string(), "{promoted:#}");
    service.end().await;
}

#[tokio::test]
async fn a_promotion_that_is_sent_again_is_answered_again_whatever_the_provider_says_by_now() {
    let service = with_winner().await;
    let before = revision(&service).await;
    let headers = [("idempotency-key", "k-1")];
    let body = || Some(json!({"reason": "it won"}));
    let path = path("1.0.0");
    let send = || service.send(reqwest::Method::POST, &path, &headers, body());
    let first = send().await.expect(200);
    sqlx::query("UPDATE model_versions SET provider_model_id = 'gone' WHERE major = 1")
        .execute(&service.db)
        .await
        .unwrap();
    let again = send().await;
    assert_eq!((again.header("idempotency-replayed"), &again.body), ("true", &first));
    assert_eq!(revision(&service).await, before + 1);
    service.end().await;
}
