//! What a new model shows before it meets traffic.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// What a new model shows before it meets traffic, on examples that it was not trained on where there are any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSettings {
    /// A few answers are looked at for what no user should see.
    pub smoke: SmokeSettings,
    /// How the new model is compared with the live one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<ComparisonSettings>,
    /// How long a new model that does not answer yet is waited for. With Azure, a person deploys it in this time.
    pub serving_seconds: f64,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { smoke: SmokeSettings::default(), comparison: None, serving_seconds: 86_400.0 }
    }
}

/// A few answers are looked at for what no user should see: nothing, too much, a refusal, or the prompt itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmokeSettings {
    /// How many prompts are answered, up to 20; with 0 none are.
    #[schema(maximum = 20)]
    pub prompts: u32,
    /// The longest answer that passes, in characters.
    pub maximum_characters: u32,
}

impl Default for SmokeSettings {
    fn default() -> Self {
        Self { prompts: 3, maximum_characters: 20_000 }
    }
}

/// How the new model is compared with the live one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum ComparisonSettings {
    /// By the loss on the validation set at the end of training.
    Loss {
        /// The run is rejected where the new model's loss is above the live one's by more than this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maximum_increase: Option<f64>,
        /// What becomes of the run where one of the models has no loss.
        #[serde(default)]
        no_data: NoData,
    },
    /// By another model that scores both models' answers from 0 to 1.
    Judge(JudgeSettings),
}

/// What becomes of a run whose model cannot be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoData {
    /// It goes on, and says so.
    #[default]
    GoOn,
    /// It is rejected.
    Reject,
}

/// A model that scores answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeSettings {
    /// The model that judges, at the pipeline's provider.
    pub model: String,
    /// What makes an answer good, in words for the judge.
    #[serde(default = "criteria")]
    pub criteria: String,
    /// How many validation prompts both models answer, 1 to 500.
    #[serde(default = "examples")]
    #[schema(minimum = 1, maximum = 500)]
    pub examples: u32,
    /// The run is rejected where the new model's mean score is below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
}

fn criteria() -> String {
    "It answers the request, reads well, and would make people stop and react.".into()
}

fn examples() -> u32 {
    20
}

impl EvaluationSettings {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.that("smoke/prompts", self.smoke.prompts <= 20, "must be at most 20");
        let longest = (1..=1_000_000).contains(&self.smoke.maximum_characters);
        checks.that("smoke/maximum_characters", longest, "must be between 1 and 1000000");
        checks.duration("serving_seconds", self.serving_seconds);
        match &self.comparison {
            Some(ComparisonSettings::Loss { maximum_increase, .. }) => {
                let good = maximum_increase.is_none_or(|most| most.is_finite() && most >= 0.0);
                checks.that("comparison/maximum_increase", good, "must be a number of at least 0");
            }
            Some(ComparisonSettings::Judge(judge)) => {
                checks.model("comparison/model", &judge.model);
                let criteria = !judge.criteria.trim().is_empty() && judge.criteria.len() <= 10_000;
                checks.that("comparison/criteria", criteria, "must have 1 to 10000 bytes");
                let examples = (1..=500).contains(&judge.examples);
                checks.that("comparison/examples", examples, "must be between 1 and 500");
                let floor = judge.floor.is_none_or(|floor| (0.0..=1.0).contains(&floor));
                checks.that("comparison/floor", floor, "must be between 0 and 1");
            }
            None => {}
        }
    }
}
