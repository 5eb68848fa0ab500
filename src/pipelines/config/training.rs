//! How a model is trained.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::checks::Checks;
use super::search::SearchSettings;
use crate::trainers::{Hyperparameters, Method, PROVIDERS};

/// The only provider that lets choose where it trains.
const AZURE: &str = "azure_openai";
/// Where that is.
const TRAINING_TYPES: [&str; 3] = ["standard", "globalStandard", "developerTier"];

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// The trainer: `openai` or `azure_openai`.
    #[serde(default = "openai")]
    pub provider: String,
    /// The model that is trained; providers train dated snapshots.
    pub base_model: String,
    /// Supervised, or by preference (DPO), for which the dataset makes pairs.
    #[serde(default)]
    pub method: Method,
    /// Part of the new model's name at the provider, up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Passes over the data, 1 to 50; the provider chooses where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_epochs: Option<u32>,
    /// Examples per step, 1 to 256; the provider chooses where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Scales the learning rate, above 0; the provider chooses where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate_multiplier: Option<f64>,
    /// How closely preference training keeps to the base model, above 0 and up to 2; the provider chooses where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Makes training repeatable where the provider supports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Several trainings of one dataset, of which the best on the validation set goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchSettings>,
    /// Where Azure trains: `standard`, `globalStandard` or `developerTier`. Other providers do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_type: Option<String>,
    /// Handed to the provider as they are, such as `{"type": "wandb", "wandb": {"project": "posts"}}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub integrations: Vec<Value>,
    /// Whether the uploaded files are deleted at the provider when the run ends.
    #[serde(default)]
    pub delete_files: bool,
    /// Time between the first two looks at the provider's job; it grows while nothing changes.
    #[serde(default = "poll_seconds")]
    pub poll_seconds: f64,
    /// The longest time between two looks.
    #[serde(default = "maximum_poll_seconds")]
    pub maximum_poll_seconds: f64,
    /// How long a job or file is looked for after a call whose answer never came, before it is sent again.
    #[serde(default = "settle_seconds")]
    pub settle_seconds: f64,
    /// A job that takes longer is cancelled.
    #[serde(default = "time_limit_seconds")]
    pub time_limit_seconds: f64,
}

impl TrainingSettings {
    /// Training of this model with everything else at its default.
    #[must_use]
    pub fn new(base_model: String) -> Self {
        Self {
            provider: openai(),
            base_model,
            method: Method::default(),
            suffix: None,
            n_epochs: None,
            batch_size: None,
            learning_rate_multiplier: None,
            beta: None,
            seed: None,
            search: None,
            training_type: None,
            integrations: Vec::new(),
            delete_files: false,
            poll_seconds: poll_seconds(),
            maximum_poll_seconds: maximum_poll_seconds(),
            settle_seconds: settle_seconds(),
            time_limit_seconds: time_limit_seconds(),
        }
    }

    /// The hyperparameters of each training of a run: one, or as many as the search tries.
    #[must_use]
    pub fn trials(&self) -> Vec<Hyperparameters> {
        let base = Hyperparameters {
            n_epochs: self.n_epochs,
            batch_size: self.batch_size,
            learning_rate_multiplier: self.learning_rate_multiplier,
            beta: self.beta,
        };
        self.search.as_ref().map_or_else(|| vec![base], |search| search.trials(base))
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        let provider = PROVIDERS.contains(&self.provider.as_str());
        checks.that("provider", provider, &format!("must be one of: {}", PROVIDERS.join(", ")));
        checks.model("base_model", &self.base_model);
        let training_type = self.training_type.as_deref().is_none_or(|name| TRAINING_TYPES.contains(&name));
        let known = format!("must be one of: {}", TRAINING_TYPES.join(", "));
        checks.that("training_type", training_type, &known);
        let azure = self.training_type.is_none() || self.provider == AZURE;
        checks.that("training_type", azure, "needs the provider azure_openai");
        let suffix = self.suffix.as_ref().is_none_or(|suffix| (1..=64).contains(&suffix.chars().count()));
        checks.that("suffix", suffix, "must have 1 to 64 characters");
        let whole = |value: Option<u32>, most| value.is_none_or(|value| (1..=most).contains(&value));
        checks.that("n_epochs", whole(self.n_epochs, 50), "must be between 1 and 50");
        checks.that("batch_size", whole(self.batch_size, 256), "must be between 1 and 256");
        let multiplier = self.learning_rate_multiplier.is_none_or(|m| m.is_finite() && m > 0.0);
        checks.that("learning_rate_multiplier", multiplier, "must be above 0");
        let beta = self.beta.is_none_or(|beta| beta > 0.0 && beta <= 2.0);
        checks.that("beta", beta, "must be above 0 and at most 2");
        let preference = self.method == Method::Preference;
        checks.that("beta", self.beta.is_none() || preference, "needs the method preference");
        let objects = self.integrations.iter().all(|integration| integration["type"].is_string());
        checks.that("integrations", objects, "must be objects with a type");
        if let Some(search) = &self.search {
            search.check(checks, preference);
        }
        checks.interval("poll_seconds", self.poll_seconds);
        checks.interval("maximum_poll_seconds", self.maximum_poll_seconds);
        checks.duration("settle_seconds", self.settle_seconds);
        checks.duration("time_limit_seconds", self.time_limit_seconds);
    }
}

fn openai() -> String {
    "openai".into()
}

fn poll_seconds() -> f64 {
    30.0
}

fn maximum_poll_seconds() -> f64 {
    300.0
}

fn settle_seconds() -> f64 {
    600.0
}

fn time_limit_seconds() -> f64 {
    86_400.0
}
