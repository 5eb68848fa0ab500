//! What becomes of the candidate: the rules, applied to the evidence in a fixed order.
//!
//! A decision is a pure function of its evidence and rules. It is stored with both as a [`Record`], from which
//! it can be taken again. Nothing inconclusive is ever promoted by itself.

mod check;
mod evidence;
mod harm;
mod policy;
mod record;
mod rules;
mod wording;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use check::{Check, CheckCode, ReasonCode, Verdict};
pub use evidence::Evidence;
pub use harm::{HarmLook, look_for_harm};
pub use policy::{Policy, cost_gain, lift};
pub use record::Record;
pub use rules::{InvalidRule, Metric, Rules};
pub(crate) use wording::thousands;

use super::statistics::sequential::{Sequence, confidence_sequence};
use super::statistics::{Estimate, Method, NoEstimate, estimate, sample_ratio};

/// The version of the engine. It rises with any change after which the same evidence and rules could give
/// another figure or verdict.
pub const ENGINE_VERSION: u32 = 1;

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
    /// The two-sided confidence sequence of the difference, at twice the level of the test: what may be read
    /// from the effect before the horizon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// The sample-ratio p-value. Before the decision it is a warning only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_ratio: Option<f64>,
    /// This look at harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harm: Option<HarmLook>,
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
            harm: None,
            checks: Vec::new(),
        }
    }

    fn holds(&self, code: CheckCode) -> bool {
        self.check(code).is_some_and(Check::holds)
    }

    fn fails(&self, code: CheckCode) -> bool {
        self.check(code).is_some_and(Check::fails)
    }
}

/// Applies the rules to the evidence.
///
/// The order: a sample-ratio mismatch at the horizon is `invalid`; harm at any look is `stop_for_harm`; before
/// the horizon all else is `collecting`; too little data at the horizon is `inconclusive`; a superior primary
/// metric is `promote`; an interval that ends below the minimum effect is `reject`; the rest is
/// `inconclusive`. Each arm needs its own minimum of outcomes and clusters, counted in the epochs that can be
/// compared.
#[must_use]
pub fn decide(evidence: &Evidence, rules: &Rules) -> Decision {
    let mut decision = Decision::undecidable();
    if rules.validate().is_ok() {
        gather(&mut decision, evidence, rules);
        (decision.verdict, decision.reason_code) = verdict(&decision, evidence, rules);
    }
    decision.reason = wording::sentence(&decision, evidence, rules);
    decision
}

/// Computes every figure and check.
fn gather(decision: &mut Decision, evidence: &Evidence, rules: &Rules) {
    let cells = evidence.randomised(&evidence.cells);
    let method = Method::of(rules.assignment, evidence.sampling);
    let direction = rules.primary.direction();
    let level = 1.0 - 2.0 * rules.alpha;

    match estimate(&cells, method, 1.0, level) {
        Ok(estimate) => decision.estimate = Some(estimate),
        Err(why) => decision.no_estimate = Some(why),
    }
    decision.sample_ratio = sample_ratio::p_value(&evidence.units);
    let harm = look_for_harm(&cells, evidence.sampling, rules, evidence.planned_standard_error);
    decision.sequence =
        decision.estimate.as_ref().zip(harm.planned_standard_error).and_then(|(found, planned)| {
            confidence_sequence(found.difference, found.standard_error, planned, 2.0 * rules.alpha)
        });

    let counts = decision.estimate.as_ref().map(|estimate| estimate.counts).unwrap_or_default();
    let outcomes = counts.baseline.outcomes.min(counts.candidate.outcomes) as f64;
    let clusters = counts.baseline.clusters.min(counts.candidate.clusters) as f64;
    let hours = Some(evidence.hours_elapsed).filter(|hours| hours.is_finite());
    let p = decision.estimate.as_ref().and_then(|estimate| estimate.p_better(direction));
    let beyond_minimum = estimate(&cells, method, direction.multiplier(rules.minimum_effect), level);
    let best_case = beyond_minimum.ok().and_then(|contrast| contrast.best_case(direction));
    let at_least = |actual: f64, required: f64| actual >= required;
    let below = |actual: f64, required: f64| actual < required;
    decision.checks = vec![
        Check::new(CheckCode::SampleRatio, decision.sample_ratio, rules.sample_ratio_alpha, at_least),
        Check::new(CheckCode::Harm, harm.e_value, harm.threshold, below),
        Check::new(CheckCode::Hours, hours, rules.minimum_hours, at_least),
        Check::new(CheckCode::Outcomes, Some(outcomes), rules.minimum_outcomes as f64, at_least),
        Check::new(CheckCode::Clusters, Some(clusters), rules.minimum_clusters as f64, at_least),
        Check::new(CheckCode::Superiority, p, rules.alpha, below),
        Check::new(CheckCode::MinimumEffect, best_case, 0.0, at_least),
    ];
    decision.harm = Some(harm);
    if let Some(policy) = rules.policy {
        decision.checks.extend(policy_checks(policy, decision.estimate.as_ref(), evidence, method));
    }
}

/// The policy's point estimates, over the same epochs as the test.
fn policy_checks(
    policy: Policy,
    primary: Option<&Estimate>,
    evidence: &Evidence,
    method: Method,
) -> impl Iterator<Item = Check> {
    let lifted = primary.and_then(|found| lift(found.mean_baseline, found.mean_candidate));
    let cost = estimate(&evidence.randomised(&evidence.cost), method, 1.0, 0.95).ok();
    let gained = cost.and_then(|found| cost_gain(found.mean_baseline, found.mean_candidate));
    let asked = [
        (CheckCode::PolicyLift, lifted, policy.minimum_engagement_lift),
        (CheckCode::PolicyCostGain, gained, policy.minimum_cost_gain),
    ];
    asked.into_iter().filter_map(|(code, actual, required)| {
        Some(Check::new(code, actual, required?, |actual, required| actual >= required))
    })
}

/// The order of the decision.
fn verdict(decision: &Decision, evidence: &Evidence, rules: &Rules) -> (Verdict, ReasonCode) {
    if evidence.horizon_reached && decision.fails(CheckCode::SampleRatio) {
        return (Verdict::Invalid, ReasonCode::SampleRatioMismatch);
    }
    if decision.harm.as_ref().is_some_and(|look| look.harmed) {
        return (Verdict::StopForHarm, ReasonCode::Harm);
    }
    if !evidence.horizon_reached {
        return (Verdict::Collecting, ReasonCode::HorizonNotReached);
    }
    if matches!(decision.no_estimate, Some(NoEstimate::Unusable | NoEstimate::OutOfRange)) {
        return (Verdict::Inconclusive, ReasonCode::EvidenceUnusable);
    }
    let needed = [CheckCode::Hours, CheckCode::Outcomes, CheckCode::Clusters];
    if decision.estimate.is_none() || !needed.into_iter().all(|code| decision.holds(code)) {
        return (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes);
    }
    if decision.check(CheckCode::Superiority).is_none_or(|check| check.passed.is_none()) {
        return (Verdict::Inconclusive, ReasonCode::NoVariance);
    }
    if decision.holds(CheckCode::Superiority) {
        return superior(decision);
    }
    if decision.fails(CheckCode::MinimumEffect) {
        let code =
            if rules.minimum_effect > 0.0 { ReasonCode::EffectBelowMinimum } else { ReasonCode::NoLift };
        return (Verdict::Reject, code);
    }
    (Verdict::Inconclusive, ReasonCode::NotSignificant)
}

/// A superior candidate is promoted unless something else that was asked for is missing: then a person
/// decides.
fn superior(decision: &Decision) -> (Verdict, ReasonCode) {
    if !decision.holds(CheckCode::SampleRatio) {
        return (Verdict::Inconclusive, ReasonCode::SampleRatioUnknown);
    }
    if decision.check(CheckCode::PolicyLift).is_some_and(|check| !check.holds()) {
        return (Verdict::Inconclusive, ReasonCode::LiftBelowPolicy);
    }
    match decision.check(CheckCode::PolicyCostGain).map(|check| check.passed) {
        Some(None) => (Verdict::Inconclusive, ReasonCode::CostGainUnknown),
        Some(Some(false)) => (Verdict::Inconclusive, ReasonCode::CostGainBelowPolicy),
        Some(Some(true)) | None => (Verdict::Promote, ReasonCode::PrimarySuperior),
    }
}
