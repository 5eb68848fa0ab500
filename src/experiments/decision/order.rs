//! The order of the decision.

use super::{Check, CheckCode, Decision, Evidence, GuardrailStatus, ReasonCode, Rules, Verdict};
use crate::experiments::statistics::NoEstimate;

/// The verdict that the figures of a decision lead to.
pub(super) fn verdict(decision: &Decision, evidence: &Evidence, rules: &Rules) -> (Verdict, ReasonCode) {
    let mismatch = decision.fails(CheckCode::SampleRatio);
    if evidence.horizon_reached && mismatch {
        return (Verdict::Invalid, ReasonCode::SampleRatioMismatch);
    }
    if decision.harm.iter().any(|look| look.harmed) {
        return (Verdict::StopForHarm, ReasonCode::Harm);
    }
    if evidence.horizon_reached {
        return match at_the_horizon(decision, rules) {
            (Verdict::Inconclusive, code) if extends(evidence, rules, code) => (Verdict::Extend, code),
            verdict => verdict,
        };
    }
    // An early look, or the extended part, may promote and nothing else.
    let may_promote = decision.early_look.is_some() || evidence.extended;
    if may_promote && sufficient(decision) && is_superior(decision) {
        if mismatch {
            return (Verdict::Invalid, ReasonCode::SampleRatioMismatch);
        }
        if let (Verdict::Promote, code) = superior(decision, rules) {
            return (Verdict::Promote, code);
        }
    }
    (Verdict::Collecting, ReasonCode::HorizonNotReached)
}

fn at_the_horizon(decision: &Decision, rules: &Rules) -> (Verdict, ReasonCode) {
    if matches!(decision.no_estimate, Some(NoEstimate::Unusable | NoEstimate::OutOfRange)) {
        return (Verdict::Inconclusive, ReasonCode::EvidenceUnusable);
    }
    if !sufficient(decision) {
        return (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes);
    }
    if decision.guardrails.iter().any(|guardrail| guardrail.status == GuardrailStatus::Worse) {
        return (Verdict::Reject, ReasonCode::GuardrailWorse);
    }
    if decision.all(CheckCode::Superiority).all(|check| check.passed.is_none()) {
        return (Verdict::Inconclusive, ReasonCode::NoVariance);
    }
    if is_superior(decision) {
        return superior(decision, rules);
    }
    if decision.all(CheckCode::MinimumEffect).all(Check::fails) {
        let code =
            if rules.minimum_effect > 0.0 { ReasonCode::EffectBelowMinimum } else { ReasonCode::NoLift };
        return (Verdict::Reject, code);
    }
    (Verdict::Inconclusive, ReasonCode::NotSignificant)
}

/// Whether each arm has its minimum of outcomes and clusters, and the test its hours.
fn sufficient(decision: &Decision) -> bool {
    let needed = [CheckCode::Hours, CheckCode::Outcomes, CheckCode::Clusters];
    decision.estimate.is_some() && needed.into_iter().all(|code| decision.holds(code))
}

fn is_superior(decision: &Decision) -> bool {
    decision.all(CheckCode::Superiority).any(Check::holds)
}

/// A superior candidate is promoted unless something else that was asked for is missing: then a person
/// decides.
fn superior(decision: &Decision, rules: &Rules) -> (Verdict, ReasonCode) {
    let inconclusive = |code| (Verdict::Inconclusive, code);
    if !decision.holds(CheckCode::SampleRatio) {
        return inconclusive(ReasonCode::SampleRatioUnknown);
    }
    let any = |status| decision.guardrails.iter().any(|guardrail| guardrail.status == status);
    if any(GuardrailStatus::NotShown) || any(GuardrailStatus::Worse) {
        return inconclusive(ReasonCode::GuardrailNotShown);
    }
    if rules.guardrails_need_data && any(GuardrailStatus::NoData) {
        return inconclusive(ReasonCode::GuardrailUnknown);
    }
    if decision.check(CheckCode::PolicyLift).is_some_and(|check| !check.holds()) {
        return inconclusive(ReasonCode::LiftBelowPolicy);
    }
    match decision.check(CheckCode::PolicyCostGain).map(|check| check.passed) {
        Some(None) => inconclusive(ReasonCode::CostGainUnknown),
        Some(Some(false)) => inconclusive(ReasonCode::CostGainBelowPolicy),
        Some(Some(true)) | None => (Verdict::Promote, ReasonCode::PrimarySuperior),
    }
}

/// Whether more outcomes can help, and a part of the level is left for them.
fn extends(evidence: &Evidence, rules: &Rules, code: ReasonCode) -> bool {
    let open = matches!(
        code,
        ReasonCode::NotSignificant | ReasonCode::InsufficientOutcomes | ReasonCode::GuardrailNotShown
    );
    rules.extension.is_some() && !evidence.extended && open
}
