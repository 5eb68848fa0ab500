//! Every figure and check of a decision.

use super::success::Success;
use super::{
    Check, CheckCode, Decision, Evidence, GuardrailResult, HarmReport, Metric, Policy, Rules, cost_gain, lift,
};
use crate::experiments::statistics::{Estimate, Method, estimate, sample_ratio};

/// Computes every figure and check.
pub(super) fn gather(decision: &mut Decision, evidence: &Evidence, rules: &Rules) {
    decision.sample_ratio = sample_ratio::p_value(&evidence.units);
    let watched = rules
        .metrics()
        .into_iter()
        .filter_map(|metric| Some((metric, evidence.randomised(metric)?.into_owned())))
        .collect();
    let harm = HarmReport::of(&watched, rules);
    let hours = Some(evidence.hours_elapsed).filter(|hours| hours.is_finite());
    let enough = |found: &Estimate| {
        let counts = found.counts;
        let outcomes = counts.both(|count| count.outcomes >= rules.minimum_outcomes);
        let clusters = counts.both(|count| count.clusters >= rules.minimum_clusters);
        outcomes && clusters && hours.is_some_and(|hours| hours >= rules.minimum_hours)
    };
    let success = Success::of(evidence, rules, enough);
    decision.guardrails =
        rules.guardrails.iter().map(|&guardrail| GuardrailResult::of(guardrail, evidence, rules)).collect();

    let primary = &success.metrics[0];
    let counts = primary.estimate.as_ref().map(|estimate| estimate.counts).unwrap_or_default();
    let outcomes = counts.baseline.outcomes.min(counts.candidate.outcomes) as f64;
    let clusters = counts.baseline.clusters.min(counts.candidate.clusters) as f64;
    let at_least = |actual: f64, required: f64| actual >= required;
    let below = |actual: f64, required: f64| actual < required;
    let mut checks =
        vec![Check::new(CheckCode::SampleRatio, decision.sample_ratio, rules.sample_ratio_alpha, at_least)];
    checks.extend(
        harm.looks
            .iter()
            .map(|look| Check::new(CheckCode::Harm, look.e_value, look.threshold, below).of(look.metric)),
    );
    checks.extend([
        Check::new(CheckCode::Hours, hours, rules.minimum_hours, at_least),
        Check::new(CheckCode::Outcomes, Some(outcomes), rules.minimum_outcomes as f64, at_least),
        Check::new(CheckCode::Clusters, Some(clusters), rules.minimum_clusters as f64, at_least),
    ]);
    for result in &success.metrics {
        let superiority = Check::new(CheckCode::Superiority, result.p_value, success.level, below);
        let minimum = Check::new(CheckCode::MinimumEffect, result.best_case, 0.0, at_least);
        checks.extend([superiority.of(result.metric), minimum.of(result.metric)]);
    }
    checks.extend(decision.guardrails.iter().map(|result| result.check(rules)));
    if let Some(policy) = rules.policy {
        checks.extend(policy_checks(policy, primary.estimate.as_ref(), evidence, rules));
    }
    decision.checks = checks;

    decision.planned_standard_errors = harm.planned_standard_errors();
    for result in &success.metrics {
        if let Some(planned) = result.planned_standard_error {
            decision.planned_standard_errors.entry(result.metric).or_insert(planned);
        }
    }
    decision.harm = harm.looks;
    (decision.early_look, decision.early_bound) = (success.look, success.bound);
    let mut metrics = success.metrics.into_iter();
    if let Some(primary) = metrics.next() {
        decision.estimate = primary.estimate;
        decision.no_estimate = primary.no_estimate;
        decision.sequence = primary.sequence;
    }
    decision.success = metrics.collect();
}

/// The policy's point estimates, over the same epochs as the test.
fn policy_checks(
    policy: Policy,
    primary: Option<&Estimate>,
    evidence: &Evidence,
    rules: &Rules,
) -> impl Iterator<Item = Check> {
    let lifted = primary.and_then(|found| lift(found.mean_baseline, found.mean_candidate));
    let cost = evidence.randomised(Metric::CostPerEngagement).and_then(|observed| {
        estimate(&observed.cells, Method::of(rules.assignment, observed.sampling), 1.0, 0.95).ok()
    });
    let gained = cost.and_then(|found| cost_gain(found.mean_baseline, found.mean_candidate));
    let asked = [
        (CheckCode::PolicyLift, lifted, policy.minimum_engagement_lift),
        (CheckCode::PolicyCostGain, gained, policy.minimum_cost_gain),
    ];
    asked.into_iter().filter_map(|(code, actual, required)| {
        Some(Check::new(code, actual, required?, |actual, required| actual >= required))
    })
}
