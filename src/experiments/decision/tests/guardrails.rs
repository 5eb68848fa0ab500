//! Guardrails, and several success metrics.

use super::*;

/// Scores of both arms with a standard deviation of 0.1: sums for 9,000 and 1,000 posts.
fn scores(baseline: f64, candidate: f64) -> Vec<Cell> {
    let arm = |n: u64, mean: f64| (n, n as f64 * mean, n as f64 * (mean * mean + 0.01));
    cells(arm(9000, baseline), arm(1000, candidate))
}

fn quality(evidence: &Evidence, rules: &Rules) -> GuardrailResult {
    let results = decide(evidence, rules).guardrails;
    results.into_iter().find(|result| result.metric == Metric::Quality).unwrap()
}

#[test]
fn a_loss_within_the_margin_is_non_inferior_and_one_beyond_it_is_worse() {
    // The standard error of the contrast is 0.0033, its margin 0.016.
    for (candidate, status, verdict) in [
        (0.80, GuardrailStatus::NonInferior, (Verdict::Promote, ReasonCode::PrimarySuperior)),
        (0.795, GuardrailStatus::NonInferior, (Verdict::Promote, ReasonCode::PrimarySuperior)),
        (0.785, GuardrailStatus::NotShown, (Verdict::Inconclusive, ReasonCode::GuardrailNotShown)),
        (0.77, GuardrailStatus::Worse, (Verdict::Reject, ReasonCode::GuardrailWorse)),
    ] {
        let evidence = better().and(Metric::Quality, scores(0.8, candidate));
        assert_eq!(quality(&evidence, &Rules::default()).status, status, "{candidate}");
        assert_eq!(decided(&evidence, &Rules::default()), verdict, "{candidate}");
    }
    let evidence = better().and(Metric::Quality, scores(0.8, 0.77));
    let reason = decide(&evidence, &Rules::default()).reason;
    assert!(reason.ends_with("quality changed by -3.7 %, which is beyond its margin of 2.0 %."), "{reason}");
    // Its margin is a rule.
    let guardrails = vec![Guardrail { metric: Metric::Quality, margin: 0.06 }];
    assert_eq!(decided(&evidence, &Rules { guardrails, ..Rules::default() }).0, Verdict::Promote);
}

#[test]
fn a_guardrail_carries_its_multiplier_into_the_variance() {
    let contrast =
        quality(&better().and(Metric::Quality, scores(0.8, 0.79)), &Rules::default()).contrast.unwrap();
    let (control, treated) = (0.01 / 8999.0, 0.01 / 999.0);
    assert!((contrast.multiplier - 0.98).abs() < 1e-12);
    assert!((contrast.standard_error / (treated + 0.98_f64.powi(2) * control).sqrt() - 1.0).abs() < 1e-9);
    assert!((contrast.level - 0.9).abs() < 1e-12);
}

#[test]
fn where_lower_is_better_the_margin_is_upwards() {
    let status = |candidate| {
        let evidence = better().and(Metric::CostPerEngagement, costs(0.002, candidate));
        let decision = decide(&evidence, &Rules::default());
        let found = decision.guardrails.iter().find(|result| result.metric == Metric::CostPerEngagement);
        (found.unwrap().status, decision.verdict)
    };
    assert_eq!(status(0.0018), (GuardrailStatus::NonInferior, Verdict::Promote));
    assert_eq!(status(0.00202), (GuardrailStatus::NonInferior, Verdict::Promote));
    assert_eq!(status(0.00209), (GuardrailStatus::NotShown, Verdict::Inconclusive));
    assert_eq!(status(0.0025), (GuardrailStatus::Worse, Verdict::Reject));
}

#[test]
fn a_guardrail_without_data_blocks_only_where_asked_for() {
    let strict = Rules { guardrails_need_data: true, ..Rules::default() };
    assert_eq!(quality(&better(), &strict).status, GuardrailStatus::NoData);
    assert_eq!(decided(&better(), &strict), (Verdict::Inconclusive, ReasonCode::GuardrailUnknown));
    assert_eq!(decided(&better(), &Rules::default()).0, Verdict::Promote);
    // One arm's scores tell nothing.
    let one_arm = better().and(Metric::Quality, scores(0.8, 0.8)[..1].to_vec());
    assert_eq!(quality(&one_arm, &strict).status, GuardrailStatus::NoData);
}

#[test]
fn scores_that_do_not_vary_are_judged_as_they_stand_where_there_are_enough() {
    let constant = |n: u64, baseline: f64, candidate: f64| {
        let arm = |n: u64, mean: f64| (n, n as f64 * mean, n as f64 * mean * mean);
        better().and(Metric::Quality, cells(arm(9000, baseline), arm(n, candidate)))
    };
    let guardrails = vec![Guardrail { metric: Metric::Quality, margin: 0.02 }];
    let strict = Rules { guardrails, guardrails_need_data: true, ..Rules::default() };
    for (baseline, candidate, status, verdict) in [
        (1.0, 1.0, GuardrailStatus::NonInferior, Verdict::Promote),
        (1.0, 0.99, GuardrailStatus::NonInferior, Verdict::Promote),
        (0.3, 0.3, GuardrailStatus::NonInferior, Verdict::Promote),
        (0.0, 0.0, GuardrailStatus::NonInferior, Verdict::Promote),
        // At the margin of 2 %, but for rounding.
        (0.7, 0.686, GuardrailStatus::NonInferior, Verdict::Promote),
        (1.0, 0.97, GuardrailStatus::Worse, Verdict::Reject),
        (1.0, 0.2, GuardrailStatus::Worse, Verdict::Reject),
    ] {
        let evidence = constant(1000, baseline, candidate);
        assert_eq!(quality(&evidence, &strict).status, status, "{baseline} {candidate}");
        assert_eq!(decided(&evidence, &strict).0, verdict, "{baseline} {candidate}");
    }
    // Two scores are no evidence of anything.
    for candidate in [1.0, 0.2] {
        let evidence = constant(2, 1.0, candidate);
        assert_eq!(quality(&evidence, &strict).status, GuardrailStatus::NoData, "{candidate}");
        assert_eq!(decided(&evidence, &strict), (Verdict::Inconclusive, ReasonCode::GuardrailUnknown));
    }
}

#[test]
fn costs_without_an_engagement_are_not_taken_for_no_costs() {
    let cost = |engagements: f64| {
        let mut cells = costs(0.002, 0.002);
        for cell in cells.iter_mut().filter(|cell| cell.arm == Arm::Candidate) {
            let share = engagements / cell.denominator;
            cell.denominator *= share;
            cell.cross *= share;
            cell.denominator_sq *= share * share;
        }
        better().and(Metric::CostPerEngagement, cells)
    };
    let evidence = cost(0.0);
    let guardrails = decide(&evidence, &Rules::default()).guardrails;
    let found = guardrails.iter().find(|result| result.metric == Metric::CostPerEngagement).unwrap();
    assert_eq!((found.status, found.contrast.is_none()), (GuardrailStatus::NotShown, true));
    assert_eq!(decided(&evidence, &Rules::default()), (Verdict::Inconclusive, ReasonCode::GuardrailNotShown));
}

#[test]
fn a_guardrail_that_is_worse_rejects_where_the_primary_does_not_vary() {
    let constant = |n: u64| (n, n as f64 * 0.5, n as f64 * 0.25);
    let still = alike().with(cells(constant(9000), constant(1000)));
    assert_eq!(decided(&still, &Rules::default()).1, ReasonCode::NoVariance);
    let worse = still.and(Metric::Quality, scores(0.8, 0.4));
    assert_eq!(decided(&worse, &Rules::default()), (Verdict::Reject, ReasonCode::GuardrailWorse));
}

#[test]
fn one_of_several_success_metrics_is_enough_by_holms_procedure() {
    let rules = Rules { success: vec![Metric::Quality], guardrails: Vec::new(), ..Rules::default() };
    // The primary's p is 0.00445, doubled beside a second metric.
    let evidence = better().and(Metric::Quality, scores(0.8, 0.8));
    let found = |alpha| decided(&evidence, &Rules { alpha, ..rules.clone() }).0;
    assert_eq!((found(0.009), found(0.0088)), (Verdict::Promote, Verdict::Inconclusive));
    // The other one alone.
    let evidence = alike().and(Metric::Quality, scores(0.8, 0.82));
    let decision = decide(&evidence, &rules);
    assert_eq!((decision.verdict, decision.success[0].superior), (Verdict::Promote, true));
    assert!(decision.reason.contains("Quality rose by 2.5 %"), "{}", decision.reason);
    // Rejected only where none can reach the minimum.
    let low = better().with(cells((9000, 540.0, 50.6), (1000, 57.0, 5.3)));
    let rules = Rules { alpha: 0.04, harm_minimum_outcomes: 1_000_000, ..rules };
    let with = |candidate| decided(&low.clone().and(Metric::Quality, scores(0.8, candidate)), &rules).0;
    assert_eq!((with(0.8), with(0.78)), (Verdict::Inconclusive, Verdict::Reject));
    // With too few outcomes of its own, the other one proves nothing.
    let few = alike().and(Metric::Quality, cells((9000, 7200.0, 5850.0), (50, 45.0, 41.0)));
    assert_eq!(decided(&few, &rules).0, Verdict::Inconclusive);
}
