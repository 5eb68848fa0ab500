//! Every change of state is an audit event: those that had none.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tuneloop::standard_webhooks::WebhookSecret;

use crate::harness::outcomes::BETTER;
use crate::harness::service::WEBHOOK_SECRET;
use crate::world::World;

async fn trail(world: &World, filter: &str) -> Vec<Value> {
    world.read(&format!("/v1/audit?{filter}")).await["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_training_a_dataset_and_a_notice_of_the_provider_are_in_the_trail() {
    let world = World::start().await;
    world.posts(40, 0.09).await;
    world.pipeline("hook", |_| ()).await;
    let run = world.trigger("hook").await;
    world.wait_for_test(&run).await;
    let datasets = trail(&world, "action=dataset.create&pipeline=hook").await;
    assert_eq!(datasets.len(), 1);
    assert!(datasets[0]["after"]["examples"].as_i64().unwrap() > 0);
    let created = trail(&world, "action=training.create&pipeline=hook").await;
    assert_eq!((created.len(), &created[0]["after"]["run"]), (1, &run.clone().into()));
    let statuses = trail(&world, "action=training.status&pipeline=hook").await;
    assert_eq!(statuses[0]["after"]["status"], "succeeded");
    assert_eq!(statuses.last().unwrap()["before"], json!({"job": null, "status": null}));
    assert!(statuses.windows(2).all(|pair| pair[0]["before"]["status"] == pair[1]["after"]["status"]));

    let job = statuses[0]["after"]["job"].as_str().unwrap().to_owned();
    let body = json!({"type": "fine_tuning.job.succeeded", "data": {"id": job}}).to_string();
    let now = world.clock.now().timestamp().to_string();
    let signature = WebhookSecret::new(WEBHOOK_SECRET).unwrap().sign("msg_1", &now, body.as_bytes());
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", now.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    for _ in 0..2 {
        let answer = world.send_bytes("/v1/webhooks/openai", &headers, body.clone().into_bytes()).await;
        assert_eq!(answer.status, 204);
    }
    let notices = trail(&world, "actor=provider:openai").await;
    assert_eq!(notices.len(), 1, "a notice that is sent again changes nothing");
    assert_eq!(
        (&notices[0]["action"], &notices[0]["subject_id"]),
        (&"run.provider_notice".into(), &run.clone().into())
    );
    assert!(notices[0]["request_id"].is_string());
    world.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await;
    world.wait_until(&run, "cancelled").await;
    world.end().await;
}

/// A run that wins and is taken back, one that is cancelled in its test, and one that a person turns down.
#[tokio::test]
async fn the_trail_tells_every_status_of_runs_experiments_and_versions_in_order() {
    let world = World::start().await;
    world.posts(40, 0.09).await;
    world.pipeline("hook", |config| config["watch"]["duration_seconds"] = json!(3600.0)).await;
    let run = world.trigger("hook").await;
    world.wait_for_test(&run).await;
    world.traffic("hook", 0..80, BETTER).await;
    world.reach_horizon(&run).await;
    world.wait_for_watch(&run).await;
    world.post("/v1/pipelines/hook/rollback", json!({"reason": "bad tone"})).await.expect(200);
    world.wait_until(&run, "rolled_back").await;
    let run = world.trigger("hook").await;
    world.wait_for_test(&run).await;
    world.post(&format!("/v1/runs/{run}/cancel"), Value::Null).await.expect(202);
    world.wait_until(&run, "cancelled").await;
    let run = world.trigger("hook").await;
    world.wait_for_test(&run).await;
    world.reach_horizon(&run).await;
    world.wait_until(&run, "waiting_approval").await;
    world.post(&format!("/v1/runs/{run}/reject"), Value::Null).await.expect(202);
    world.wait_until(&run, "rejected").await;

    let stored = "SELECT 'run', id::text, status FROM runs UNION ALL SELECT 'experiment', id::text, status FROM experiments
                  UNION ALL SELECT 'model_version', concat(pipeline, '@', major, '.', minor, '.', patch), status
                              FROM model_versions";
    let stored: Vec<(String, String, String)> = sqlx::query_as(stored).fetch_all(&world.db).await.unwrap();
    assert_eq!(stored.len(), 3 + 3 + 4, "{stored:#?}");
    let changes: Vec<(String, String, Option<String>, String)> = sqlx::query_as(
        "SELECT subject_kind, subject_id, before ->> 'status', after ->> 'status' FROM audit_events
          WHERE subject_kind IN ('run', 'experiment', 'model_version') AND after ? 'status' ORDER BY id",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    let mut told = BTreeMap::new();
    for (kind, id, before, after) in changes {
        let former = told.insert((kind, id.clone()), after);
        assert_eq!(former, before, "{id}");
    }
    assert_eq!(told, stored.into_iter().map(|(kind, id, status)| ((kind, id), status)).collect());
    world.end().await;
}
