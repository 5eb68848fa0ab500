//! The configuration of a pipeline, validated as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cron::Cron;
use crate::dataset::DatasetSettings;
use crate::experiments::decision::Rules;
use crate::trainers::PROVIDERS;

const DAY: f64 = 86_400.0;
/// Each look is a call of the provider or a write of the database.
const SHORTEST_INTERVAL: f64 = 0.05;
/// Ten years: nothing in a pipeline takes longer.
const LONGEST: f64 = 3650.0 * DAY;

/// How a pipeline's model is improved. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The model that serves before anything was trained: version 0.0.0. Fixed at creation.
    pub serving_model: String,
    /// What is trained on.
    #[serde(default)]
    pub dataset: DatasetSettings,
    /// How it is trained.
    pub training: TrainingSettings,
    /// When a run starts by itself.
    #[serde(default)]
    pub schedule: ScheduleSettings,
    /// How a new model is tested against the live one.
    #[serde(default)]
    pub experiment: ExperimentSettings,
    /// How a promoted model is watched.
    #[serde(default)]
    pub watch: WatchSettings,
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// The trainer, such as `openai`.
    #[serde(default = "openai")]
    pub provider: String,
    /// The model that is trained; providers train dated snapshots.
    pub base_model: String,
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
    /// Makes training repeatable where the provider supports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Time between two looks at the provider's job.
    #[serde(default = "poll_seconds")]
    pub poll_seconds: f64,
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
            suffix: None,
            n_epochs: None,
            batch_size: None,
            learning_rate_multiplier: None,
            seed: None,
            poll_seconds: poll_seconds(),
            settle_seconds: settle_seconds(),
            time_limit_seconds: time_limit_seconds(),
        }
    }
}

fn openai() -> String {
    "openai".into()
}

fn poll_seconds() -> f64 {
    30.0
}

fn settle_seconds() -> f64 {
    600.0
}

fn time_limit_seconds() -> f64 {
    DAY
}

/// When a run starts by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSettings {
    /// Whether it does.
    pub enabled: bool,
    /// Five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// An IANA time zone, such as `Europe/Berlin`.
    pub timezone: String,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self { enabled: true, cron: "0 2 * * 0".into(), timezone: "UTC".into() }
    }
}

/// How a new model is tested against the live one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentSettings {
    /// How long the test runs; the decision falls at its end. A whole weekly cycle by default.
    pub horizon_seconds: f64,
    /// The candidate's share of the traffic, in basis points.
    #[schema(minimum = 1, maximum = 9999)]
    pub candidate_weight: i32,
    /// Time between two looks for harm during the test.
    pub interval_seconds: f64,
    /// How long an inconclusive test waits for a person.
    pub approval_seconds: f64,
    /// What the decision asks for.
    pub rules: Rules,
}

impl Default for ExperimentSettings {
    fn default() -> Self {
        Self {
            horizon_seconds: 7.0 * DAY,
            candidate_weight: 1_000,
            interval_seconds: 300.0,
            approval_seconds: 7.0 * DAY,
            rules: Rules::default(),
        }
    }
}

/// How a promoted model is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSettings {
    /// How long; the next run's test ends it earlier.
    pub duration_seconds: f64,
    /// Time between two looks for harm.
    pub interval_seconds: f64,
    /// The share that stays on the former version meanwhile, in basis points. With 0 nothing is compared.
    #[schema(minimum = 0, maximum = 9999)]
    pub hold_back_weight: i32,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { duration_seconds: 7.0 * DAY, interval_seconds: 300.0, hold_back_weight: 1_000 }
    }
}

/// What is wrong with a configuration: field (as a JSON pointer) and sentence.
pub type Faults = BTreeMap<String, String>;

impl PipelineConfig {
    /// Checks everything at once and tells of every fault.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::new();
        let mut check = |field: &str, good: bool, sentence: &str| {
            if !good {
                faults.insert(field.to_owned(), sentence.to_owned());
            }
        };
        let name = |text: &str| !text.trim().is_empty() && text.len() <= 256;
        let seconds = |value: f64| value > 0.0 && value <= LONGEST;
        let interval = |value: f64| (SHORTEST_INTERVAL..=LONGEST).contains(&value);
        let whole = |value: Option<u32>, most| value.is_none_or(|value| (1..=most).contains(&value));

        check("/serving_model", name(&self.serving_model), "must be the id of a model, up to 256 characters");

        let training = &self.training;
        check(
            "/training/provider",
            PROVIDERS.contains(&training.provider.as_str()),
            &format!("must be one of: {}", PROVIDERS.join(", ")),
        );
        check(
            "/training/base_model",
            name(&training.base_model),
            "must be the id of a model, up to 256 characters",
        );
        check(
            "/training/suffix",
            training.suffix.as_ref().is_none_or(|s| (1..=64).contains(&s.chars().count())),
            "must have 1 to 64 characters",
        );
        check("/training/n_epochs", whole(training.n_epochs, 50), "must be between 1 and 50");
        check("/training/batch_size", whole(training.batch_size, 256), "must be between 1 and 256");
        check(
            "/training/learning_rate_multiplier",
            training.learning_rate_multiplier.is_none_or(|m| m.is_finite() && m > 0.0),
            "must be above 0",
        );
        check("/training/poll_seconds", interval(training.poll_seconds), INTERVAL);
        check("/training/settle_seconds", seconds(training.settle_seconds), DURATION);
        check("/training/time_limit_seconds", seconds(training.time_limit_seconds), DURATION);

        let experiment = &self.experiment;
        check("/experiment/horizon_seconds", seconds(experiment.horizon_seconds), DURATION);
        check(
            "/experiment/candidate_weight",
            (1..10_000).contains(&experiment.candidate_weight),
            "must be between 1 and 9999 basis points",
        );
        check("/experiment/interval_seconds", interval(experiment.interval_seconds), INTERVAL);
        check("/experiment/approval_seconds", seconds(experiment.approval_seconds), DURATION);

        check(
            "/experiment/rules/minimum_hours",
            experiment.rules.minimum_hours * 3600.0 <= experiment.horizon_seconds,
            "must not be longer than the horizon, or no test could be decided",
        );

        let watch = &self.watch;
        check("/watch/duration_seconds", seconds(watch.duration_seconds), DURATION);
        check("/watch/interval_seconds", interval(watch.interval_seconds), INTERVAL);
        check(
            "/watch/hold_back_weight",
            (0..10_000).contains(&watch.hold_back_weight),
            "must be between 0 and 9999 basis points",
        );

        let dataset = self.dataset.faults().into_iter();
        faults.extend(dataset.map(|(field, sentence)| (format!("/dataset{field}"), sentence)));
        if let Err(error) = Cron::checked(&self.schedule.cron, &self.schedule.timezone) {
            faults.insert(error.field().to_owned(), error.to_string());
        }
        if let Err(error) = experiment.rules.validate() {
            let field = format!("/experiment/rules/{}", error.field.replace('.', "/"));
            faults.insert(field, format!("must be {}", error.accepts));
        }
        faults
    }
}

const INTERVAL: &str = "must be a number of seconds of at least 0.05 and at most ten years";
const DURATION: &str = "must be a number of seconds above 0 and at most ten years";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn minimal() -> PipelineConfig {
        serde_json::from_value(
            json!({"serving_model": "gpt-4o", "training": {"base_model": "gpt-4o-2024-08-06"}}),
        )
        .unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_loop_it_replaces() {
        let config = minimal();
        assert!(config.faults().is_empty(), "{:?}", config.faults());
        assert!((config.dataset.engagement_threshold - 0.06).abs() < f64::EPSILON);
        assert_eq!(config.dataset.minimum_examples, 100);
        assert!((config.dataset.lookback_seconds - 604_800.0).abs() < f64::EPSILON);
        assert_eq!(config.schedule.cron, "0 2 * * 0");
        assert!((config.experiment.horizon_seconds - 168.0 * 3600.0).abs() < f64::EPSILON);
        assert_eq!(config.experiment.candidate_weight, 1_000);
    }

    #[test]
    fn every_fault_is_told_with_its_field() {
        let mut config = minimal();
        config.serving_model = " ".into();
        config.dataset.minimum_examples = 9;
        config.dataset.lookback_seconds = f64::NAN;
        config.training.n_epochs = Some(51);
        config.experiment.candidate_weight = 10_000;
        config.watch.hold_back_weight = -1;
        config.schedule.cron = "every sunday".into();
        let fields: Vec<_> = config.faults().into_keys().collect();
        assert_eq!(
            fields,
            [
                "/dataset/lookback_seconds",
                "/dataset/minimum_examples",
                "/experiment/candidate_weight",
                "/schedule/cron",
                "/serving_model",
                "/training/n_epochs",
                "/watch/hold_back_weight",
            ]
        );
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = json!({"serving_model": "a", "training": {"base_model": "b", "epochs": 3}});
        assert!(serde_json::from_value::<PipelineConfig>(text).unwrap_err().to_string().contains("epochs"));
    }
}
