//! What happens when the models that serve come to their end at the provider.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// A minute: each check asks the provider about every version that serves.
const SHORTEST_CHECK: f64 = 60.0;
/// A week: warnings are about days.
const LONGEST_CHECK: f64 = 7.0 * 86_400.0;

/// What happens when the models that serve come to their end at the provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleSettings {
    /// Time between two checks of the models that serve.
    #[schema(minimum = 60, maximum = 604_800)]
    pub check_seconds: f64,
    /// The base model on which a run is started, once, when the live version has 60 days left or fewer. The configuration stays as
    /// it is: make it `training.base_model` as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gpt-4.1-2025-04-14")]
    pub successor_model: Option<String>,
    /// What becomes of the traffic when the live model is gone.
    pub when_gone: WhenGone,
}

/// What becomes of the traffic when the live model is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenGone {
    /// It goes to the newest version that was live before and still answers.
    #[default]
    RollBack,
    /// It stays where it is, until a person moves it.
    Nothing,
}

impl Default for LifecycleSettings {
    fn default() -> Self {
        Self { check_seconds: 86_400.0, successor_model: None, when_gone: WhenGone::RollBack }
    }
}

impl LifecycleSettings {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        let interval = (SHORTEST_CHECK..=LONGEST_CHECK).contains(&self.check_seconds);
        checks.that(
            "check_seconds",
            interval,
            "must be a number of seconds from 60 to 604800, which is a week",
        );
        if let Some(model) = &self.successor_model {
            checks.model("successor_model", model);
        }
    }
}
