//! What training may cost.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// What training may cost, in the currency of the price table. The expected cost of a run is known before anything is
/// uploaded; where the model has no price, it is over every budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetSettings {
    /// The most that one run may be expected to cost; no limit where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_run: Option<f64>,
    /// The most that the pipeline's runs of one calendar month (UTC) may cost together; no limit where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_month: Option<f64>,
    /// What becomes of a run that would cost more.
    pub over_budget: OverBudget,
    /// Whether every run waits for a person before it costs anything.
    pub require_approval: bool,
    /// How long a run waits for a person; then it is skipped.
    pub approval_seconds: f64,
}

/// What becomes of a run over the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverBudget {
    /// It waits until a person approves or rejects it.
    #[default]
    WaitForApproval,
    /// It is skipped.
    Skip,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self {
            per_run: None,
            per_month: None,
            over_budget: OverBudget::default(),
            require_approval: false,
            approval_seconds: 7.0 * 86_400.0,
        }
    }
}

impl BudgetSettings {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.money("per_run", self.per_run);
        checks.money("per_month", self.per_month);
        checks.duration("approval_seconds", self.approval_seconds);
    }
}
