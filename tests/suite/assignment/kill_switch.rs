//! The kill switch while runs prove their models, and what it restores.

use serde_json::{Value, json};
use tuneloop::api::auth::Role;

use super::{in_test, is_analysed, trail};
use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;

const SWITCH: &str = "/v1/pipelines/hook/kill-switch";
const TRAFFIC: &str = "/v1/pipelines/hook/traffic";

async fn switch(service: &TestService, enabled: bool) -> Value {
    service.put(SWITCH, &[], json!({"enabled": enabled, "reason": "nonsense"})).await.expect(200)
}

fn weights(weights: &Value) -> Vec<(String, i64)> {
    let weight =
        |share: &Value| (share["version"].as_str().unwrap().to_owned(), share["weight"].as_i64().unwrap());
    weights.as_array().map(|weights| weights.iter().map(weight).collect()).unwrap_or_default()
}

fn shares<const N: usize>(shares: [(&str, i64); N]) -> Vec<(String, i64)> {
    shares.map(|(version, weight)| (version.to_owned(), weight)).into()
}

#[tokio::test]
async fn during_a_test_everything_goes_to_the_baseline_and_back_and_nothing_of_it_is_analysed() {
    let (service, run) = in_test(9000).await;
    let before = service.read(TRAFFIC).await;
    let unit = "persona-1";
    let first = service.assignment("hook", unit).await;
    service
        .put("/v1/pipelines/hook/pins/us", &[], json!({"version": "1.0.0", "reason": "us"}))
        .await
        .expect(200);

    let viewer = service.client_as(Role::Viewer).await;
    let body = json!({"enabled": true, "reason": "nonsense"});
    viewer.put(SWITCH, &[], body.clone()).await.problem(403, "forbidden");
    service.put(SWITCH, &[("if-match", "\"1\"")], body.clone()).await.problem(412, "version-changed");
    service.put(SWITCH, &[], json!({"enabled": true})).await.problem(422, "invalid-request");
    service.put("/v1/pipelines/tail/kill-switch", &[], body.clone()).await.problem(404, "not-found");
    let headers = [("if-match", "\"2\""), ("idempotency-key", "k-1")];
    let on = service.put(SWITCH, &headers, body.clone()).await;
    assert_eq!(on.header("etag"), "\"3\"");
    let on = on.expect(200);
    let repeated = service.put(SWITCH, &headers, body).await;
    assert_eq!((repeated.header("idempotency-replayed"), &repeated.body), ("true", &on));
    assert_eq!(switch(&service, true).await, on, "it is on already");
    assert_eq!((&on["kind"], &on["kill_switch"]), (&json!("kill_switch_on"), &json!(true)));
    assert_eq!((&on["salt"], &on["experiment_id"]), (&before["salt"], &before["experiment_id"]));
    assert_eq!(weights(&on["weights"]), shares([("0.0.0", 10_000)]));
    assert_eq!(on["withheld"], before["weights"]);

    for unit in [unit, "us", "persona-2", "persona-3"] {
        let assigned = service.assignment("hook", unit).await;
        assert_eq!((&assigned["version"], &assigned["reason"]), (&json!("0.0.0"), &json!("kill_switch")));
        assert_eq!((&assigned["arm"], &assigned["pinned"]), (&Value::Null, &json!(false)), "{assigned}");
    }
    let killed = service.assignment("hook", unit).await;
    let mut by_time = service.outcome("hook", "by-time", unit, &killed, 0.1);
    by_time.as_object_mut().unwrap().remove("revision");
    service.record(vec![service.outcome("hook", "killed", unit, &killed, 0.1), by_time]).await;
    assert!(!is_analysed(&service, "killed").await && !is_analysed(&service, "by-time").await);
    assert_eq!(service.run(&run).await["step"], "test", "the test goes on");

    let off = switch(&service, false).await;
    assert_eq!((&off["revision"], &off["kind"]), (&json!(4), &json!("kill_switch_off")));
    assert_eq!(off["weights"], before["weights"]);
    assert_eq!((&off["salt"], off.get("withheld")), (&before["salt"], None));
    let after = service.assignment("hook", unit).await;
    assert_eq!((&after["version"], &after["arm"]), (&first["version"], &first["arm"]));
    service.record(vec![service.outcome("hook", "after", unit, &after, 0.1)]).await;
    assert!(is_analysed(&service, "after").await);
    let trail = trail(&service).await;
    let actions: Vec<_> = trail.iter().map(|event| &event["action"]).collect();
    assert_eq!(actions[..2], ["traffic.kill_switch_off", "traffic.kill_switch_on"]);
    assert_eq!(trail[1]["after"]["withheld"], json!({"1.0.0": 9000, "0.0.0": 1000}));
    service.end().await;
}

#[tokio::test]
async fn a_split_set_meanwhile_is_what_is_restored_without_what_cannot_serve() {
    let (service, _) = in_test(1000).await;
    switch(&service, true).await;
    let split = json!({"weights": {"1.0.0": 4000, "0.0.0": 6000}, "reason": "afterwards"});
    let set = service.put(TRAFFIC, &[("if-match", "\"3\"")], split).await.expect(200);
    assert_eq!(weights(&set["weights"]), shares([("0.0.0", 10_000)]));
    assert_eq!(weights(&set["withheld"]), shares([("1.0.0", 4000), ("0.0.0", 6000)]));
    assert_eq!(
        weights(&switch(&service, false).await["weights"]),
        shares([("1.0.0", 4000), ("0.0.0", 6000)])
    );
    switch(&service, true).await;
    sqlx::query("UPDATE model_versions SET status = 'unavailable' WHERE major = 1")
        .execute(&service.db)
        .await
        .unwrap();
    assert_eq!(weights(&switch(&service, false).await["weights"]), shares([("0.0.0", 10_000)]));
    service.end().await;
}

#[tokio::test]
async fn a_test_that_ends_under_it_restores_the_baseline_alone() {
    let (service, run) = in_test(1000).await;
    switch(&service, true).await;
    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    let ended = service.read(TRAFFIC).await;
    assert_eq!((&ended["kind"], &ended["kill_switch"]), (&json!("test_ended"), &json!(true)));
    assert_eq!(weights(&ended["withheld"]), shares([("0.0.0", 10_000)]));
    let off = switch(&service, false).await;
    assert_eq!(weights(&off["weights"]), shares([("0.0.0", 10_000)]));
    assert_eq!((&off["salt"], off.get("experiment_id")), (&json!("hook"), None));
    service.end().await;
}

#[tokio::test]
async fn neither_a_test_begins_nor_a_run_promotes_until_it_is_off() {
    let service = TestService::start().await;
    service
        .pipeline("hook", |config| {
            config["watch"] =
                json!({"duration_seconds": 3600.0, "interval_seconds": 0.25, "hold_back_weight": 1000});
            // Whatever wakes the run, it is not its own next look.
            config["experiment"]["interval_seconds"] = json!(600.0);
        })
        .await;
    service.posts(12, 0.08).await;
    switch(&service, true).await;
    let run = service.trigger("hook").await;
    let waits = |run: &Value| run["reason_code"] == "kill_switch";
    assert_eq!(service.wait_for(&run, "waiting for the switch", waits).await["step"], "test");
    assert_eq!(service.read(TRAFFIC).await["revision"], 2);
    switch(&service, false).await;
    service.wait_for_test(&run).await;

    service.traffic("hook", 0..80, BETTER).await;
    switch(&service, true).await;
    service.reach_horizon(&run).await;
    assert_eq!(service.wait_for(&run, "waiting for the switch", waits).await["step"], "promote");
    assert_eq!(service.versions("hook").await[0].1, "testing");
    assert_eq!(service.weights("hook").await, shares([("0.0.0", 10_000)]));
    switch(&service, false).await;
    service.wait_for_watch(&run).await;
    assert_eq!(service.weights("hook").await, shares([("1.0.0", 9000), ("0.0.0", 1000)]));

    // In the watch: the promoted version serves everything, until it is rolled back.
    let on = switch(&service, true).await;
    assert_eq!(weights(&on["weights"]), shares([("1.0.0", 10_000)]));
    let back = service.post("/v1/pipelines/hook/rollback", json!({"reason": "nonsense"})).await.expect(200);
    assert_eq!(weights(&back["weights"]), shares([("0.0.0", 10_000)]));
    assert_eq!(weights(&back["withheld"]), shares([("0.0.0", 10_000)]));
    assert_eq!((&back["kind"], &back["kill_switch"]), (&json!("rollback"), &json!(true)));
    service.wait_until(&run, "rolled_back").await;
    assert_eq!(weights(&switch(&service, false).await["weights"]), shares([("0.0.0", 10_000)]));
    service.end().await;
}

#[tokio::test]
async fn a_promotion_by_an_operator_waits_for_its_end_forced_or_not() {
    let (service, run) = in_test(1000).await;
    switch(&service, true).await;
    let promote = "/v1/pipelines/hook/models/1.0.0/promote";
    let body = json!({"reason": "it is the better one", "force": true});
    let refused = service.post(promote, body.clone()).await.problem(409, "promotion-unsafe");
    let failed = refused["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "failed");
    let failed: Vec<_> = failed.map(|check| (&check["name"], &check["can_be_forced"])).collect();
    assert_eq!(failed, [(&json!("kill_switch"), &json!(false))]);
    assert_eq!(service.run(&run).await["step"], "test", "nothing gave way");
    switch(&service, false).await;
    service.post(promote, body).await.expect(200);
    service.wait_until(&run, "cancelled").await;
    assert_eq!(service.weights("hook").await, shares([("1.0.0", 10_000)]));
    service.end().await;
}
