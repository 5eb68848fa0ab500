//! A worker that is killed after it sent a notice and before it wrote that down: at least once, with the same id.

use std::process::Command;

use tuneloop::api::auth::{Role, create_key};
use tuneloop::audit::{Actor, By};
use tuneloop::clock::Clock;
use tuneloop::notifications::{self, EndpointSettings, Form};

use crate::harness::database::{TestDatabase, fresh_database};
use crate::process::Worker;
use crate::receiver::Receiver;
use crate::world::{promote, until, wake};

fn serve(database: &TestDatabase, roles: &str, allow_private: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
    command
        .args(["serve", "--roles", roles, "--listen", "127.0.0.1:0", "--worker-slots", "2"])
        .args(["--lease-seconds", "5", "--poll-interval-ms", "100"])
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .env("OPENAI_BASE_URL", "http://127.0.0.1:1/v1");
    if allow_private {
        command.env("TUNELOOP_ALLOW_PRIVATE_TARGETS", "true");
    }
    command
}

async fn endpoint(database: &TestDatabase, receiver: &Receiver) -> String {
    let settings = EndpointSettings {
        url: receiver.url().parse().unwrap(),
        events: None,
        pipelines: None,
        form: Form::Cloudevents,
        enabled: true,
    };
    let mut conn = database.pool.acquire().await.unwrap();
    let made = notifications::insert(&mut conn, &Clock::system(), &settings, &By::system()).await.unwrap();
    made.0.id.to_string()
}

async fn is(database: &TestDatabase, holds: &'static str) -> bool {
    sqlx::query_scalar(holds).fetch_one(&database.pool).await.unwrap()
}

#[tokio::test]
async fn a_notice_whose_worker_dies_is_sent_again_with_the_same_id() {
    let database = fresh_database().await;
    let receiver = Receiver::start().await;
    endpoint(&database, &receiver).await;
    promote(&database.pool, "hook", 1).await;
    let mut first = serve(&database, "worker", true);
    first.env("TUNELOOP_HALT_AT", "deliver_webhook.sent");
    let mut first = Worker::start(first);
    wake(&database.pool, "audit_seal", "all").await;
    first.says("halted at deliver_webhook.sent").await;
    first.kill();
    assert!(is(&database, "SELECT status = 'pending' AND attempts = 0 FROM webhook_deliveries").await);

    let second = Worker::start(serve(&database, "worker", true));
    until("it is delivered", async || {
        is(&database, "SELECT status = 'delivered' FROM webhook_deliveries").await
    })
    .await;
    second.stop().await;
    let arrived = receiver.arrived();
    assert_eq!(arrived.len(), 2);
    assert_eq!(arrived[0].header("webhook-id"), arrived[1].header("webhook-id"));
    assert_eq!(arrived[0].body, arrived[1].body);
    assert!(
        is(&database, "SELECT count(*) = 1 FROM webhook_attempts").await,
        "the one that was written down"
    );
}

#[tokio::test]
async fn a_private_address_is_refused_when_it_is_called() {
    let database = fresh_database().await;
    let receiver = Receiver::start().await;
    // Made while it was allowed.
    endpoint(&database, &receiver).await;
    promote(&database.pool, "hook", 1).await;
    let guarded = Worker::start(serve(&database, "worker", false));
    wake(&database.pool, "audit_seal", "all").await;
    let attempted = "SELECT count(*) > 0 FROM webhook_attempts";
    until("it is attempted", async || is(&database, attempted).await).await;
    let refused = "SELECT error LIKE '127.0.0.1 is not a public address%' AND status IS NULL
                     FROM webhook_attempts WHERE number = 1";
    assert!(is(&database, refused).await);
    assert!(receiver.arrived().is_empty());
    guarded.stop().await;
}

#[tokio::test]
async fn a_private_address_is_refused_when_it_is_named() {
    let database = fresh_database().await;
    let clock = Clock::system();
    let mut conn = database.pool.acquire().await.unwrap();
    let key = create_key(&mut conn, &clock, "me", Role::Operator, Actor::System).await.unwrap().plaintext;
    drop(conn);
    let mut command = serve(&database, "api", false);
    command.args(["--log-format", "json"]);
    let mut service = Worker::start(command);
    service.says("\"address\"").await;
    let log = service.log();
    let address = log.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
    let client = crate::harness::client::Client::new(format!("http://{address}"), key);
    for url in
        ["http://127.0.0.1:1/", "https://localhost/", "http://169.254.169.254/", "http://[::ffff:10.0.0.1]/"]
    {
        let answer = client.post("/v1/webhook-endpoints", serde_json::json!({ "url": url })).await;
        let problem = answer.problem(422, "invalid-request");
        let message = problem["errors"][0]["message"].as_str().unwrap();
        assert!(
            message.contains("is not a public address") && message.contains("--allow-private-targets"),
            "{problem}"
        );
    }
    service.stop().await;
}
