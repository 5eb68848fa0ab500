use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{RunRecord, VersionRecord};
use crate::tracking::facts::{
    CurveFacts, DatasetFacts, DecisionFacts, RunFacts, TrainingFacts, VersionFacts,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn point(step: i64, train: Option<f64>, valid: Option<f64>, learned_at: Option<DateTime<Utc>>) -> CurveFacts {
    CurveFacts { step, train_loss: train, valid_loss: valid, full_valid_loss: None, learned_at }
}

fn training(number: u128, curve: Vec<CurveFacts>) -> TrainingFacts {
    TrainingFacts {
        id: Uuid::from_u128(number),
        provider: "openai".into(),
        base_model: "gpt-4o-2024-08-06".into(),
        validation_digest: Some("b".repeat(64)),
        provider_job_id: Some(format!("ftjob-{number}")),
        fine_tuned_model: None,
        trained_tokens: Some(1_200),
        cost: Some(0.03),
        currency: Some("USD".into()),
        hyperparameters: json!({"n_epochs": 3}),
        created_at: at(100),
        finished_at: None,
        curve,
    }
}

fn run() -> RunFacts {
    RunFacts {
        id: Uuid::from_u128(7),
        pipeline: "hook".into(),
        config_version: 2,
        config: json!({"training": {"base_model": "gpt-4o-2024-08-06"}, "watch": {"hold_back_weight": 1000}}),
        trigger: "schedule".into(),
        slot: Some(at(60)),
        status: "running".into(),
        step: "train".into(),
        reason_code: None,
        reason: None,
        version: 3,
        dataset_digest: Some("a".repeat(64)),
        preflight: None,
        evaluation: None,
        evaluated_at: None,
        model_version: None,
        experiment_id: None,
        decision: None,
        created_at: at(61),
        finished_at: None,
        trainings: Vec::new(),
        datasets: vec![DatasetFacts { digest: "a".repeat(64), examples: 12, bytes: 3_400 }],
        settled: false,
    }
}

fn points(record: &RunRecord, key: &str) -> Vec<(i64, i64, f64)> {
    record.metrics.get(key).into_iter().flatten().map(|point| (point.step, point.at, point.value)).collect()
}

#[test]
fn each_status_of_a_run_has_one_of_mlflows() {
    for (status, expected) in [
        ("queued", "RUNNING"),
        ("running", "RUNNING"),
        ("waiting_approval", "RUNNING"),
        ("succeeded", "FINISHED"),
        ("skipped", "FINISHED"),
        ("rejected", "FINISHED"),
        ("inconclusive", "FINISHED"),
        ("rolled_back", "FINISHED"),
        ("failed", "FAILED"),
        ("cancelled", "KILLED"),
    ] {
        let record = RunRecord::of(&RunFacts { status: status.into(), ..run() });
        assert_eq!((record.status, record.tags["tuneloop.status"].as_str()), (expected, status));
    }
}

#[test]
fn a_run_that_has_just_begun_tells_what_there_is_and_nothing_else() {
    let record = RunRecord::of(&run());
    assert_eq!((record.name.as_str(), record.start_time), ("hook 1970-01-01T00:01:01Z", 61_000));
    assert_eq!((record.end_time, record.metrics.len()), (None, 0));
    assert_eq!(record.params["training.base_model"], "gpt-4o-2024-08-06");
    assert_eq!(record.params["watch.hold_back_weight"], "1000");
    assert_eq!(record.tags["tuneloop.slot"], "1970-01-01T00:01:00Z");
    for absent in ["tuneloop.reason", "tuneloop.verdict", "tuneloop.model_version", "tuneloop.training_id"] {
        assert!(!record.tags.contains_key(absent), "{absent}");
    }
    assert_eq!(record.artifacts.keys().copied().collect::<Vec<_>>(), ["configuration.json"]);
    assert_eq!(record.inputs.len(), 1);
    assert_eq!(
        (record.inputs[0].short_digest(), &record.inputs[0].profile),
        ("a".repeat(32).as_str(), &json!({"examples": 12, "bytes": 3_400}))
    );
}

#[test]
fn curves_have_steps_and_fixed_times_and_those_of_further_trainings_names_of_their_own() {
    let first = vec![
        point(1, Some(2.5), None, None),
        point(2, Some(2.0), Some(2.25), Some(at(120))),
        point(3, Some(f64::NAN), Some(f64::INFINITY), Some(at(130))),
    ];
    let second = vec![point(1, Some(3.0), None, Some(at(140)))];
    let mut ended = training(1, first);
    ended.finished_at = Some(at(150));
    let record = RunRecord::of(&RunFacts { trainings: vec![ended, training(2, second)], ..run() });
    // A point from before times were kept stands at the beginning of its training; what is no number is left out.
    assert_eq!(points(&record, "train_loss"), [(1, 100_000, 2.5), (2, 120_000, 2.0)]);
    assert_eq!(points(&record, "valid_loss"), [(2, 120_000, 2.25)]);
    assert_eq!(points(&record, "training_2/train_loss"), [(1, 140_000, 3.0)]);
    assert_eq!(points(&record, "trained_tokens"), [(0, 150_000, 1_200.0)]);
    assert_eq!(points(&record, "training_cost"), [(0, 150_000, 0.03)]);
    assert!(!record.metrics.contains_key("training_2/trained_tokens"), "it has not ended");
    assert_eq!(record.params["hyperparameters.n_epochs"], "3");
    assert_eq!(record.params["training_2/hyperparameters.n_epochs"], "3");
    assert_eq!(record.tags["tuneloop.provider_job_id"], "ftjob-1");
    assert_eq!(record.tags["tuneloop.training_2.provider_job_id"], "ftjob-2");
    // One validation set of both.
    assert_eq!(
        record.inputs.iter().map(|input| input.context).collect::<Vec<_>>(),
        ["training", "validation"]
    );
}

#[test]
fn an_evaluation_is_told_once_it_has_ended() {
    let found = json!({
        "smoke": {"prompts": 4, "faults": [{"line": 2, "fault": "empty"}]},
        "judge": {"model": "gpt-4o", "examples": 9, "candidate": 0.75, "live": 0.5},
    });
    let under_way = RunRecord::of(&RunFacts { evaluation: Some(found.clone()), ..run() });
    assert!(under_way.metrics.is_empty() && !under_way.artifacts.contains_key("evaluation.json"));
    let ended = RunRecord::of(&RunFacts { evaluation: Some(found), evaluated_at: Some(at(200)), ..run() });
    assert_eq!(points(&ended, "evaluation/smoke_faults"), [(0, 200_000, 1.0)]);
    assert_eq!(points(&ended, "evaluation/quality"), [(0, 200_000, 0.75)]);
    assert!(!ended.metrics.contains_key("evaluation/quality_standard_error"));
    assert!(ended.artifacts.contains_key("evaluation.json"));
}

#[test]
fn a_decision_is_told_with_its_record() {
    let record = json!({
        "evidence": {"hours_elapsed": 168.0},
        "decision": {"estimate": {"relative": 0.25, "relative_interval": {"lower": 0.125, "upper": 0.375},
                                  "counts": {"candidate": {"outcomes": 80}}}},
    });
    let (id, digest) = (Uuid::from_u128(9), "d".repeat(64));
    let decision = DecisionFacts {
        id,
        verdict: "promote".into(),
        digest: digest.clone(),
        record: record.clone(),
        created_at: at(300),
    };
    let told = RunRecord::of(&RunFacts { decision: Some(decision), finished_at: Some(at(400)), ..run() });
    assert_eq!(told.end_time, Some(400_000));
    assert_eq!(points(&told, "decision/relative_effect"), [(0, 300_000, 0.25)]);
    assert_eq!(points(&told, "decision/relative_effect_upper"), [(0, 300_000, 0.375)]);
    assert_eq!(points(&told, "decision/outcomes_candidate"), [(0, 300_000, 80.0)]);
    assert_eq!(
        (&told.tags["tuneloop.verdict"], &told.tags["tuneloop.decision_digest"]),
        (&"promote".to_owned(), &digest)
    );
    let artifact: Value = serde_json::from_slice(&told.artifacts["decision.json"]).unwrap();
    assert_eq!((&artifact["record"], &artifact["id"]), (&record, &json!(id)));
}

fn version() -> VersionFacts {
    VersionFacts {
        id: Uuid::from_u128(3),
        pipeline: "hook".into(),
        version: "1.4.0".into(),
        status: "live".into(),
        provider: "azure_openai".into(),
        provider_model_id: "ft:gpt-4o:x".into(),
        base_model: "gpt-4o-2024-08-06".into(),
        run_id: Some(Uuid::from_u128(7)),
        training_id: None,
        dataset_digest: Some("a".repeat(64)),
        parent: Some("1.3.0".into()),
        metrics: json!({"final_loss": 0.5, "validation_loss": null}),
        created_at: at(0),
        mlflow_run_id: None,
        mlflow_version: None,
        gone: false,
        unsettled: false,
        delivered: json!({}),
    }
}

#[test]
fn a_version_has_an_address_that_mlflow_takes_and_its_lineage() {
    let record = VersionRecord::of(&version());
    assert_eq!(record.source, "azure-openai:/ft:gpt-4o:x");
    assert_eq!(
        record.description,
        "hook@1.4.0: ft:gpt-4o:x at azure_openai, trained from gpt-4o-2024-08-06 on dataset aaaaaaaaaaaa"
    );
    for (tag, value) in [
        ("tuneloop.version", "hook@1.4.0"),
        ("tuneloop.status", "live"),
        ("tuneloop.parent", "1.3.0"),
        ("tuneloop.final_loss", "0.5"),
        ("tuneloop.model_id", "ft:gpt-4o:x"),
    ] {
        assert_eq!(record.tags[tag], value, "{tag}");
    }
    assert!(
        !record.tags.contains_key("tuneloop.validation_loss")
            && !record.tags.contains_key("tuneloop.training_id")
    );
    let untrained = VersionRecord::of(&VersionFacts { dataset_digest: None, ..version() });
    assert!(untrained.description.ends_with("not trained by tuneloop"), "{}", untrained.description);
}
