//! A whole run, and what MLflow's own client reads of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deliveries::{delivered, each_point_once, run_of, version_of, wake};
use crate::harness::outcomes::BETTER;
use crate::harness::service::TestService;
use crate::server::{Server, python};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

#[tokio::test]
async fn a_whole_run_is_read_back_with_mlflows_own_client() {
    let Some(python) = python() else { return };
    let server = Server::start(&python).await;
    let service = TestService::with_mlflow(server.settings(), Duration::from_secs(15)).await;
    service
        .pipeline("hook", |config| {
            config["watch"]["duration_seconds"] = json!(1.0);
            config["dataset"]["split"]["validation_share"] = json!(0.4);
            config["evaluation"] = json!({
                "smoke": {"prompts": 2}, "comparison": {"by": "judge", "model": "gpt-4o", "examples": 3},
            });
        })
        .await;
    service.posts(60, 0.08).await;
    let id = service.trigger("hook").await;

    the_curve_is_told_while_it_grows(&service, &server, &id).await;
    service.wait_for_test(&id).await;
    delivered(&service, "hook").await;
    let testing = server.read("hook").await;
    assert_eq!(run_of(&testing, &id)["status"], "RUNNING");
    let number = |read: &Value, name: &str| text(&version_of(read, name)["version"]);
    let aliases =
        json!({"champion": number(&testing, "hook@0.0.0"), "challenger": number(&testing, "hook@1.0.0")});
    assert_eq!(testing["aliases"], aliases);
    assert_eq!(version_of(&testing, "hook@1.0.0")["tags"]["tuneloop.status"], "testing");

    service.traffic("hook", 0..80, BETTER).await;
    service.reach_horizon(&id).await;
    let run = service.wait_until(&id, "succeeded").await;
    delivered(&service, "hook").await;
    let read = server.read("hook").await;
    assert_eq!(read["runs"].as_array().unwrap().len(), 1);
    let told = run_of(&read, &id);
    each_point_once(told);
    assert_eq!(
        (&told["status"], &told["tags"]["tuneloop.status"]),
        (&json!("FINISHED"), &json!("succeeded"))
    );
    let millis =
        |time: &Value| text(time).parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis();
    assert_eq!(told["start_time"], millis(&run["created_at"]));
    assert_eq!(told["end_time"], millis(&run["finished_at"]));
    the_parameters_are_the_configuration(told);
    the_tags_have_the_ids(told, &run);
    the_metrics_are_those_of_the_api(&service, told, &run).await;
    the_dataset_is_an_input(told, &run);
    the_artifacts_are_the_records(&service, told, &run).await;

    let candidate = version_of(&read, "hook@1.0.0");
    let model = text(&run["training"]["model_id"]);
    assert_eq!(candidate["source"], format!("openai:/{model}"));
    assert_eq!(candidate["run_id"], told["run_id"]);
    assert_eq!(
        (&candidate["tags"]["tuneloop.status"], &candidate["tags"]["tuneloop.parent"]),
        (&json!("live"), &json!("0.0.0"))
    );
    let description = text(&candidate["description"]);
    assert!(description.contains("hook@1.0.0") && description.contains(&model), "{description}");
    assert_eq!(version_of(&read, "hook@0.0.0")["source"], "openai:/gpt-4o");
    assert_eq!(read["aliases"], json!({"champion": candidate["version"]}));

    let back = service.post("/v1/pipelines/hook/rollback", json!({"reason": "too bold"})).await;
    back.expect(200);
    delivered(&service, "hook").await;
    let read = server.read("hook").await;
    assert_eq!(read["aliases"], json!({"champion": number(&read, "hook@0.0.0")}));
    assert_eq!(version_of(&read, "hook@1.0.0")["tags"]["tuneloop.status"], "rolled_back");
    assert_eq!(read["versions"].as_array().unwrap().len(), 2);
    service.end().await;
}

/// MLflow has points of a curve whose training is still under way.
async fn the_curve_is_told_while_it_grows(service: &TestService, server: &Server, id: &str) {
    let told = "SELECT t.finished_at, coalesce((d.delivered #>> '{metrics,train_loss,count}')::bigint, 0)
                  FROM trainings t LEFT JOIN tracking_runs d ON d.run_id = t.run_id";
    loop {
        let row: Option<(Option<chrono::DateTime<chrono::Utc>>, i64)> =
            sqlx::query_as(told).fetch_optional(&service.db).await.unwrap();
        let (finished, points) = row.unwrap_or_default();
        assert!(
            finished.is_none(),
            "the training has ended, and MLflow was told of none of its points before"
        );
        if points > 0 {
            break;
        }
        wake(service, "hook").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let read = server.read("hook").await;
    let run = run_of(&read, id);
    assert!(!run["metrics"]["train_loss"].as_array().unwrap().is_empty(), "{run:#}");
    assert_eq!(run["status"], "RUNNING");
}

fn the_parameters_are_the_configuration(told: &Value) {
    let params = &told["params"];
    assert_eq!(params["serving_model"], "gpt-4o");
    assert_eq!(params["training.base_model"], "gpt-4o-2024-08-06");
    assert_eq!(params["experiment.candidate_weight"], "5000");
    assert_eq!(params["evaluation.comparison.model"], "gpt-4o");
    assert!(params.as_object().unwrap().len() > 40, "{params:#}");
}

fn the_tags_have_the_ids(told: &Value, run: &Value) {
    let tags = &told["tags"];
    for (tag, value) in [
        ("tuneloop.run_id", &run["id"]),
        ("tuneloop.training_id", &run["training"]["id"]),
        ("tuneloop.provider_job_id", &run["training"]["job_id"]),
        ("tuneloop.model_id", &run["training"]["model_id"]),
        ("tuneloop.dataset_digest", &run["dataset"]["digest"]),
        ("tuneloop.experiment_id", &run["experiment_id"]),
        ("tuneloop.verdict", &json!("promote")),
        ("tuneloop.model_version", &json!("hook@1.0.0")),
        ("tuneloop.pipeline", &json!("hook")),
        ("tuneloop.trigger", &json!("api")),
    ] {
        assert_eq!(&tags[tag], value, "{tag}");
    }
    assert_eq!(text(&tags["tuneloop.decision_id"]).len(), 36);
    assert!(tags.get("tuneloop.artifacts").is_none(), "{tags}");
}

async fn the_metrics_are_those_of_the_api(service: &TestService, told: &Value, run: &Value) {
    let training = text(&run["training"]["id"]);
    let curve = service.read(&format!("/v1/trainings/{training}/curve?points=10000")).await;
    let curve = curve["items"].as_array().unwrap().clone();
    assert!(!curve.is_empty());
    for (loss, many) in [("train_loss", true), ("valid_loss", true), ("full_valid_loss", false)] {
        let expected: Vec<_> = curve
            .iter()
            .filter(|point| point.get(loss).is_some())
            .map(|point| (point["step"].clone(), point[loss].clone()))
            .collect();
        let found: Vec<_> = told["metrics"][loss]
            .as_array()
            .map(|points| {
                points.iter().map(|point| (point["step"].clone(), point["value"].clone())).collect()
            })
            .unwrap_or_default();
        assert_eq!(found, expected, "{loss}");
        assert!(!many || !found.is_empty(), "{loss}");
    }
    let figure = |name: &str| told["metrics"][name][0]["value"].as_f64();
    let estimate = &run["decision"]["estimate"];
    assert_eq!(figure("decision/relative_effect"), estimate["relative"].as_f64());
    assert_eq!(figure("decision/p_greater"), estimate["p_greater"].as_f64());
    assert_eq!(figure("decision/relative_effect_lower"), estimate["relative_interval"]["lower"].as_f64());
    assert_eq!(figure("decision/outcomes_candidate"), estimate["counts"]["candidate"]["outcomes"].as_f64());
    assert_eq!(figure("trained_tokens"), run["training"]["trained_tokens"].as_f64());
    assert!(figure("training_cost").unwrap() > 0.0 && figure("evaluation/quality").is_some());
    assert_eq!(figure("evaluation/smoke_faults"), Some(0.0));
}

fn the_dataset_is_an_input(told: &Value, run: &Value) {
    let inputs = told["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 2, "{inputs:#?}");
    let training = inputs.iter().find(|input| input["context"] == "training").unwrap();
    let digest = text(&run["dataset"]["digest"]);
    assert_eq!(training["source"]["digest"], digest);
    assert_eq!(training["digest"], digest[..32]);
    let validation = inputs.iter().find(|input| input["context"] == "validation").unwrap();
    for (input, part) in [(training, "train"), (validation, "validation")] {
        let part = &told["artifacts"]["preflight.json"][part];
        assert_eq!(input["profile"], json!({"examples": part["examples"], "bytes": part["bytes"]}));
        assert_eq!(input["source"]["digest"], part["digest"]);
    }
}

async fn the_artifacts_are_the_records(service: &TestService, told: &Value, run: &Value) {
    let artifacts = &told["artifacts"];
    let names: Vec<_> = artifacts.as_object().unwrap().keys().collect();
    assert_eq!(names, ["configuration.json", "decision.json", "evaluation.json", "preflight.json"]);
    assert_eq!(artifacts["configuration.json"]["training"]["base_model"], "gpt-4o-2024-08-06");
    assert_eq!(artifacts["preflight.json"]["train"]["digest"], run["dataset"]["digest"]);
    let (record, digest): (Value, String) =
        sqlx::query_as("SELECT record, digest FROM decisions").fetch_one(&service.db).await.unwrap();
    assert_eq!(
        (&artifacts["decision.json"]["record"], &artifacts["decision.json"]["digest"]),
        (&record, &json!(digest))
    );
}
