//! A verdict in one sentence, with the figures a person needs.

use super::{
    Check, CheckCode, Decision, Evidence, GuardrailResult, GuardrailStatus, Metric, ReasonCode, Rules,
    Verdict,
};
use crate::experiments::statistics::{Estimate, PerArm};

/// The sentence of a decision whose figures are complete.
pub(super) fn sentence(decision: &Decision, evidence: &Evidence, rules: &Rules) -> String {
    let sentence = by_reason(decision, evidence, rules);
    match (decision.verdict, rules.extension) {
        (Verdict::Extend, Some(extension)) => {
            format!("{sentence} The test goes on for {} hours more, once.", extension.hours)
        }
        _ => sentence,
    }
}

fn by_reason(decision: &Decision, evidence: &Evidence, rules: &Rules) -> String {
    let effect = effects(decision, rules);
    let check = |code| decision.check(code);
    match decision.reason_code {
        ReasonCode::PrimarySuperior => {
            let unknown = guardrails(decision, GuardrailStatus::NoData);
            if unknown.is_empty() {
                format!("{effect}.")
            } else {
                format!("{effect}. Nothing is known of {}, which does not stand in the way.", join(&unknown))
            }
        }
        ReasonCode::GuardrailWorse => {
            let worse = decision.guardrails.iter().find(|result| result.status == GuardrailStatus::Worse);
            format!("{effect}; {}.", worse.map(guardrail).unwrap_or_default())
        }
        ReasonCode::GuardrailNotShown => {
            let open = guardrails(decision, GuardrailStatus::NotShown);
            format!("{effect}; but {} is not shown to stay within its margin.", join(&open))
        }
        ReasonCode::GuardrailUnknown => {
            let unknown = guardrails(decision, GuardrailStatus::NoData);
            format!("{effect}; but nothing is known of {}, which the rules ask for.", join(&unknown))
        }
        ReasonCode::NoLift => format!("{effect}; the interval holds no improvement."),
        ReasonCode::EffectBelowMinimum => {
            format!(
                "{effect}; the interval ends below the minimum effect of {}.",
                percent(rules.minimum_effect)
            )
        }
        ReasonCode::NotSignificant => {
            let held = held_against(decision, evidence);
            format!("{effect}; that shows neither an improvement nor that there is none{held}.")
        }
        ReasonCode::LiftBelowPolicy => {
            format!("{effect}; the policy asks for a lift of {}.", required(check(CheckCode::PolicyLift)))
        }
        ReasonCode::CostGainBelowPolicy => {
            let check = check(CheckCode::PolicyCostGain);
            let gain = check.and_then(|check| check.actual).map(percent).unwrap_or_default();
            format!("{effect}; it saves {gain} per engagement, but the policy asks for {}.", required(check))
        }
        ReasonCode::CostGainUnknown => {
            format!("{effect}; the policy asks for a cost gain, but costs of both arms are not known.")
        }
        ReasonCode::InsufficientOutcomes => insufficient(decision, evidence, rules),
        ReasonCode::NoVariance => {
            format!("{effect}, but nothing in the comparison varies; nothing can be tested.")
        }
        ReasonCode::EvidenceUnusable => {
            let why = decision.no_estimate.map(|why| why.to_string()).unwrap_or_default();
            format!("The effect cannot be computed: {why}.")
        }
        ReasonCode::SampleRatioMismatch => mismatch(decision, evidence),
        ReasonCode::SampleRatioUnknown => {
            format!("{effect}, but no units were counted, so that the split cannot be checked.")
        }
        ReasonCode::Harm => {
            let harmed = decision.harm.iter().find(|look| look.harmed);
            harmed.map(|look| look.reason.clone()).unwrap_or_default()
        }
        ReasonCode::HorizonNotReached => {
            let total = total_outcomes(evidence, rules);
            format!(
                "The test goes on until its horizon; after {:.1} hours there are {} baseline and {} candidate \
                 outcomes.",
                hours(evidence),
                thousands(total.baseline),
                thousands(total.candidate)
            )
        }
        ReasonCode::RulesInvalid => match rules.validate() {
            Err(invalid) => format!("Nothing can be decided: {invalid}."),
            Ok(()) => "Nothing can be decided by these rules.".to_owned(),
        },
    }
}

/// What the primary metric is held against, where that is not the p-value of its effect.
fn held_against(decision: &Decision, evidence: &Evidence) -> String {
    let allows = match (evidence.extended, decision.success.len()) {
        (true, _) => "looking at any time",
        (false, 0 | 1) => return String::new(),
        (false, _) => "several metrics",
    };
    let check = decision.check(CheckCode::Superiority);
    match check.and_then(|check| Some((check.actual?, check.required))) {
        Some((p, level)) => format!(" (allowing for {allows}, {}, where {level} is asked for)", p_value(p)),
        None => String::new(),
    }
}

/// The effect on the primary metric and on each other success metric that improved.
fn effects(decision: &Decision, rules: &Rules) -> String {
    let level = decision.check(CheckCode::Superiority).filter(|_| decision.early_look.is_some());
    let early = match level {
        Some(check) if decision.verdict == Verdict::Promote => {
            format!(
                ", at a look whose level is {}",
                p_value(check.required).replace("p = ", "").replace("p < ", "below ")
            )
        }
        _ => String::new(),
    };
    let primary = decision.estimate.as_ref().map(|estimate| effect(estimate, rules.primary));
    let others = decision.success.iter().filter(|result| result.superior);
    let others = others.filter_map(|result| Some(effect(result.estimate.as_ref()?, result.metric)));
    format!("{}{early}", primary.into_iter().chain(others).collect::<Vec<_>>().join("; "))
}

fn guardrails(decision: &Decision, status: GuardrailStatus) -> Vec<String> {
    let with = decision.guardrails.iter().filter(|result| result.status == status);
    with.map(|result| result.metric.name()).collect()
}

/// "cost per engagement rose by 12.0 %, more than the margin of 5.0 %".
fn guardrail(result: &GuardrailResult) -> String {
    let relative = result.contrast.as_ref().and_then(|contrast| contrast.relative);
    let moved = relative.map(|relative| format!(" changed by {}", percent(relative))).unwrap_or_default();
    format!("{}{moved}, which is beyond its margin of {}", result.metric.name(), percent(result.margin))
}

fn join(names: &[String]) -> String {
    names.join(" and ")
}

/// "Engagement rose by 6.7 % (95 % interval 1.6 % to 11.7 %, one-sided p = 0.004) over 9,000 …".
fn effect(estimate: &Estimate, metric: Metric) -> String {
    let label = metric.label();
    let difference = estimate.difference;
    let moved = if difference > 0.0 {
        format!("rose by {}", percent_or_figure(estimate.relative, difference))
    } else if difference < 0.0 {
        let fall = estimate.relative.map(|relative| -relative);
        format!("fell by {}", percent_or_figure(fall, -difference))
    } else {
        "did not change".to_owned()
    };
    let interval = match (estimate.relative_interval, estimate.interval) {
        (Some(interval), _) => Some((percent(interval.lower), percent(interval.upper))),
        (None, Some(interval)) => Some((figure(interval.lower), figure(interval.upper))),
        (None, None) => None,
    };
    let certainty = match (interval, estimate.p_better(metric.direction())) {
        (Some((lower, upper)), Some(p)) => {
            format!(
                " ({:.0} % interval {lower} to {upper}, one-sided {})",
                estimate.level * 100.0,
                p_value(p)
            )
        }
        _ => String::new(),
    };
    format!(
        "{label} {moved}{certainty} over {} baseline and {} candidate outcomes",
        thousands(estimate.counts.baseline.outcomes),
        thousands(estimate.counts.candidate.outcomes)
    )
}

fn insufficient(decision: &Decision, evidence: &Evidence, rules: &Rules) -> String {
    let counts = decision.estimate.as_ref().map(|estimate| estimate.counts).unwrap_or_default();
    let total = total_outcomes(evidence, rules);
    let apart = if counts.map(|count| count.outcomes) == total {
        String::new()
    } else {
        format!(
            " ({} and {} in all, but only traffic revisions with both arms can be compared)",
            thousands(total.baseline),
            thousands(total.candidate)
        )
    };
    format!(
        "Too little to decide: {} baseline and {} candidate outcomes of {} and {} clusters in {:.1} hours{apart}; \
         at least {} outcomes of {} clusters in each arm and {} hours are needed.",
        thousands(counts.baseline.outcomes),
        thousands(counts.candidate.outcomes),
        thousands(counts.baseline.clusters),
        thousands(counts.candidate.clusters),
        hours(evidence),
        thousands(rules.minimum_outcomes),
        thousands(rules.minimum_clusters),
        rules.minimum_hours,
    )
}

fn mismatch(decision: &Decision, evidence: &Evidence) -> String {
    let counts = evidence.units.iter().fold(PerArm::<u64>::default(), |sum, row| PerArm {
        baseline: sum.baseline.saturating_add(row.counts.baseline),
        candidate: sum.candidate.saturating_add(row.counts.candidate),
    });
    format!(
        "Units did not arrive in the configured split ({} in the baseline, {} in the candidate, {}): the arms \
         cannot be compared. Look for lost or repeated outcomes.",
        thousands(counts.baseline),
        thousands(counts.candidate),
        p_value(decision.sample_ratio.unwrap_or_default())
    )
}

/// Time that cannot be told has not passed.
fn hours(evidence: &Evidence) -> f64 {
    if evidence.hours_elapsed.is_finite() { evidence.hours_elapsed } else { 0.0 }
}

fn total_outcomes(evidence: &Evidence, rules: &Rules) -> PerArm<u64> {
    let mut total = PerArm::<u64>::default();
    for cell in evidence.metrics.get(&rules.primary).into_iter().flat_map(|observed| &observed.cells) {
        let sum = total.get_mut(cell.arm);
        *sum = sum.saturating_add(cell.n);
    }
    total
}

fn required(check: Option<&Check>) -> String {
    check.map(|check| percent(check.required)).unwrap_or_default()
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

/// A relative effect, or the absolute one where there is nothing to relate it to.
pub(super) fn percent_or_figure(relative: Option<f64>, difference: f64) -> String {
    relative.map_or_else(|| figure(difference), percent)
}

fn percent(share: f64) -> String {
    // Adding zero turns a negative zero into a positive one.
    format!("{:.1} %", (share * 1000.0).round() / 10.0 + 0.0)
}

fn figure(number: f64) -> String {
    if number == 0.0 || (0.001..1e6).contains(&number.abs()) {
        format!("{number:.4}")
    } else {
        format!("{number:.2e}")
    }
}

/// 9000 as "9,000".
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0667, -0.0001, -0.05].map(percent), ["6.7 %", "0.0 %", "-5.0 %"]);
        assert_eq!([0.02, 0.000_02].map(figure), ["0.0200", "2.00e-5"]);
        assert_eq!([0.0044, 0.000_9].map(p_value), ["p = 0.004", "p < 0.001"]);
    }
}
