//! Model versions: their numbers, the way that the database lets them go, what is shown of them, and checkpoints.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::database::fresh_database;
use crate::harness::outcomes::BETTER;
use crate::harness::service::{TestService, config};

const MODELS: &str = "/v1/pipelines/hook/models";

/// All statuses, and those that each can become.
const LIFE: [(&str, &[&str]); 8] = [
    ("candidate", &["testing", "live", "rejected", "unavailable"]),
    ("testing", &["candidate", "live", "rejected", "unavailable"]),
    ("live", &["hold_back", "retired", "rolled_back", "unavailable"]),
    ("hold_back", &["live", "retired", "rolled_back", "unavailable"]),
    ("retired", &["live", "unavailable"]),
    ("rejected", &["candidate", "live", "unavailable"]),
    ("rolled_back", &["live", "unavailable"]),
    ("unavailable", &["candidate", "retired", "rejected", "rolled_back"]),
];

/// A version with this status, and what it was before where it is `unavailable`.
async fn version(db: &PgPool, status: &str) -> Uuid {
    let id = Uuid::from_u128(1);
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, status_before, provider,
                provider_model_id, base_model)
         VALUES ($1, 'hook', 1, 2, 3, $2, CASE WHEN $2 = 'unavailable' THEN 'retired' END, 'openai', 'm', 'b')",
    )
    .bind(id)
    .bind(status)
    .execute(db)
    .await
    .unwrap();
    id
}

async fn set(db: &PgPool, id: Uuid, status: &str) -> sqlx::Result<()> {
    let set = "UPDATE model_versions SET status = $2 WHERE id = $1";
    sqlx::query(set).bind(id).bind(status).execute(db).await.map(|_| ())
}

async fn pipeline(db: &PgPool) {
    // In one transaction: each refers to the other.
    let mut tx = db.begin().await.unwrap();
    sqlx::query("INSERT INTO pipelines (name, config_version) VALUES ('hook', 1)")
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO pipeline_configs (pipeline, version, config, actor) VALUES ('hook', 1, '{}', 'system')",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_database_lets_a_version_go_only_the_ways_of_its_life() {
    let database = fresh_database().await;
    let db = &database.pool;
    pipeline(db).await;
    for (from, allowed) in LIFE {
        for (to, _) in LIFE {
            let id = version(db, from).await;
            let moved = set(db, id, to).await;
            if from == to || allowed.contains(&to) {
                moved.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
            } else {
                let error = moved.expect_err(&format!("{from} to {to}"));
                let error = error.into_database_error().expect("the database refuses");
                assert_eq!(error.constraint(), Some("model_versions_status_transition"), "{from} to {to}");
                let expected =
                    format!("version 1.2.3 of hook is {from} and cannot become {to}; it can become ");
                assert_eq!(error.message(), expected + &allowed.join(", "));
            }
            sqlx::query("DELETE FROM model_versions").execute(db).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_version_that_is_unavailable_remembers_what_it_becomes_again() {
    let database = fresh_database().await;
    let db = &database.pool;
    pipeline(db).await;
    for (status, again) in [
        ("candidate", "candidate"),
        ("testing", "candidate"),
        ("live", "retired"),
        ("hold_back", "retired"),
        ("retired", "retired"),
        ("rejected", "rejected"),
        ("rolled_back", "rolled_back"),
    ] {
        let id = version(db, status).await;
        set(db, id, "unavailable").await.unwrap();
        let before = "SELECT status_before FROM model_versions";
        let before: Option<String> = sqlx::query_scalar(before).fetch_one(db).await.unwrap();
        assert_eq!(before.as_deref(), Some(again), "{status}");
        set(db, id, again).await.unwrap();
        let kept = "SELECT count(status_before) FROM model_versions";
        assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(db).await.unwrap(), 0, "{status}");
        sqlx::query("DELETE FROM model_versions").execute(db).await.unwrap();
    }
}

/// Trains once and returns the run and its version. Nothing tests it.
async fn trained(service: &TestService) -> (Value, String) {
    let id = service.trigger("hook").await;
    let run = service.wait_for_test(&id).await;
    service.post(&format!("/v1/runs/{id}/cancel"), Value::Null).await.expect(202);
    service.wait_until(&id, "cancelled").await;
    let version = run["version"].as_str().unwrap().to_owned();
    (run, version)
}

async fn configure(service: &TestService, change: impl FnOnce(&mut Value)) {
    let mut changed = config();
    change(&mut changed);
    service.put("/v1/pipelines/hook", &[("if-match", "*")], changed).await.expect(200);
}

#[tokio::test]
async fn numbers_follow_from_what_a_version_was_made_of() {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service.posts(12, 0.08).await;
    assert_eq!(trained(&service).await.1, "1.0.0");
    assert_eq!(trained(&service).await.1, "1.0.1", "the same again");
    configure(&service, |config| config["training"]["seed"] = json!(7)).await;
    assert_eq!(trained(&service).await.1, "1.1.0", "another seed");
    configure(&service, |_| {}).await;
    assert_eq!(trained(&service).await.1, "1.0.2", "the first once more");
    service.posts(1, 0.09).await;
    assert_eq!(trained(&service).await.1, "1.2.0", "another dataset");
    let prompts = json!({"system": "Be short.", "user": "{{ original_input }}", "assistant": "{{ hook }}"});
    configure(&service, |config| config["dataset"]["prompts"] = prompts.clone()).await;
    assert_eq!(trained(&service).await.1, "2.0.0", "another prompt");
    configure(&service, |config| {
        config["dataset"]["prompts"] = prompts.clone();
        config["training"]["base_model"] = json!("gpt-4.1-2025-04-14");
    })
    .await;
    assert_eq!(trained(&service).await.1, "3.0.0", "another base model");
    service.posts(1, 0.1).await;
    assert_eq!(trained(&service).await.1, "3.1.0", "and a dataset for it");

    let live = service.read(&format!("{MODELS}?status=live")).await;
    let versions: Vec<_> = live["items"].as_array().unwrap().iter().map(|item| &item["version"]).collect();
    assert_eq!(versions, ["0.0.0"]);
    let page = service.read(&format!("{MODELS}?status=candidate&limit=3")).await;
    let versions: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| &item["version"]).collect();
    assert_eq!(versions, ["3.1.0", "3.0.0", "2.0.0"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = service.read(&format!("{MODELS}?status=candidate&limit=3&cursor={cursor}")).await;
    let versions: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| &item["version"]).collect();
    assert_eq!(versions, ["1.2.0", "1.1.0", "1.0.2"]);
    service.end().await;
}

#[tokio::test]
async fn a_version_shows_what_it_was_made_of_what_its_test_said_and_when_it_served() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["training"]["seed"] = json!(7)).await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let tested = service.read(&format!("{MODELS}/1.0.0")).await;
    assert_eq!((&tested["status"], &tested["test"]["status"]), (&json!("testing"), &json!("running")));
    assert_eq!((tested["test"].get("decision"), tested["times"].get("promoted_at")), (None, None));
    service.traffic("hook", 0..60, BETTER).await;
    service.reach_horizon(&run).await;
    let run = service.wait_until(&run, "succeeded").await;

    let shown = service.read(&format!("{MODELS}/1.0.0")).await;
    assert_eq!((&shown["name"], &shown["status"]), (&json!("hook@1.0.0"), &json!("live")));
    let lineage = &shown["lineage"];
    assert_eq!((&lineage["run"]["id"], &lineage["run"]["status"]), (&run["id"], &json!("succeeded")));
    assert_eq!(lineage["dataset"], json!({"digest": run["dataset"]["digest"], "examples": 12}));
    let parent = json!({"version": "0.0.0", "model_id": "gpt-4o", "status": "retired"});
    assert_eq!(lineage["parent"], parent);
    let training = &lineage["training"];
    let in_use = &training["in_use"];
    assert!(
        in_use["hyperparameters"]["n_epochs"].is_u64() && in_use["hyperparameters"]["batch_size"].is_u64(),
        "{training:#}"
    );
    assert_eq!(in_use["seed"], training["seed"]);
    for field in ["id", "provider", "job_id", "base_model", "hyperparameters", "trained_tokens"] {
        assert_eq!(training[field], run["training"][field], "{field}");
    }
    assert_eq!(
        (&training["method"], &training["seed"], &training["prompt"]),
        (&json!("supervised"), &json!(7), &json!("hook"))
    );
    assert!(shown["metrics"]["final_loss"].is_number(), "{shown:#}");
    let test = &shown["test"];
    assert_eq!((&test["experiment_id"], &test["baseline"]), (&run["experiment_id"], &json!("0.0.0")));
    let decision = &test["decision"];
    assert_eq!((&decision["verdict"], &test["status"]), (&json!("promote"), &json!("decided")));
    assert_eq!(decision["estimate"], run["decision"]["estimate"]);
    assert!(decision["estimate"].is_object() && decision["id"].is_string(), "{shown:#}");
    let cost = &run["cost"];
    let cost = json!({"training": cost["actual"], "currency": "USD", "evaluation": cost["evaluation"]});
    assert_eq!(shown["cost"], cost);
    assert_eq!(shown["forced"], false);
    let times = &shown["times"];
    let time =
        |name: &str| times[name].as_str().map(|text| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    assert!(time("created_at") < time("tested_at") && time("tested_at") < time("promoted_at"), "{times:#}");
    assert_eq!(time("retired_at"), None);

    let first = service.read(&format!("{MODELS}/0.0.0")).await;
    assert_eq!((first.get("test"), first.get("cost")), (None, None));
    assert_eq!(first["lineage"], json!({}));
    // It served as the hold-back until the watch ended.
    let ended = first["times"]["retired_at"].as_str().unwrap().to_owned();
    let history = service.read("/v1/pipelines/hook/traffic/history").await;
    assert_eq!(history["items"][0]["kind"], "watch_ended");
    assert_eq!(history["items"][0]["created_at"], json!(ended));
    service.end().await;
}

#[tokio::test]
async fn a_checkpoint_is_registered_once_as_a_patch_of_its_training() {
    let service = TestService::start().await;
    service.pipeline("hook", |config| config["training"]["n_epochs"] = json!(3)).await;
    service.posts(12, 0.08).await;
    let (run, _) = trained(&service).await;
    let training = run["training"]["id"].as_str().unwrap();
    let kept = service.read(&format!("/v1/trainings/{training}/checkpoints")).await;
    let kept = kept["items"].as_array().unwrap().clone();
    assert_eq!(kept.len(), 3, "{kept:#?}");
    let by =
        |field: &str, value: &Value| json!({"training_id": training, field: value, "reason": "it overfits"});

    let first = by("step", &kept[0]["step"]);
    let key = [("idempotency-key", "once")];
    let answer = service.send(reqwest::Method::POST, MODELS, &key, Some(first.clone())).await;
    assert_eq!(answer.header("location"), "/v1/pipelines/hook/models/1.0.1");
    let version = answer.expect(201);
    assert_eq!((&version["version"], &version["status"]), (&json!("1.0.1"), &json!("candidate")));
    assert_eq!((&version["model_id"], &version["checkpoint_id"]), (&kept[0]["model_id"], &kept[0]["id"]));
    let again = service.send(reqwest::Method::POST, MODELS, &key, Some(first.clone())).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(201), version);
    let problem = service.post(MODELS, first).await.problem(409, "model-registered");
    assert_eq!(problem["links"]["version"], "/v1/pipelines/hook/models/1.0.1");
    assert!(problem["detail"].as_str().unwrap().contains("hook@1.0.1"), "{problem}");

    let second = service.post(MODELS, by("checkpoint_id", &kept[1]["id"])).await.expect(201);
    assert_eq!(second["version"], "1.0.2");
    // The last one is the model that the job ended with, which the run has registered.
    let problem = service.post(MODELS, by("checkpoint_id", &kept[2]["id"])).await;
    assert_eq!(problem.problem(409, "model-registered")["links"]["version"], format!("{MODELS}/1.0.0"));
    let shown = service.read(&format!("{MODELS}/1.0.2")).await;
    let checkpoint = json!({"id": kept[1]["id"], "step": kept[1]["step"]});
    assert_eq!(shown["lineage"]["training"]["checkpoint"], checkpoint);
    assert_eq!(shown["metrics"]["final_loss"], kept[1]["train_loss"]);
    let event = service.read("/v1/audit?limit=1").await["items"][0].clone();
    assert_eq!((&event["action"], &event["reason"]), (&json!("model.register"), &json!("it overfits")));
    assert_eq!((&event["actor"], &event["subject_id"]), (&json!("key:admin"), &json!("hook@1.0.2")));

    // It can be made live as any candidate.
    let promote = format!("{MODELS}/1.0.2/promote");
    service.post(&promote, json!({"reason": "it reads better", "force": true})).await.expect(200);
    assert_eq!(service.weights("hook").await, [("1.0.2".to_owned(), 10_000)]);
    service.end().await;
}

#[tokio::test]
async fn what_is_no_checkpoint_of_a_finished_training_is_refused() {
    let service = TestService::start().await;
    for name in ["hook", "body"] {
        service.pipeline(name, |_| {}).await;
    }
    service.posts(12, 0.08).await;
    let (run, _) = trained(&service).await;
    let training = run["training"]["id"].as_str().unwrap().to_owned();
    let body = |more: Value| {
        let mut body = json!({"training_id": training, "reason": "it overfits"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    service.post(MODELS, body(json!({}))).await.problem(422, "invalid-request");
    let both = body(json!({"step": 1, "checkpoint_id": "ftckpt-1"}));
    service.post(MODELS, both).await.problem(422, "invalid-request");
    service.post(MODELS, body(json!({"step": 1, "reason": " "}))).await.problem(422, "invalid-request");
    let problem = service.post(MODELS, body(json!({"step": 1_000_000}))).await;
    let problem = problem.problem(422, "unknown-checkpoint");
    assert!(problem["detail"].as_str().unwrap().contains("step 1000000"), "{problem}");
    let elsewhere = "/v1/pipelines/body/models";
    service.post(elsewhere, body(json!({"step": 1}))).await.problem(404, "not-found");
    service.post("/v1/pipelines/tail/models", body(json!({"step": 1}))).await.problem(404, "not-found");
    let unknown = json!({"training_id": Uuid::nil(), "step": 1, "reason": "it overfits"});
    service.post(MODELS, unknown).await.problem(404, "not-found");
    sqlx::query("UPDATE trainings SET finished_at = NULL").execute(&service.db).await.unwrap();
    service.post(MODELS, body(json!({"step": 1}))).await.problem(409, "training-not-finished");
    service.end().await;
}
