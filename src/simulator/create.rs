//! The request that creates a job: its shape, its limits, and the job that it becomes.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::errors::ApiError;
use super::job::{Job, JobError, Plan};
use super::method::{Hyperparameters, MethodKind};
use super::store::Store;
use super::timeline::{BROKEN, DONE, JobStatus, Timeline, VALIDATED};
use super::validate::{self, Invalid, Summary};
use super::{ids, models};
use crate::clock::Clock;

/// `CreateFineTuningJobRequest` in the specification. As the real service, it takes no other field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateJob {
    model: String,
    training_file: String,
    validation_file: Option<String>,
    suffix: Option<String>,
    seed: Option<i64>,
    hyperparameters: Option<Hyperparameters>,
    method: Option<Method>,
    metadata: Option<BTreeMap<String, String>>,
    integrations: Option<Vec<Value>>,
    /// Where Azure trains. OpenAI does not know it.
    #[serde(rename = "trainingType")]
    training_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    r#type: String,
    supervised: Option<MethodSettings>,
    dpo: Option<MethodSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodSettings {
    hyperparameters: Option<Hyperparameters>,
}

impl CreateJob {
    /// Checks the request and makes the job that starts `now`. Mistakes in the files are not found here:
    /// they make the job fail after its validation, as at the real service.
    pub(super) fn into_job(
        self,
        store: &mut Store,
        work: TimeDelta,
        clock: &Clock,
        now: DateTime<Utc>,
        is_azure: bool,
    ) -> Result<Job, ApiError> {
        self.check_limits(is_azure)?;
        let base = models::tunable(store, &self.model).ok_or_else(|| {
            let message = format!("Model {} is not available for fine-tuning or does not exist.", self.model);
            ApiError::bad(message).param("model").code("model_not_available")
        })?;
        let (method, hyperparameters) = self.method()?;
        hyperparameters.check(method)?;

        let training = check_file(store, &self.training_file, "training_file", method)?;
        let validation = match &self.validation_file {
            Some(file) => check_file(store, file, "validation_file", method)?.map(|_| ()),
            None => Ok(()),
        };
        let (plan, failure, end) = match (training, validation) {
            (Err(error), _) | (_, Err(error)) => (None, Some(error), (VALIDATED, JobStatus::Failed)),
            (Ok(summary), Ok(())) => {
                let resolved = hyperparameters.resolve(method, summary.examples);
                let plan = Plan { resolved, trained_tokens: summary.tokens * resolved.n_epochs };
                match store.next_failures.pop_front().or_else(|| store.dealer.failure()) {
                    Some(error) => (Some(plan), Some(error), (BROKEN, JobStatus::Failed)),
                    None => (Some(plan), None, (DONE, JobStatus::Succeeded)),
                }
            }
        };

        let faults = store.dealer.jobs();
        let suffix = self.suffix.unwrap_or_default();
        let prefix = format!("ft:{}:tuneloop:{suffix}:", base.root);
        Ok(Job {
            id: ids::random::<24>("ftjob-", clock),
            model: base.id,
            training_file: self.training_file,
            validation_file: self.validation_file,
            metadata: self.metadata,
            seed: self.seed.unwrap_or_else(|| i64::from(u32::from_be_bytes(clock.bytes()) >> 1)),
            method,
            integrations: self.integrations.unwrap_or_default(),
            hyperparameters,
            plan,
            failure,
            timeline: Timeline::new(now, slowed(work, faults.slowness), end),
            unusual_statuses: faults.unusual_statuses,
            without_metrics: faults.without_metrics,
            tuned_model: ids::random::<8>(&prefix, clock),
            result_file: ids::random::<22>("file-", clock),
            settled: false,
        })
    }

    fn method(&self) -> Result<(MethodKind, Hyperparameters), ApiError> {
        let Some(method) = &self.method else {
            return Ok((MethodKind::Supervised, self.hyperparameters.unwrap_or_default()));
        };
        let (kind, settings, other) = match method.r#type.as_str() {
            "supervised" => (MethodKind::Supervised, &method.supervised, &method.dpo),
            "dpo" => (MethodKind::Dpo, &method.dpo, &method.supervised),
            other => {
                let message =
                    format!("Invalid method: the simulator trains 'supervised' and 'dpo', not '{other}'.");
                return Err(ApiError::bad(message).param("method.type"));
            }
        };
        if other.is_some() {
            return Err(ApiError::bad("Invalid method: it has settings of another type.").param("method"));
        }
        let own = settings.as_ref().and_then(|settings| settings.hyperparameters);
        Ok((kind, own.or(self.hyperparameters).unwrap_or_default()))
    }

    fn check_limits(&self, is_azure: bool) -> Result<(), ApiError> {
        let known = |kind: &String| ["standard", "globalStandard", "developerTier"].contains(&kind.as_str());
        if self.training_type.as_ref().is_some_and(|kind| !is_azure || !known(kind)) {
            let message = "Unrecognized request argument supplied: trainingType.";
            return Err(ApiError::bad(message).param("trainingType"));
        }
        if let Some(suffix) = &self.suffix
            && (suffix.is_empty() || suffix.len() > 64 || !suffix.chars().all(is_suffix_letter))
        {
            let message = "Invalid 'suffix': expected 1 to 64 letters, digits, '-', '_' or '.'.";
            return Err(ApiError::bad(message).param("suffix"));
        }
        if self.seed.is_some_and(|seed| !(0..=2_147_483_647).contains(&seed)) {
            let message = "Invalid 'seed': expected a whole number from 0 to 2147483647.";
            return Err(ApiError::bad(message).param("seed"));
        }
        if self.integrations.iter().flatten().any(|integration| !integration["type"].is_string()) {
            let message = "Invalid 'integrations': expected objects with a type.";
            return Err(ApiError::bad(message).param("integrations"));
        }
        let metadata = self.metadata.iter().flatten();
        if metadata.clone().count() > 16 {
            return Err(ApiError::bad("Invalid 'metadata': too many properties, at most 16 are allowed.")
                .param("metadata"));
        }
        for (key, value) in metadata {
            if key.chars().count() > 64 {
                return Err(
                    ApiError::bad("Invalid 'metadata': a key has more than 64 characters.").param("metadata")
                );
            }
            if value.chars().count() > 512 {
                let message = format!("Invalid 'metadata.{key}': the value has more than 512 characters.");
                return Err(ApiError::bad(message).param(format!("metadata.{key}")));
            }
        }
        Ok(())
    }
}

fn slowed(work: TimeDelta, times: f64) -> TimeDelta {
    let slowed =
        work.to_std().ok().and_then(|work| Duration::try_from_secs_f64(work.as_secs_f64() * times).ok());
    let longest = TimeDelta::days(365);
    slowed.and_then(|slowed| TimeDelta::from_std(slowed).ok()).unwrap_or(longest).min(longest)
}

fn is_suffix_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

/// Looks a file up and checks its content. The outer error refuses the request; the inner one is how the job
/// is going to fail.
fn check_file(
    store: &Store,
    id: &str,
    param: &str,
    method: MethodKind,
) -> Result<Result<Summary, JobError>, ApiError> {
    let file = store.file(id).ok_or_else(|| {
        ApiError::bad(format!("Invalid '{param}': the file {id} does not exist."))
            .param(param)
            .code("file_not_found")
    })?;
    if file.purpose != "fine-tune" {
        let message = format!("Invalid '{param}': {id} has the purpose '{}', not 'fine-tune'.", file.purpose);
        return Err(ApiError::bad(message).param(param).code("invalid_file_purpose"));
    }
    // "training" or "validation".
    let what = param.trim_end_matches("_file");
    Ok(validate::check(&file.content, method).map_err(|invalid| {
        let (code, message) = match invalid {
            Invalid::TooFew(count) => {
                let title = if what == "training" { "Training" } else { "Validation" };
                let message =
                    format!("{title} file has {count} example(s), but must have at least 10 examples");
                ("invalid_n_examples".into(), message)
            }
            Invalid::Format(faults) => {
                let message =
                    format!("The job failed due to an invalid {what} file. Invalid file format. {faults}.");
                (format!("invalid_{param}"), message)
            }
        };
        JobError { code, message, param: Some(param.into()) }
    }))
}
