//! The protocol's objects, read leniently: only what nothing works without has to be there.
//!
//! Real services and look-alikes differ from the published schema (`"error": {}`, null `organization_id`,
//! absent hyperparameters, new statuses and event types), so fields are taken from the JSON one by one, and
//! those that are not used are not looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value, json};

use super::http::ErrorObject;
use crate::trainers::{
    Checkpoint, Completion, CompletionRequest, FileId, Hyperparameters, JobStatus, Method, ModelState,
    ProviderFailure, ProviderJob, RejectReason, TrainingEvent, TrainingMetrics, TrainingRequest,
};

/// The body of `POST /fine_tuning/jobs`. Hyperparameters that the provider shall choose are left out.
pub(super) fn create_body(request: &TrainingRequest) -> Value {
    let chosen = request.hyperparameters;
    let mut hyperparameters = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            hyperparameters.insert(name.to_owned(), value);
        }
    };
    set("n_epochs", chosen.n_epochs.map(Value::from));
    set("batch_size", chosen.batch_size.map(Value::from));
    set("learning_rate_multiplier", chosen.learning_rate_multiplier.map(Value::from));
    set("beta", chosen.beta.map(Value::from).filter(|_| request.method == Method::Preference));
    let method = match request.method {
        Method::Supervised => "supervised",
        Method::Preference => "dpo",
    };
    let mut body = json!({
        "model": request.base_model,
        "training_file": request.training_file.as_str(),
        "method": { "type": method, method: { "hyperparameters": hyperparameters } },
        "metadata": { "training_id": request.training_id, "run_id": request.run_id },
    });
    if let Some(file) = &request.validation_file {
        body["validation_file"] = file.as_str().into();
    }
    if let Some(suffix) = &request.suffix {
        body["suffix"] = suffix.as_str().into();
    }
    if let Some(seed) = request.seed {
        body["seed"] = seed.into();
    }
    if !request.integrations.is_empty() {
        body["integrations"] = request.integrations.as_slice().into();
    }
    body
}

/// A `fine_tuning.job`. The error names the field that is missing.
pub(super) fn job(value: &Value) -> Result<ProviderJob, String> {
    Ok(ProviderJob {
        id: required(text(value, "id"), "the job's id")?,
        status: JobStatus::from(required(text(value, "status"), "the job's status")?.as_str()),
        fine_tuned_model: text(value, "fine_tuned_model"),
        trained_tokens: integer(value, "trained_tokens"),
        error: value.get("error").and_then(failure),
        created_at: required(time(value, "created_at"), "the job's created_at")?,
        finished_at: time(value, "finished_at"),
        training_file: text(value, "training_file").map(FileId::new),
        metadata: metadata(value),
        hyperparameters: hyperparameters(value),
        seed: integer(value, "seed"),
        base_model: text(value, "model"),
    })
}

/// Those of the job's method; older answers have them beside it. What is still `auto` is not known.
fn hyperparameters(job: &Value) -> Hyperparameters {
    let of_method = || {
        let method = job.get("method")?;
        method.get(method.get("type")?.as_str()?)?.get("hyperparameters")
    };
    let Some(told) = of_method().or_else(|| job.get("hyperparameters")) else {
        return Hyperparameters::default();
    };
    let count = |name: &str| integer(told, name).and_then(|number| u32::try_from(number).ok());
    let number = |name: &str| told.get(name).and_then(Value::as_f64);
    Hyperparameters {
        n_epochs: count("n_epochs"),
        batch_size: count("batch_size"),
        learning_rate_multiplier: number("learning_rate_multiplier"),
        beta: number("beta"),
    }
}

/// A `fine_tuning.job.event`.
pub(super) fn event(value: &Value) -> Result<TrainingEvent, String> {
    let kind = text(value, "type").unwrap_or_else(|| "message".to_owned());
    let data = value.get("data").filter(|_| kind == "metrics");
    Ok(TrainingEvent {
        id: required(text(value, "id"), "the event's id")?,
        created_at: required(time(value, "created_at"), "the event's created_at")?,
        level: text(value, "level").unwrap_or_else(|| "info".to_owned()),
        message: text(value, "message").unwrap_or_default(),
        metrics: data.and_then(metrics),
        kind,
    })
}

fn metrics(data: &Value) -> Option<TrainingMetrics> {
    let number = |name: &str| data.get(name).and_then(Value::as_f64);
    Some(TrainingMetrics {
        step: integer(data, "step")?,
        train_loss: number("train_loss"),
        valid_loss: number("valid_loss"),
        full_valid_loss: number("full_valid_loss"),
    })
}

/// A `fine_tuning.job.checkpoint`.
pub(super) fn checkpoint(value: &Value) -> Result<Checkpoint, String> {
    let step = required(integer(value, "step_number"), "the checkpoint's step_number")?;
    let number = |name: &str| value.get("metrics")?.get(name)?.as_f64();
    let metrics = TrainingMetrics {
        step,
        train_loss: number("train_loss"),
        valid_loss: number("valid_loss"),
        full_valid_loss: number("full_valid_loss"),
    };
    Ok(Checkpoint {
        id: required(text(value, "id"), "the checkpoint's id")?,
        model_id: required(text(value, "fine_tuned_model_checkpoint"), "the checkpoint's model")?,
        step,
        created_at: required(time(value, "created_at"), "the checkpoint's created_at")?,
        metrics: Some(metrics),
    })
}

/// The body of `POST /chat/completions`.
pub(super) fn completion_body(request: &CompletionRequest) -> Value {
    let mut body = json!({ "model": request.model, "messages": request.messages });
    if let Some(most) = request.maximum_tokens {
        body["max_completion_tokens"] = most.into();
    }
    if request.json {
        body["response_format"] = json!({ "type": "json_object" });
    }
    body
}

/// A `model`. OpenAI tells the day of its end as `shutdown_date`; Azure as `deprecation.inference`, in seconds since 1970
/// (`deprecation.fine_tune` is only about training it). Each form is read in either place, and what is none is left out.
pub(super) fn model(value: &Value) -> ModelState {
    let told = [value.get("shutdown_date"), value.pointer("/deprecation/inference")];
    ModelState { shutdown_date: told.into_iter().flatten().find_map(day) }
}

/// A day: `2027-01-31`, a time that begins so, or seconds since 1970.
fn day(value: &Value) -> Option<NaiveDate> {
    match value {
        Value::String(text) => text.get(..10)?.parse().ok(),
        // 0 is how Azure says that nothing is known.
        Value::Number(number) => {
            let seconds = number.as_f64().filter(|seconds| *seconds >= 1.0)?;
            let seconds = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
            Some(DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?.date_naive())
        }
        _ => None,
    }
}

/// The body of a question whose answer is of no interest.
pub(super) fn short_question(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": "Say yes." }],
        "max_completion_tokens": 16,
    })
}

/// A `chat.completion`, of which the first choice counts.
pub(super) fn completion(value: &Value) -> Result<Completion, String> {
    let choice = required(value.pointer("/choices/0"), "the answer's first choice")?;
    let message = required(choice.get("message"), "the choice's message")?;
    let tokens = |name: &str| value.get("usage")?.get(name)?.as_u64();
    Ok(Completion {
        content: text(message, "content").unwrap_or_default(),
        refusal: text(message, "refusal"),
        finish_reason: text(choice, "finish_reason"),
        prompt_tokens: tokens("prompt_tokens"),
        completion_tokens: tokens("completion_tokens"),
    })
}

/// A job's error; an object without content, which OpenAI sends for healthy jobs, is none.
fn failure(error: &Value) -> Option<ProviderFailure> {
    let code = text(error, "code");
    let message = text(error, "message").or_else(|| error.as_str().map(str::to_owned));
    let param = text(error, "param");
    let kind = text(error, "type");
    if code.is_none() && message.is_none() && param.is_none() && kind.is_none() {
        return None;
    }
    let object = ErrorObject {
        code: code.clone().unwrap_or_default(),
        param: param.clone().unwrap_or_default(),
        message: message.clone().unwrap_or_default(),
        kind: kind.unwrap_or_default(),
    };
    let reason = object.reason().unwrap_or(RejectReason::Rejected);
    Some(ProviderFailure { code, message, param, reason })
}

/// A job's metadata; values that are not strings are written as JSON.
fn metadata(value: &Value) -> BTreeMap<String, String> {
    let Some(Value::Object(entries)) = value.get("metadata") else { return BTreeMap::new() };
    let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    entries.iter().map(|(key, value)| (key.clone(), written(value))).collect()
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("{name} is missing"))
}

/// A string that is not empty.
pub(super) fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A whole number, also when it is written as `3.0`.
pub(super) fn integer(value: &Value, name: &str) -> Option<i64> {
    let value = value.get(name)?;
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        format!("{number:.0}").parse().ok()
    })
}

/// Seconds since 1970, also with a fraction, which is cut off.
pub(super) fn time(value: &Value, name: &str) -> Option<DateTime<Utc>> {
    let seconds = value.get(name)?.as_f64()?;
    let seconds = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_job_is_enough() {
        let bare = job(&json!({ "id": "ftjob-1", "status": "queued", "created_at": 1_700_000_000 }));
        let bare = bare.expect("a job");
        assert_eq!((bare.id.as_str(), bare.status, bare.error), ("ftjob-1", JobStatus::Queued, None));
        assert_eq!(bare.created_at.timestamp(), 1_700_000_000);
    }

    #[test]
    fn what_nothing_works_without_is_named_when_it_is_missing() {
        let error = job(&json!({ "id": "ftjob-1", "created_at": 1 })).expect_err("no status");
        assert_eq!(error, "the job's status is missing");
        assert!(job(&json!({ "id": "", "status": "queued", "created_at": 1 })).is_err());
        assert!(job(&json!({ "id": "ftjob-1", "status": "queued", "created_at": null })).is_err());
        assert!(job(&json!([])).is_err());
    }

    #[test]
    fn empty_errors_are_no_errors() {
        for empty in [json!(null), json!({}), json!({ "code": null, "message": "", "param": null })] {
            assert_eq!(failure(&empty), None, "{empty}");
        }
        let failed = failure(&json!({ "code": "invalid_training_file", "message": "Line 3", "param": null }));
        let failed = failed.expect("a failure");
        assert_eq!(failed.reason, RejectReason::InvalidTrainingFile);
        assert_eq!(failed.message.as_deref(), Some("Line 3"));
        assert_eq!(failure(&json!("broken")).expect("a failure").message.as_deref(), Some("broken"));
    }

    #[test]
    fn numbers_may_be_written_in_other_ways() {
        let value = json!({ "whole": 3.0, "half": 3.5, "text": "3", "at": 1_700_000_000.9, "before": -1 });
        assert_eq!(integer(&value, "whole"), Some(3));
        assert_eq!(integer(&value, "half"), None);
        assert_eq!(integer(&value, "text"), None);
        assert_eq!(time(&value, "at").map(|time| time.timestamp()), Some(1_700_000_000));
        assert_eq!(time(&value, "before"), None);
    }

    #[test]
    fn the_end_of_a_model_is_read_in_the_forms_of_either_service() {
        let end = |value: Value| model(&value).shutdown_date.map(|date| date.to_string());
        let day = Some("2027-01-31".to_owned());
        assert_eq!(end(json!({ "shutdown_date": "2027-01-31" })), day);
        assert_eq!(end(json!({ "shutdown_date": "2027-01-31T00:00:00Z" })), day);
        assert_eq!(end(json!({ "shutdown_date": 1_801_353_600 })), day);
        assert_eq!(end(json!({ "deprecation": { "fine_tune": 1, "inference": 1_801_353_600 } })), day);
        assert_eq!(end(json!({ "shutdown_date": null, "deprecation": { "inference": 1_801_353_600 } })), day);
        for none in [
            json!({}),
            json!({ "shutdown_date": "soon" }),
            json!({ "shutdown_date": "ééééééé" }),
            json!({ "shutdown_date": 1e300 }),
            json!({ "deprecation": { "fine_tune": 1_801_353_600, "inference": 0 } }),
        ] {
            assert_eq!(end(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn unknown_statuses_are_kept_and_are_no_end() {
        let status = JobStatus::from("pausing");
        assert_eq!((status.as_str(), status.is_terminal()), ("pausing", false));
        for known in ["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"] {
            let status = JobStatus::from(known);
            assert!(!matches!(status, JobStatus::Unknown(_)));
            assert_eq!(status.as_str(), known);
        }
    }
}
