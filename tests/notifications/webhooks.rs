//! Deliveries against a real receiver.

use serde_json::{Value, json};
use tuneloop::notifications;
use tuneloop::standard_webhooks::NotSigned;

use crate::receiver::Receiver;
use crate::world::{World, until};

#[tokio::test]
async fn what_happens_arrives_once_signed_and_in_order() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    world.promotion("hook", 1).await;
    let (endpoint, secret) = world.endpoint(json!({"url": receiver.url()})).await;
    for revision in 2..=6 {
        world.promotion("hook", revision).await;
    }
    let deliveries = world.until_deliveries(&endpoint, "delivered", 5).await;
    let arrived = receiver.arrived();
    // What was before the endpoint was made is not told.
    let revisions: Vec<_> =
        arrived.iter().map(|arrived| arrived.json()["data"]["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, [2, 3, 4, 5, 6]);
    for (arrived, delivery) in arrived.iter().zip(deliveries.iter().rev()) {
        assert_eq!(arrived.verify(&secret), Ok(()));
        assert_eq!(arrived.header("content-type"), "application/cloudevents+json");
        assert!(arrived.header("user-agent").starts_with("tuneloop/"));
        let event = arrived.json();
        assert_eq!(
            (&event["specversion"], &event["type"]),
            (&"1.0".into(), &"tuneloop.model.promoted".into())
        );
        assert_eq!((&event["source"], &event["subject"]), (&"urn:tuneloop".into(), &"pipelines/hook".into()));
        assert_eq!(event["id"], arrived.header("webhook-id"));
        assert_eq!(event["id"], delivery["event_id"]);
        assert_eq!(event["data"]["live"], "1.0.0");
        let attempt = &delivery["attempts"][0];
        assert_eq!((&attempt["status"], &attempt["answer"]), (&200.into(), &"answered 200".into()));
        assert!(attempt["latency_ms"].as_i64().unwrap() >= 0 && attempt["error"].is_null());
    }
    // Altered on the way, or signed by another: not believed.
    let mut altered = arrived[0].clone();
    altered.body = [altered.body.as_ref(), b" "].concat().into();
    assert_eq!(altered.verify(&secret), Err(NotSigned::Signature));
    assert_eq!(arrived[0].verify("whsec_b3RoZXI="), Err(NotSigned::Signature));
    world.end().await;
}

#[tokio::test]
async fn a_run_that_ends_is_told() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) =
        world.endpoint(json!({"url": receiver.url(), "events": ["tuneloop.run.finished"]})).await;
    world.pipeline("hook", |_| ()).await;
    // Without posts there is nothing to train on.
    let run = world.trigger("hook").await;
    let ended = world.wait_for(&run, "ended", |run| run.get("finished_at").is_some()).await;
    // The scheduler sees to the sealing.
    world.until_deliveries(&endpoint, "delivered", 1).await;
    let event = receiver.arrived()[0].json();
    assert_eq!(event["type"], "tuneloop.run.finished");
    assert_eq!(event["subject"], format!("runs/{run}"));
    assert_eq!(event["data"]["status"], ended["status"]);
    assert_eq!(event["data"]["pipeline"], "hook");
    world.end().await;
}

#[tokio::test]
async fn only_what_is_asked_for_is_told() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let settings = |extra: Value| {
        let mut settings = json!({"url": receiver.url()});
        settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        settings
    };
    let (other_event, _) = world.endpoint(settings(json!({"events": ["tuneloop.harm.found"]}))).await;
    let (other_pipeline, _) = world.endpoint(settings(json!({"pipelines": ["body"]}))).await;
    let (off, _) = world.endpoint(settings(json!({"enabled": false}))).await;
    let (slack, _) = world.endpoint(settings(json!({"form": "slack", "pipelines": ["hook"]}))).await;
    world.promotion("hook", 1).await;
    world.until_deliveries(&slack, "delivered", 1).await;
    for nobody in [&other_event, &other_pipeline, &off] {
        assert!(world.deliveries(nobody).await.is_empty());
    }
    let arrived = receiver.arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].header("content-type"), "application/json");
    let text = "hook: promoted: 1.0.0 is live, before it was 0.0.0. it is better";
    assert_eq!(arrived[0].json(), json!({ "text": text }));
    world.end().await;
}

#[tokio::test]
async fn what_fails_is_attempted_again_and_holds_up_nothing() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    receiver.answers([500, 503, 302]);
    let (endpoint, secret) = world.endpoint(json!({"url": receiver.url()})).await;
    world.promotion("hook", 1).await;
    world.until_attempts(&endpoint, 1).await;
    let shown = world.read(&format!("/v1/webhook-endpoints/{endpoint}")).await;
    assert!(shown["failing"] == true && shown["failures"].as_i64().unwrap() >= 1, "{shown}");
    let begun = "UPDATE webhook_deliveries SET give_up_at = now() + interval '23 hours'";
    sqlx::query(begun).execute(&world.db).await.unwrap();
    assert_eq!(world.metric("undelivered", &endpoint, "").await, Some(1.0));
    let age = world.metric("oldest_age_seconds", &endpoint, "").await.unwrap();
    assert!((3_600.0..3_700.0).contains(&age), "{age}");
    for attempts in 2..=4 {
        world.hurry(&endpoint).await;
        world.until_attempts(&endpoint, attempts).await;
    }
    let delivery = world.until_deliveries(&endpoint, "delivered", 1).await.remove(0);
    let statuses: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|a| a["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [500, 503, 302, 200]);
    let arrived = receiver.arrived();
    assert_eq!(arrived.len(), 4);
    assert!(arrived.iter().all(|again| again.body == arrived[0].body && again.verify(&secret).is_ok()));
    assert!(arrived.iter().all(|again| again.header("webhook-id") == arrived[0].header("webhook-id")));
    let shown = world.read(&format!("/v1/webhook-endpoints/{endpoint}")).await;
    assert_eq!((&shown["failing"], &shown["failing_since"]), (&false.into(), &Value::Null));
    for (metric, result, expected) in [
        ("undelivered", "", Some(0.0)),
        ("oldest_age_seconds", "", Some(0.0)),
        ("deliveries_total", r#",result="retried""#, Some(3.0)),
        ("deliveries_total", r#",result="failed""#, None),
    ] {
        assert_eq!(world.metric(metric, &endpoint, result).await, expected, "{metric}{result}");
    }
    // It is counted after what the delivery shows is committed.
    let delivered = r#",result="delivered""#;
    until("it is counted", async || {
        world.metric("deliveries_total", &endpoint, delivered).await == Some(1.0)
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn an_endpoint_that_dies_gets_everything_when_it_is_back() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = world.endpoint(json!({"url": receiver.url()})).await;
    let dead = receiver.kill().await;
    for revision in 1..=3 {
        world.promotion("hook", revision).await;
    }
    until("each was attempted", async || {
        let deliveries = world.deliveries(&endpoint).await;
        deliveries.len() == 3
            && deliveries.iter().all(|delivery| delivery["attempts"][0]["error"].is_string())
    })
    .await;
    let error = world.deliveries(&endpoint).await[0]["attempts"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("refused") && !error.contains("/hook"), "{error}");
    let receiver = dead.revive().await;
    // One attempt succeeds, and the others do not wait for their time.
    let first = "UPDATE webhook_deliveries SET next_attempt_at = now()
                  WHERE position = (SELECT min(position) FROM webhook_deliveries)";
    sqlx::query(first).execute(&world.db).await.unwrap();
    crate::world::wake(&world.db, notifications::DELIVERY_JOB, &endpoint).await;
    world.until_deliveries(&endpoint, "delivered", 3).await;
    let revisions: Vec<_> =
        receiver.arrived().iter().map(|a| a.json()["data"]["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, [1, 2, 3]);
    world.end().await;
}

#[tokio::test]
async fn a_hanging_endpoint_delays_neither_another_nor_the_sealer() {
    let world = World::start().await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    let gate = slow.hold();
    let (hanging, _) = world.endpoint(json!({"url": slow.url()})).await;
    let (other, _) = world.endpoint(json!({"url": quick.url()})).await;
    for revision in 1..=5 {
        world.promotion("hook", revision).await;
    }
    world.until_deliveries(&other, "delivered", 5).await;
    until("all is sealed", async || world.read("/v1/audit/head").await["unsealed"] == 0).await;
    assert_eq!(slow.arrived().len(), 1, "one at a time, and that one has no answer yet");
    gate.add_permits(100);
    world.until_deliveries(&hanging, "delivered", 5).await;
    world.end().await;
}

#[tokio::test]
async fn what_is_given_up_is_told_and_can_be_delivered_again() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    receiver.answers([410]);
    let (endpoint, _) = world.endpoint(json!({"url": receiver.url()})).await;
    world.promotion("hook", 1).await;
    let gone = world.until_deliveries(&endpoint, "failed", 1).await.remove(0);
    assert_eq!((&gone["attempts"][0]["status"], &gone["next_attempt_at"]), (&410.into(), &Value::Null));

    // After 24 hours the next attempt is the last one.
    receiver.answers([500, 500]);
    world.promotion("hook", 2).await;
    until("there are two", async || world.deliveries(&endpoint).await.len() == 2).await;
    world.until_attempts(&endpoint, 1).await;
    let over = "UPDATE webhook_deliveries SET give_up_at = now() WHERE status = 'pending'";
    sqlx::query(over).execute(&world.db).await.unwrap();
    world.hurry(&endpoint).await;
    let failed = world.until_deliveries(&endpoint, "failed", 2).await;
    assert_eq!(failed[0]["attempts"].as_array().unwrap().len(), 2);
    let shown = world.read(&format!("/v1/webhook-endpoints/{endpoint}")).await;
    assert_eq!((&shown["enabled"], &shown["failing"]), (&true.into(), &true.into()));
    let trail = world.read("/v1/audit?action=webhook_delivery.fail").await;
    assert_eq!(trail["items"].as_array().unwrap().len(), 2);
    let given_up = r#",result="failed""#;
    until("both are counted", async || {
        world.metric("deliveries_total", &endpoint, given_up).await == Some(2.0)
    })
    .await;

    let path =
        format!("/v1/webhook-endpoints/{endpoint}/deliveries/{}/redeliver", gone["id"].as_str().unwrap());
    world.post(&path, Value::Null).await.expect(202);
    let delivered = world.until_deliveries(&endpoint, "delivered", 1).await;
    assert_eq!(delivered[1]["attempts"].as_array().unwrap().len(), 2, "{delivered:#?}");
    let arrived = receiver.arrived();
    let (first, last) = (arrived.first().unwrap(), arrived.last().unwrap());
    assert_eq!((first.header("webhook-id"), &first.body), (last.header("webhook-id"), &last.body));
    // What was delivered can be, too.
    world.post(&path, Value::Null).await.expect(202);
    until("it arrives once more", async || receiver.arrived().len() == arrived.len() + 1).await;
    world.until_deliveries(&endpoint, "delivered", 1).await;
    world.end().await;
}

#[tokio::test]
async fn a_former_secret_signs_for_a_day() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, former) = world.endpoint(json!({"url": receiver.url()})).await;
    let rotated =
        world.post(&format!("/v1/webhook-endpoints/{endpoint}/rotate-secret"), Value::Null).await.expect(200);
    let present = rotated["secret"].as_str().unwrap();
    let test = format!("/v1/webhook-endpoints/{endpoint}/test");
    world.post(&test, Value::Null).await.expect(202);
    world.until_deliveries(&endpoint, "delivered", 1).await;
    let both = receiver.arrived().remove(0);
    assert_eq!((both.verify(present), both.verify(&former)), (Ok(()), Ok(())));
    assert_eq!(both.json()["type"], "tuneloop.test");

    sqlx::query("UPDATE webhook_endpoints SET previous_until = now()").execute(&world.db).await.unwrap();
    world.post(&test, Value::Null).await.expect(202);
    world.until_deliveries(&endpoint, "delivered", 2).await;
    // The first may arrive twice where the machine is slow.
    let arrived = receiver.arrived();
    let one = arrived.iter().find(|one| one.header("webhook-id") != both.header("webhook-id")).unwrap();
    assert_eq!((one.verify(present), one.verify(&former)), (Ok(()), Err(NotSigned::Signature)));
    world.end().await;
}

#[tokio::test]
async fn what_waits_is_sent_when_the_endpoint_is_switched_on_and_not_when_it_is_deleted() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = world.endpoint(json!({"url": receiver.url(), "enabled": false})).await;
    let path = format!("/v1/webhook-endpoints/{endpoint}");
    world.post(&format!("{path}/test"), Value::Null).await.expect(202);
    until("the job has ended", async || {
        let jobs = "SELECT count(*) FROM jobs WHERE kind = 'deliver_webhook' AND state = 'done'";
        sqlx::query_scalar::<_, i64>(jobs).fetch_one(&world.db).await.unwrap() == 1
    })
    .await;
    assert!(receiver.arrived().is_empty());
    world.put(&path, &[], json!({"url": receiver.url()})).await.expect(200);
    world.until_deliveries(&endpoint, "delivered", 1).await;
    // One that is deleted while an answer is waited for.
    let gate = receiver.hold();
    world.post(&format!("{path}/test"), Value::Null).await.expect(202);
    until("it has arrived", async || receiver.arrived().len() == 2).await;
    world.send(reqwest::Method::DELETE, &path, &[], None).await.expect(204);
    gate.add_permits(10);
    world.end().await;
}

#[tokio::test]
async fn logs_are_kept_for_a_time_and_lost_jobs_come_back() {
    let world = World::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = world.endpoint(json!({"url": receiver.url()})).await;
    world.promotion("hook", 1).await;
    world.until_deliveries(&endpoint, "delivered", 1).await;
    let month = std::time::Duration::from_hours(30 * 24);
    assert_eq!(notifications::expire(&world.db, month).await.unwrap(), 0);
    for age in [
        "UPDATE webhook_deliveries SET finished_at = finished_at - interval '31 days'",
        "UPDATE notifications SET created_at = created_at - interval '31 days'",
    ] {
        sqlx::query(age).execute(&world.db).await.unwrap();
    }
    assert_eq!(notifications::expire(&world.db, month).await.unwrap(), 1);
    let left = "SELECT (SELECT count(*) FROM notifications) + (SELECT count(*) FROM webhook_attempts)";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&world.db).await.unwrap(), 0);
    // A delivery whose job is gone is found by the scheduler.
    let gate = receiver.hold();
    world.promotion("hook", 2).await;
    until("it has arrived", async || receiver.arrived().len() == 2).await;
    let lost =
        "UPDATE jobs SET state = 'failed', finished_at = now(), lease_token = NULL, lease_expires_at = NULL
                 WHERE kind = 'deliver_webhook' AND state = 'leased'";
    sqlx::query(lost).execute(&world.db).await.unwrap();
    gate.add_permits(10);
    sqlx::query("UPDATE webhook_deliveries SET next_attempt_at = now() - interval '2 minutes'")
        .execute(&world.db)
        .await
        .unwrap();
    world.until_deliveries(&endpoint, "delivered", 1).await;
    assert_eq!(receiver.arrived().len(), 3, "the worker that lost its job wrote nothing down");
    world.end().await;
}
