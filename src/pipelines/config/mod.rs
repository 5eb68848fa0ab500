//! The configuration of a pipeline, validated as a whole.

mod budget;
mod checks;
mod deployment;
mod evaluation;
mod experiment;
mod lifecycle;
mod outcomes;
mod publication;
mod search;
mod training;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cron::Cron;
use crate::dataset::DatasetSettings;
use crate::trainers::Method;

pub use budget::{BudgetSettings, OverBudget};
pub use checks::Faults;
pub use deployment::{DeploymentSettings, DeploymentStrategy, RolloutSettings};
pub use evaluation::{ComparisonSettings, EvaluationSettings, JudgeSettings, NoData, SmokeSettings};
pub use experiment::{ExperimentSettings, RampSettings, Unjudged, WatchSettings};
pub use lifecycle::{LifecycleSettings, WhenGone};
pub use outcomes::{OutcomeJudgeSettings, OutcomeSettings, PullSettings};
pub use publication::{
    ConfigMapTarget, FileTarget, HttpTarget, PublicationSettings, PublicationTarget, RestartOn, TargetKind,
};
pub use search::{SearchSettings, SearchStrategy};
pub use training::TrainingSettings;

use checks::Checks;

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
    /// What training may cost.
    #[serde(default)]
    pub budget: BudgetSettings,
    /// What a new model shows before it meets traffic.
    #[serde(default)]
    pub evaluation: EvaluationSettings,
    /// When a run starts by itself.
    #[serde(default)]
    pub schedule: ScheduleSettings,
    /// How a new model is tested against the live one.
    #[serde(default)]
    pub experiment: ExperimentSettings,
    /// How a promoted model is watched.
    #[serde(default)]
    pub watch: WatchSettings,
    /// How a promoted model gets its traffic, and what a promotion by hand is held to.
    #[serde(default)]
    pub deployment: DeploymentSettings,
    /// How outcomes are gathered beside those that applications send.
    #[serde(default)]
    pub outcomes: OutcomeSettings,
    /// What happens when the models that serve come to their end at the provider.
    #[serde(default)]
    pub lifecycle: LifecycleSettings,
    /// Where its traffic is published for applications that do not ask the API.
    #[serde(default)]
    pub publication: PublicationSettings,
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

impl PipelineConfig {
    /// Checks everything at once and tells of every fault.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::new();
        Checks { section: "", faults: &mut faults }.model("serving_model", &self.serving_model);
        self.training.check(&mut Checks { section: "/training", faults: &mut faults });
        self.budget.check(&mut Checks { section: "/budget", faults: &mut faults });
        self.evaluation.check(&mut Checks { section: "/evaluation", faults: &mut faults });
        self.experiment.check(&mut Checks { section: "/experiment", faults: &mut faults });
        self.watch.check(&mut Checks { section: "/watch", faults: &mut faults });
        let deployment = &mut Checks { section: "/deployment", faults: &mut faults };
        self.deployment.check(deployment, &self.experiment, &self.watch);
        self.outcomes.check(&mut Checks { section: "/outcomes", faults: &mut faults });
        self.lifecycle.check(&mut Checks { section: "/lifecycle", faults: &mut faults });
        self.publication.check(&mut Checks { section: "/publication", faults: &mut faults });

        let dataset = self.dataset.faults().into_iter();
        faults.extend(dataset.map(|(field, sentence)| (format!("/dataset{field}"), sentence)));
        if (self.training.method == Method::Preference) != self.dataset.pairs.is_some() {
            let sentence = "must be preference where dataset.pairs is set, and supervised where it is not";
            faults.insert("/training/method".to_owned(), sentence.to_owned());
        }
        if let Err(error) = Cron::checked(&self.schedule.cron, &self.schedule.timezone) {
            faults.insert(error.field().to_owned(), error.to_string());
        }
        if let Err(error) = self.experiment.rules.validate() {
            let field = format!("/experiment/rules/{}", error.field.replace('.', "/"));
            faults.insert(field, format!("must be {}", error.accepts));
        }
        faults
    }
}

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
        config.lifecycle.check_seconds = 59.0;
        config.lifecycle.successor_model = Some(String::new());
        let fields: Vec<_> = config.faults().into_keys().collect();
        assert_eq!(
            fields,
            [
                "/dataset/lookback_seconds",
                "/dataset/minimum_examples",
                "/experiment/candidate_weight",
                "/lifecycle/check_seconds",
                "/lifecycle/successor_model",
                "/schedule/cron",
                "/serving_model",
                "/training/n_epochs",
                "/watch/hold_back_weight",
            ]
        );
    }

    #[test]
    fn training_stays_within_the_protocols_bounds() {
        let mut config = minimal();
        config.training.method = Method::Preference;
        config.training.beta = Some(2.1);
        config.training.integrations = vec![json!("wandb")];
        config.training.search = Some(
            serde_json::from_value(json!({"n_epochs": [1, 2, 51], "batch_size": [4, 4], "beta": [0.0]}))
                .unwrap(),
        );
        config.budget.per_month = Some(-1.0);
        config.evaluation.comparison =
            Some(serde_json::from_value(json!({"by": "judge", "model": "gpt-4o", "floor": 1.5})).unwrap());
        let fields: Vec<_> = config.faults().into_keys().collect();
        assert_eq!(
            fields,
            [
                "/budget/per_month",
                "/evaluation/comparison/floor",
                "/training/beta",
                "/training/integrations",
                "/training/method",
                "/training/search/batch_size",
                "/training/search/beta",
                "/training/search/maximum_trainings",
                "/training/search/n_epochs",
            ]
        );
    }

    #[test]
    fn only_azure_lets_choose_where_it_trains() {
        let faults = |provider: &str, training_type: &str| {
            let mut config = minimal();
            config.training.provider = provider.into();
            config.training.training_type = Some(training_type.into());
            config.faults().into_iter().collect::<Vec<_>>()
        };
        for training_type in ["standard", "globalStandard", "developerTier"] {
            assert_eq!(faults("azure_openai", training_type), []);
            let [(field, sentence)] = &faults("openai", training_type)[..] else { panic!("one fault") };
            assert_eq!(
                (field.as_str(), sentence.as_str()),
                ("/training/training_type", "needs the provider azure_openai")
            );
        }
        let [(field, sentence)] = &faults("azure_openai", "GlobalStandard")[..] else { panic!("one fault") };
        assert_eq!(field, "/training/training_type");
        assert!(sentence.contains("globalStandard"), "{sentence}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let text = json!({"serving_model": "a", "training": {"base_model": "b", "epochs": 3}});
        assert!(serde_json::from_value::<PipelineConfig>(text).unwrap_err().to_string().contains("epochs"));
    }
}
