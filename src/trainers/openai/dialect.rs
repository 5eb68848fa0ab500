//! What differs between the services that speak OpenAI's protocol: names, the header of the key, and how a job is found again.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::settings::ApiKey;
use super::wire;
use crate::trainers::{Checkpoint, JobStatus, ProviderJob, TrainingRequest};

/// Azure's header for the key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// The longest suffix of a model's name at Azure, by its reference of the dated versions; a longer one would be refused, or cut
/// where the id of the training is.
const LONGEST_SUFFIX: usize = 40;
/// What stands before the job's id in the name of a tuned model, and how long the id is.
const JOB_MARK: &str = ".ft-";
const JOB_ID: usize = 32;
/// What the name of a checkpoint has.
const CHECKPOINT_MARK: &str = "ckpt";
/// The longest name of a deployment at Azure.
const LONGEST_DEPLOYMENT: usize = 64;

/// The service that speaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI, and services that do as it does.
    OpenAi,
    /// Azure OpenAI, at the paths of its version 1.
    Azure,
}

impl Dialect {
    /// The provider's name, for its circuit breaker.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure_openai",
        }
    }

    /// The variable that holds the key.
    pub(super) fn key_variable(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Azure => "AZURE_OPENAI_API_KEY",
        }
    }

    /// The variable that holds the address.
    pub(super) fn address_variable(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_BASE_URL",
            Self::Azure => "AZURE_OPENAI_ENDPOINT",
        }
    }

    /// An address that the variable takes.
    pub(super) fn example_address(self) -> &'static str {
        match self {
            Self::OpenAi => super::OPENAI_BASE_URL,
            Self::Azure => "https://name.openai.azure.com",
        }
    }

    /// Sets the key, marked so that nothing logs it, in place of any other.
    pub(super) fn authorize(self, headers: &mut HeaderMap, key: &ApiKey) -> Result<(), InvalidHeaderValue> {
        let (name, text) = match self {
            Self::OpenAi => (AUTHORIZATION, format!("Bearer {}", key.expose())),
            Self::Azure => (API_KEY, key.expose().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text)?;
        value.set_sensitive(true);
        headers.remove(AUTHORIZATION);
        headers.insert(name, value);
        Ok(())
    }

    /// The body that creates a job.
    ///
    /// Whether Azure keeps metadata is not established, so the `training_id` travels in the suffix too. The
    /// pipeline's own suffix goes in front where both fit.
    pub(super) fn create_body(self, request: &TrainingRequest) -> Value {
        let mut body = wire::create_body(request);
        if self == Self::Azure {
            let id = request.training_id.to_string();
            let whole = request.suffix.as_ref().map(|own| format!("{own}-{id}"));
            let whole = whole.filter(|whole| whole.chars().count() <= LONGEST_SUFFIX);
            body["suffix"] = json!(whole.unwrap_or(id));
            if let Some(training_type) = &request.training_type {
                body["trainingType"] = training_type.as_str().into();
            }
        }
        body
    }

    /// Whether the service's own filter by metadata can be asked for: jobs without metadata would be hidden.
    pub(super) fn filters_by_metadata(self) -> bool {
        self == Self::OpenAi
    }

    /// Whether jobs are known to be listed newest first, so that a search may end at older ones.
    pub(super) fn lists_newest_first(self) -> bool {
        self == Self::OpenAi
    }

    /// Whether a listed job was created for the training.
    pub(super) fn is_of_training(self, job: &Value, training_id: &str) -> bool {
        let by_metadata = job.pointer("/metadata/training_id").and_then(Value::as_str) == Some(training_id);
        let named = |field: &str| {
            wire::text(job, field).is_some_and(|name| name.to_ascii_lowercase().contains(training_id))
        };
        by_metadata
            || self == Self::Azure
                && ["user_provided_suffix", "suffix", "fine_tuned_model"].into_iter().any(named)
    }

    /// The job in the words of the protocol.
    pub(super) fn read_job(self, value: &Value) -> Result<ProviderJob, String> {
        let mut job = wire::job(value)?;
        if self == Self::Azure {
            if job.status == JobStatus::Unknown("pending".to_owned()) {
                job.status = JobStatus::Queued;
            }
            job.fine_tuned_model = job.fine_tuned_model.as_deref().map(deployment);
        }
        Ok(job)
    }

    /// The checkpoint under the name by which it can be asked.
    pub(super) fn read_checkpoint(self, value: &Value) -> Result<Checkpoint, String> {
        let mut checkpoint = wire::checkpoint(value)?;
        if self == Self::Azure {
            checkpoint.model_id = deployment(&checkpoint.model_id);
        }
        Ok(checkpoint)
    }

    /// Whether a file is looked through for a while after its upload, and cannot be trained on before.
    pub(super) fn processes_files(self) -> bool {
        self == Self::Azure
    }
}

/// The name under which a person deploys a model at Azure, and under which it is asked: the model's own as far as it is one
/// for a deployment, which has up to 64 letters, digits, `-`, `_` and `.`.
///
/// A longer name is cut where it keeps the job's id, which tells one model from another. Where it would not, or where
/// what is cut off tells it apart as a checkpoint, its end becomes eight digits of its SHA-256.
fn deployment(model: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = model.chars().map(|letter| if fits(letter) { letter } else { '-' }).collect();
    if name.len() <= LONGEST_DEPLOYMENT {
        return name;
    }
    let head = |length: usize| name[..length].trim_end_matches(['-', '_', '.']).to_owned();
    let id_ends = name.find(JOB_MARK).map(|at| at + JOB_MARK.len() + JOB_ID);
    let keeps_id = id_ends.is_some_and(|end| end <= LONGEST_DEPLOYMENT);
    if keeps_id && !model.contains(CHECKPOINT_MARK) {
        return head(LONGEST_DEPLOYMENT);
    }
    let digest = hex::encode(Sha256::digest(model.as_bytes()));
    format!("{}-{}", head(LONGEST_DEPLOYMENT - 9), &digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_are_named_as_their_model_as_far_as_azure_allows() {
        let short = "gpt-4o-mini-2024-07-18.ft-0e208cf33a6a466994aff31a08aba678";
        assert_eq!(deployment(short), short);
        let id = "0190b3c8-1f2e-7000-8000-000000000001";
        assert_eq!(deployment(&format!("{short}-{id}")), format!("{short}-0190b"));
        assert_eq!(deployment(&format!("{short}-hook-{id}")), format!("{short}-hook"));

        let steps = [10, 20].map(|step| deployment(&format!("{short}-{id}:ckpt-step-{step}")));
        assert_ne!(steps[0], steps[1], "checkpoints of one job are told apart");
        let long = ["a", "b"]
            .map(|last| deployment(&format!("{}.ft-0e208cf33a6a466994aff31a08aba67{last}", "m".repeat(40))));
        assert_ne!(long[0], long[1], "the job's id is told apart although it does not fit");
        for name in steps.iter().chain(&long) {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(name.len() <= 64 && name.bytes().all(fits), "{name}");
        }
        assert_eq!(deployment("gpt:ckpt-step-1"), "gpt-ckpt-step-1");
    }

    #[test]
    fn the_key_takes_the_place_of_any_other_and_is_sensitive() {
        for (dialect, name, text) in
            [(Dialect::OpenAi, "authorization", "Bearer secret"), (Dialect::Azure, "api-key", "secret")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
            dialect.authorize(&mut headers, &ApiKey::new("secret")).unwrap();
            assert_eq!((headers.len(), headers[name].as_bytes()), (1, text.as_bytes()), "{dialect:?}");
            assert!(headers[name].is_sensitive());
        }
    }
}
