//! Endpoints as resources: who may do what, what is shown, what is kept from whom.

use serde_json::{Value, json};
use tuneloop::api::auth::Role;

use crate::world::World;

#[tokio::test]
async fn an_endpoint_is_made_shown_changed_and_deleted() {
    let world = World::start().await;
    let settings = json!({
        "url": "http://127.0.0.1:1/secret-path?token=hidden", "events": ["tuneloop.run.finished"], "pipelines": ["hook"],
    });
    let made = world.post("/v1/webhook-endpoints", settings).await;
    assert_eq!((made.status.as_u16(), made.header("etag")), (201, "\"1\""));
    let location = made.header("location").to_owned();
    let secret = made.body["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    assert_eq!((&made.body["form"], &made.body["enabled"]), (&"cloudevents".into(), &true.into()));

    let shown = world.read(&location).await;
    assert_eq!(shown["url"], "http://127.0.0.1:1/secret-path?token=hidden");
    assert!(shown.get("secret").is_none() && shown["failing"] == false);
    // A viewer reads, but not what may be a password, and changes nothing.
    let viewer = world.client_as(Role::Viewer).await;
    assert_eq!(viewer.read(&location).await["url"], "http://127.0.0.1:1/…");
    assert_eq!(viewer.read("/v1/webhook-endpoints").await["items"][0]["url"], "http://127.0.0.1:1/…");
    viewer.post(&format!("{location}/test"), Value::Null).await.problem(403, "forbidden");
    viewer.post(&format!("{location}/rotate-secret"), Value::Null).await.problem(403, "forbidden");

    let changed = json!({"url": "http://127.0.0.1:1/", "form": "slack", "enabled": false});
    world.put(&location, &[("if-match", "\"9\"")], changed.clone()).await.problem(412, "version-changed");
    let answer = world.put(&location, &[("if-match", "\"1\"")], changed).await;
    assert_eq!(answer.header("etag"), "\"2\"");
    let body = answer.expect(200);
    assert_eq!(
        (&body["form"], &body["enabled"], &body["events"]),
        (&"slack".into(), &false.into(), &Value::Null)
    );

    let rotated = world.post(&format!("{location}/rotate-secret"), Value::Null).await.expect(200);
    assert!(rotated["secret"] != secret && rotated["previous_secret_until"].is_string());
    world.send(reqwest::Method::DELETE, &location, &[], None).await.expect(204);
    world.get(&location).await.problem(404, "not-found");

    // Everything was told to the trail, and neither secrets nor what may be one.
    let trail = world.read("/v1/audit?subject_kind=webhook_endpoint").await;
    let actions: Vec<_> =
        trail["items"].as_array().unwrap().iter().map(|event| event["action"].clone()).collect();
    let expected =
        ["delete", "rotate_secret", "update", "create"].map(|verb| format!("webhook_endpoint.{verb}"));
    assert_eq!(actions, expected);
    let text = trail.to_string();
    assert!(!text.contains("whsec_") && !text.contains("hidden") && !text.contains("secret-path"), "{text}");
    assert_eq!(trail["items"][2]["after"]["url_changed"], true);
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_its_field() {
    let world = World::start().await;
    for (settings, field) in [
        (json!({"url": "ftp://example.com"}), "/url"),
        (json!({"url": "http://me:pw@example.com"}), "/url"),
        (json!({"url": "http://example.com", "events": []}), "/events"),
        (json!({"url": "http://example.com", "events": ["tuneloop.lunch"]}), "/events/0"),
        (json!({"url": "http://example.com", "pipelines": [""]}), "/pipelines/0"),
        (json!({"url": "http://example.com", "form": "fax"}), "/form"),
        (json!({"url": "http://example.com", "secret": "whsec_MDEy"}), "/secret"),
    ] {
        let refused =
            world.post("/v1/webhook-endpoints", settings.clone()).await.problem(422, "invalid-request");
        assert_eq!(refused["errors"][0]["field"], field, "{settings}: {refused}");
    }
    let unknown = "/v1/webhook-endpoints/00000000-0000-0000-0000-000000000000";
    for path in ["", "/deliveries"] {
        world.get(&format!("{unknown}{path}")).await.problem(404, "not-found");
    }
    for path in ["/test", "/rotate-secret", "/deliveries/00000000-0000-0000-0000-000000000000/redeliver"] {
        world.post(&format!("{unknown}{path}"), Value::Null).await.problem(404, "not-found");
    }
    world.end().await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_one_endpoint() {
    let world = World::start().await;
    let send = async || {
        let body = Some(json!({"url": "http://127.0.0.1:1/"}));
        let key = [("idempotency-key", "one")];
        world.send(reqwest::Method::POST, "/v1/webhook-endpoints", &key, body).await.expect(201)
    };
    assert_eq!(send().await, send().await);
    assert_eq!(world.read("/v1/webhook-endpoints").await["items"].as_array().unwrap().len(), 1);
    world.end().await;
}
