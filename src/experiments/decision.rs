//! What becomes of the candidate: the rules, applied to the evidence in a fixed order.
//!
//! A decision is a pure function of its evidence and rules. It is stored with both as a [`Record`], from which
//! it can be taken again. Nothing inconclusive is ever promoted by itself.

mod check;
mod evidence;
mod figures;
mod guardrail;
mod harm;
mod metrics;
mod order;
mod policy;
mod record;
mod rules;
mod success;
mod wording;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

pub use super::statistics::group_sequential::{Bound, Look as EarlyLook};
pub use check::{Check, CheckCode, ReasonCode, Verdict};
pub use evidence::{Evidence, Observed};
pub use guardrail::{GuardrailResult, GuardrailStatus};
pub use harm::{HarmLook, HarmReport, look_for_harm};
pub use metrics::{Guardrail, Metric, Watched};
pub use policy::{Policy, cost_gain, lift};
pub use record::Record;
pub use rules::{EarlyPromotion, Extension, InvalidRule, Rules};
pub use success::SuccessResult;
pub(crate) use wording::thousands;

use super::statistics::sequential::Sequence;
use super::statistics::{Estimate, NoEstimate};

/// The version of the engine. It rises with any change after which the same evidence and rules could give
/// another figure or verdict.
pub const ENGINE_VERSION: u32 = 3;

/// A verdict with every figure that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// What becomes of the candidate.
    pub verdict: Verdict,
    /// Why, for machines.
    pub reason_code: ReasonCode,
    /// Why, in one sentence with figures.
    pub reason: String,
    /// The effect on the primary metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Why there is no estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_estimate: Option<NoEstimate>,
    /// The two-sided confidence sequence of the difference, at twice the level of the test (in its extended
    /// part: of what was reserved): what may be read from the effect before the horizon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// The sample-ratio p-value. Before the decision it is a warning only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_ratio: Option<f64>,
    /// This look at harm, by watched metric.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub harm: Vec<HarmLook>,
    /// The success metrics besides the primary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<SuccessResult>,
    /// The guardrails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<GuardrailResult>,
    /// The look that this decision spends a part of the level on, where early promotion is on. The caller
    /// adds it to those of later evidence where the test goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_look: Option<EarlyLook>,
    /// The bound of that look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_bound: Option<Bound>,
    /// The standard errors that later looks are to be given, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub planned_standard_errors: BTreeMap<Metric, f64>,
    /// The checks, in the order of the decision.
    pub checks: Vec<Check>,
}

impl Decision {
    /// The check of that kind, if it was made.
    #[must_use]
    pub fn check(&self, code: CheckCode) -> Option<&Check> {
        self.checks.iter().find(|check| check.code == code)
    }

    fn undecidable() -> Self {
        Self {
            verdict: Verdict::Inconclusive,
            reason_code: ReasonCode::RulesInvalid,
            reason: String::new(),
            estimate: None,
            no_estimate: None,
            sequence: None,
            sample_ratio: None,
            harm: Vec::new(),
            success: Vec::new(),
            guardrails: Vec::new(),
            early_look: None,
            early_bound: None,
            planned_standard_errors: BTreeMap::new(),
            checks: Vec::new(),
        }
    }

    fn holds(&self, code: CheckCode) -> bool {
        self.check(code).is_some_and(Check::holds)
    }

    fn fails(&self, code: CheckCode) -> bool {
        self.check(code).is_some_and(Check::fails)
    }

    fn all(&self, code: CheckCode) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.code == code)
    }
}

/// Engine version 1 stored the look at its one metric by itself.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HarmLook>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        Many(Vec<HarmLook>),
        One(Box<HarmLook>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(looks) => looks,
        OneOrMany::One(look) => vec![*look],
    })
}

/// Applies the rules to the evidence.
///
/// The order: a sample-ratio mismatch at the decision is `invalid`; harm to a watched metric at any look is
/// `stop_for_harm`; before the horizon, and unless an early bound is crossed, all else is `collecting`; too
/// little data at the horizon is `inconclusive`; a superior success metric with every guardrail within its
/// margin is `promote`; an interval that ends below the minimum effect, or a guardrail that is worse, is
/// `reject`; the rest is `inconclusive`, or `extend` where a part of the level was reserved and the test was not
/// extended before. Each arm needs its own minimum of outcomes and clusters, counted in the epochs that can be
/// compared.
#[must_use]
pub fn decide(evidence: &Evidence, rules: &Rules) -> Decision {
    let mut decision = Decision::undecidable();
    if rules.validate().is_ok() {
        figures::gather(&mut decision, evidence, rules);
        (decision.verdict, decision.reason_code) = order::verdict(&decision, evidence, rules);
    }
    decision.reason = wording::sentence(&decision, evidence, rules);
    decision
}
