//! Publication to an application that is called.

use serde_json::{Value, json};

use crate::application::{Application, Call};
use crate::service::World;

fn target(application: &Application, secret: Option<&str>) -> Value {
    let mut http = json!({"url": application.url});
    if let Some(secret) = secret {
        http["secret_env"] = secret.into();
    }
    json!({"targets": [{"name": "app", "http": http}]})
}

#[tokio::test]
async fn an_application_is_told_each_revision_once_signed_and_again_after_an_error() {
    let world = World::start().await;
    let application = Application::start().await;
    application.answer(&[500, 503]);
    world.publishing("hook", target(&application, Some("PUBLICATION_SECRET_APP"))).await;
    world.published("hook", "app", 1).await;
    let calls = application.calls();
    assert_eq!(calls.len(), 3, "two failed");
    let sent = |call: &Call| (call.id.clone(), call.signed, call.document["revision"].clone());
    let expected = ("hook.app.1.0".to_owned(), Some(true), json!(1));
    assert!(calls.iter().all(|call| sent(call) == expected), "{calls:?}");
    assert_eq!(calls[0].document["weights"][0]["model_id"], "gpt-4o");

    let revision = world.go_live("hook", "ft:better").await;
    world.published("hook", "app", revision).await;
    // A receiver that lost it can have it again, as another message.
    world.publish_again("hook", "app").await;
    world.published("hook", "app", revision).await;
    let ids: Vec<_> = application.calls().into_iter().skip(3).map(|call| call.id).collect();
    assert_eq!(ids, ["hook.app.2.0", "hook.app.2.1"]);
    world.end().await;
}

#[tokio::test]
async fn a_missing_secret_a_refusal_and_a_private_address_are_told() {
    let world = World::start().await;
    let application = Application::start().await;
    world.publishing("hook", target(&application, Some("PUBLICATION_SECRET_OTHER"))).await;
    let error = world.failing("hook", "app", "PUBLICATION_SECRET_OTHER").await;
    assert!(error.contains("is not set where the workers run"), "{error}");
    assert!(application.calls().is_empty());
    application.answer(&[302; 100]);
    world.publishing("body", target(&application, None)).await;
    world.failing("body", "app", "answered 302").await;
    assert_eq!(application.calls()[0].signed, None);
    world.end().await;

    let world = World::guarded().await;
    let application = Application::start().await;
    world.publishing("hook", target(&application, None)).await;
    world.failing("hook", "app", "--allow-private-targets").await;
    assert!(application.calls().is_empty());
    world.end().await;
}
