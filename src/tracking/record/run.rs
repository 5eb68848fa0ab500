//! A run of a pipeline as a run of MLflow.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{Input, Point, Tags, name_of};
use crate::tracking::facts::{RunFacts, TrainingFacts};
use crate::tracking::flatten::flatten;

/// Figures of an evaluation by their place in it.
const EVALUATION: [(&str, &str); 7] = [
    ("evaluation/smoke_prompts", "/smoke/prompts"),
    ("evaluation/validation_loss", "/loss/candidate"),
    ("evaluation/validation_loss_live", "/loss/live"),
    ("evaluation/quality", "/judge/candidate"),
    ("evaluation/quality_live", "/judge/live"),
    ("evaluation/quality_standard_error", "/judge/standard_error"),
    ("evaluation/judged_prompts", "/judge/examples"),
];

/// Figures of a decision by their place in its record.
const DECISION: [(&str, &str); 12] = [
    ("decision/relative_effect", "/decision/estimate/relative"),
    ("decision/relative_effect_lower", "/decision/estimate/relative_interval/lower"),
    ("decision/relative_effect_upper", "/decision/estimate/relative_interval/upper"),
    ("decision/difference", "/decision/estimate/difference"),
    ("decision/standard_error", "/decision/estimate/standard_error"),
    ("decision/p_greater", "/decision/estimate/p_greater"),
    ("decision/mean_baseline", "/decision/estimate/mean_baseline"),
    ("decision/mean_candidate", "/decision/estimate/mean_candidate"),
    ("decision/outcomes_baseline", "/decision/estimate/counts/baseline/outcomes"),
    ("decision/outcomes_candidate", "/decision/estimate/counts/candidate/outcomes"),
    ("decision/sample_ratio_p", "/decision/sample_ratio"),
    ("decision/hours", "/evidence/hours_elapsed"),
];

/// What MLflow is to hold of a run.
#[derive(Debug)]
pub(in crate::tracking) struct RunRecord {
    pub(in crate::tracking) name: String,
    pub(in crate::tracking) start_time: i64,
    pub(in crate::tracking) params: BTreeMap<String, String>,
    pub(in crate::tracking) tags: BTreeMap<String, String>,
    pub(in crate::tracking) metrics: BTreeMap<String, Vec<Point>>,
    pub(in crate::tracking) inputs: Vec<Input>,
    pub(in crate::tracking) artifacts: BTreeMap<&'static str, Vec<u8>>,
    pub(in crate::tracking) status: &'static str,
    pub(in crate::tracking) end_time: Option<i64>,
}

impl RunRecord {
    pub(in crate::tracking) fn of(facts: &RunFacts) -> Self {
        Self {
            name: format!(
                "{} {}",
                facts.pipeline,
                facts.created_at.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            start_time: facts.created_at.timestamp_millis(),
            params: params(facts),
            tags: tags(facts),
            metrics: metrics(facts),
            inputs: inputs(facts),
            artifacts: artifacts(facts),
            status: status(&facts.status),
            end_time: facts.finished_at.map(|at| at.timestamp_millis()),
        }
    }
}

/// MLflow knows four ends; how a run of ours ended stands in a tag.
fn status(status: &str) -> &'static str {
    match status {
        "queued" | "running" | "waiting_approval" => "RUNNING",
        "failed" => "FAILED",
        "cancelled" => "KILLED",
        _ => "FINISHED",
    }
}

/// What stands before the names that belong to a training: nothing for the first of the run.
fn prefix(number: usize) -> String {
    if number == 0 { String::new() } else { format!("training_{}/", number + 1) }
}

fn params(facts: &RunFacts) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    flatten("", &facts.config, &mut params);
    for (number, training) in facts.trainings.iter().enumerate() {
        let name = format!("{}hyperparameters", prefix(number));
        flatten(&name, &training.hyperparameters, &mut params);
    }
    params
}

fn tags(facts: &RunFacts) -> BTreeMap<String, String> {
    let mut tags = Tags::default();
    tags.set("mlflow.source.name", "tuneloop");
    tags.set("mlflow.source.type", "JOB");
    tags.set_known("mlflow.note.content", facts.reason.as_ref());
    tags.set("tuneloop.run_id", &facts.id);
    tags.set("tuneloop.pipeline", &facts.pipeline);
    tags.set("tuneloop.config_version", &facts.config_version);
    tags.set("tuneloop.trigger", &facts.trigger);
    tags.set_known("tuneloop.slot", facts.slot.map(|slot| slot.to_rfc3339_opts(SecondsFormat::Secs, true)));
    tags.set("tuneloop.status", &facts.status);
    tags.set("tuneloop.step", &facts.step);
    tags.set_known("tuneloop.reason_code", facts.reason_code.as_ref());
    tags.set_known("tuneloop.reason", facts.reason.as_ref());
    tags.set_known("tuneloop.dataset_digest", facts.dataset_digest.as_ref());
    tags.set_known("tuneloop.model_version", facts.model_version.as_ref());
    tags.set_known("tuneloop.experiment_id", facts.experiment_id);
    if let Some(decision) = &facts.decision {
        tags.set("tuneloop.decision_id", &decision.id);
        tags.set("tuneloop.decision_digest", &decision.digest);
        tags.set("tuneloop.verdict", &decision.verdict);
    }
    for (number, training) in facts.trainings.iter().enumerate() {
        let prefix = prefix(number).replace('/', ".");
        let name = |name: &str| format!("tuneloop.{prefix}{name}");
        tags.set(&name("training_id"), &training.id);
        tags.set(&name("provider"), &training.provider);
        tags.set(&name("base_model"), &training.base_model);
        tags.set_known(&name("provider_job_id"), training.provider_job_id.as_ref());
        tags.set_known(&name("model_id"), training.fine_tuned_model.as_ref());
        tags.set_known(&name("validation_digest"), training.validation_digest.as_ref());
        tags.set_known(&name("currency"), training.currency.as_ref());
    }
    tags.0
}

fn metrics(facts: &RunFacts) -> BTreeMap<String, Vec<Point>> {
    let mut metrics = BTreeMap::new();
    for (number, training) in facts.trainings.iter().enumerate() {
        curve(&prefix(number), training, &mut metrics);
        billed(&prefix(number), training, &mut metrics);
    }
    if let (Some(evaluation), Some(at)) = (&facts.evaluation, facts.evaluated_at) {
        figures(&EVALUATION, evaluation, at, &mut metrics);
        if let Some(faults) = evaluation.pointer("/smoke/faults").and_then(Value::as_array) {
            single("evaluation/smoke_faults", at, faults.len() as f64, &mut metrics);
        }
    }
    if let Some(decision) = &facts.decision {
        figures(&DECISION, &decision.record, decision.created_at, &mut metrics);
    }
    metrics
}

fn curve(prefix: &str, training: &TrainingFacts, metrics: &mut BTreeMap<String, Vec<Point>>) {
    for point in &training.curve {
        let losses = [
            ("train_loss", point.train_loss),
            ("valid_loss", point.valid_loss),
            ("full_valid_loss", point.full_valid_loss),
        ];
        for (name, loss) in losses {
            let Some(value) = loss.filter(|loss| loss.is_finite()) else { continue };
            // A point from before times were kept stands at the beginning of its training.
            let at = point.learned_at.unwrap_or(training.created_at).timestamp_millis();
            let points: &mut Vec<Point> = metrics.entry(format!("{prefix}{name}")).or_default();
            points.push(Point { step: point.step, at, value });
        }
    }
}

/// What a training was billed for, once it has ended.
fn billed(prefix: &str, training: &TrainingFacts, metrics: &mut BTreeMap<String, Vec<Point>>) {
    let Some(at) = training.finished_at else { return };
    if let Some(tokens) = training.trained_tokens {
        single(&format!("{prefix}trained_tokens"), at, tokens as f64, metrics);
    }
    if let Some(cost) = training.cost {
        single(&format!("{prefix}training_cost"), at, cost, metrics);
    }
}

fn figures(
    places: &[(&str, &str)],
    found: &Value,
    at: DateTime<Utc>,
    metrics: &mut BTreeMap<String, Vec<Point>>,
) {
    for (name, place) in places {
        if let Some(value) = found.pointer(place).and_then(Value::as_f64) {
            single(name, at, value, metrics);
        }
    }
}

fn single(name: &str, at: DateTime<Utc>, value: f64, metrics: &mut BTreeMap<String, Vec<Point>>) {
    if value.is_finite() {
        metrics.insert(name.to_owned(), vec![Point { step: 0, at: at.timestamp_millis(), value }]);
    }
}

fn inputs(facts: &RunFacts) -> Vec<Input> {
    let validation = facts.trainings.iter().filter_map(|training| training.validation_digest.as_ref());
    let training = facts.dataset_digest.iter().map(|digest| ("training", digest));
    let mut inputs: Vec<Input> = Vec::new();
    for (context, digest) in training.chain(validation.map(|digest| ("validation", digest))) {
        let profile = facts.datasets.iter().find(|dataset| dataset.digest == *digest);
        let profile = profile
            .map_or(Value::Null, |dataset| json!({"examples": dataset.examples, "bytes": dataset.bytes}));
        let input = Input { name: name_of(&facts.pipeline), digest: digest.clone(), context, profile };
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

fn artifacts(facts: &RunFacts) -> BTreeMap<&'static str, Vec<u8>> {
    let decision = facts.decision.as_ref().map(|decision| {
        json!({
            "id": decision.id, "digest": decision.digest, "verdict": decision.verdict,
            "decided_at": decision.created_at, "record": decision.record,
        })
    });
    let evaluation = facts.evaluation.clone().filter(|_| facts.evaluated_at.is_some());
    let files = [
        ("configuration.json", Some(facts.config.clone())),
        ("preflight.json", facts.preflight.clone()),
        ("evaluation.json", evaluation),
        ("decision.json", decision),
    ];
    let files = files.into_iter().filter_map(|(name, content)| Some((name, content?)));
    files.map(|(name, content)| (name, format!("{content:#}\n").into_bytes())).collect()
}
