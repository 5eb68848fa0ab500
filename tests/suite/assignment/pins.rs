//! Units that are pinned to a version.

use reqwest::Method;
use serde_json::{Value, json};
use tuneloop::api::auth::Role;

use super::{in_test, is_analysed, trail};
use crate::harness::service::TestService;

const PINS: &str = "/v1/pipelines/hook/pins";

fn to(version: &str) -> Value {
    json!({"version": version, "reason": "our own account"})
}

async fn delete(service: &TestService, unit: &str) -> crate::harness::client::Answer {
    service.send(Method::DELETE, &format!("{PINS}/{unit}?reason=enough"), &[], None).await
}

/// The assignment of `unit` once it is by this reason.
async fn assigned_by(service: &TestService, unit: &str, reason: &str) -> Value {
    for _ in 0..1000 {
        let assigned = service.assignment("hook", unit).await;
        if assigned["reason"] == reason {
            return assigned;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{unit} is never assigned by {reason}");
}

#[tokio::test]
async fn a_pinned_unit_gets_its_version_whatever_the_split_and_is_not_analysed() {
    let (service, run) = in_test(1).await;
    let before = service.assignment("hook", "us").await;
    assert_eq!((&before["version"], &before["arm"]), (&json!("0.0.0"), &json!("baseline")));
    service.record(vec![service.outcome("hook", "before", "us", &before, 0.1)]).await;

    let pinned = service.put(&format!("{PINS}/us"), &[], to("1.0.0")).await.expect(200);
    assert_eq!((&pinned["in_effect"], &pinned["version_status"]), (&json!(true), &json!("testing")));
    let assigned = assigned_by(&service, "us", "pin").await;
    assert_eq!((&assigned["version"], &assigned["pinned"]), (&json!("1.0.0"), &json!(true)));
    assert_eq!((&assigned["arm"], &assigned["experiment_id"]), (&Value::Null, &Value::Null));
    assert_eq!(service.assignment("hook", "others").await["version"], "0.0.0");
    service.record(vec![service.outcome("hook", "pinned", "us", &assigned, 0.1)]).await;

    delete(&service, "us").await.expect(204);
    delete(&service, "us").await.problem(404, "not-found");
    assigned_by(&service, "us", "split").await;
    // Heard of late, this may still have been served by the pin.
    service.record(vec![service.outcome("hook", "after", "us", &before, 0.1)]).await;
    let mut later = service.outcome("hook", "later", "us", &before, 0.1);
    later["served_at"] = json!(service.clock.now() + chrono::TimeDelta::seconds(11));
    service.record(vec![later]).await;
    let mut analysed = Vec::new();
    for outcome in ["before", "pinned", "after", "later"] {
        analysed.push(is_analysed(&service, outcome).await);
    }
    assert_eq!(analysed, [true, false, false, true]);
    let actions: Vec<_> = trail(&service).await.into_iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions[..2], ["traffic.unpin", "traffic.pin"]);
    assert_eq!(trail(&service).await[0]["reason"], "enough");

    service.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&run, "cancelled").await;
    service.end().await;
}

#[tokio::test]
async fn a_pin_to_a_version_that_cannot_serve_is_refused_or_loses_its_effect() {
    let (service, _) = in_test(1000).await;
    service.put(&format!("{PINS}/us"), &[], to("1.0.0")).await.expect(200);
    assigned_by(&service, "us", "pin").await;
    sqlx::query("UPDATE model_versions SET status = 'rejected' WHERE major = 1")
        .execute(&service.db)
        .await
        .unwrap();
    assigned_by(&service, "us", "split").await;
    assert_eq!(service.read(&format!("{PINS}/us")).await["in_effect"], false);
    service.put(&format!("{PINS}/them"), &[], to("1.0.0")).await.problem(409, "cannot-serve");
    service.put(&format!("{PINS}/them"), &[], to("9.0.0")).await.problem(422, "unknown-version");
    let nameless = json!({"version": "0.0.0", "reason": " "});
    service.put(&format!("{PINS}/them"), &[], nameless).await.problem(422, "invalid-request");
    let long = "x".repeat(201);
    service.put(&format!("{PINS}/{long}"), &[], to("0.0.0")).await.problem(422, "invalid-request");
    service.put("/v1/pipelines/tail/pins/us", &[], to("0.0.0")).await.problem(404, "not-found");
    let viewer = service.client_as(Role::Viewer).await;
    viewer.put(&format!("{PINS}/us"), &[], to("0.0.0")).await.problem(403, "forbidden");
    service.end().await;
}

#[tokio::test]
async fn pins_are_listed_in_pages_replaced_when_seen_and_made_once() {
    let (service, _) = in_test(1000).await;
    for unit in ["b", "a", "Z", "c%2Fd"] {
        service.put(&format!("{PINS}/{unit}"), &[], to("1.0.0")).await.expect(200);
    }
    let page = service.read(&format!("{PINS}?limit=3")).await;
    let units = |page: &Value| -> Vec<Value> {
        page["items"].as_array().unwrap().iter().map(|pin| pin["unit"].clone()).collect()
    };
    assert_eq!(units(&page), ["Z", "a", "b"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(units(&service.read(&format!("{PINS}?limit=3&cursor={cursor}")).await), ["c/d"]);

    let seen = service.get(&format!("{PINS}/a")).await;
    let etag = seen.header("etag").to_owned();
    let again = service.put(&format!("{PINS}/a"), &[], to("1.0.0")).await;
    assert_eq!(again.header("etag"), etag, "the same pin again changes nothing");
    let headers = [("if-match", etag.as_str()), ("idempotency-key", "k-1")];
    let replaced = service.put(&format!("{PINS}/a"), &headers, to("0.0.0")).await;
    assert_ne!(replaced.header("etag"), etag);
    let repeated = service.put(&format!("{PINS}/a"), &headers, to("0.0.0")).await;
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    let late = service.put(&format!("{PINS}/a"), &headers[..1], to("1.0.0")).await;
    late.problem(412, "version-changed");
    let history: i64 = sqlx::query_scalar("SELECT count(*) FROM unit_pins WHERE unit = 'a'")
        .fetch_one(&service.db)
        .await
        .unwrap();
    assert_eq!(history, 2);
    for change in ["DELETE FROM unit_pins", "UPDATE unit_pins SET unit = 'z'"] {
        assert!(sqlx::query(change).execute(&service.db).await.is_err(), "{change}");
    }
    service.end().await;
}
