//! Which verdict comes first, and where each begins.

use super::*;
use crate::experiments::statistics::Assignment;

#[test]
fn a_superior_candidate_is_promoted_with_its_figures() {
    let decision = decide(&better(), &Rules::default());
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Promote, ReasonCode::PrimarySuperior));
    assert_eq!(
        decision.reason,
        "Engagement rose by 6.7 % (95 % interval 1.6 % to 11.7 %, one-sided p = 0.004) over 9,000 baseline and \
         1,000 candidate outcomes. Nothing is known of quality and cost per engagement, which does not stand in \
         the way."
    );
    let known = decision.checks.iter().filter(|check| check.code != CheckCode::Guardrail);
    assert!(known.clone().all(Check::holds) && known.count() == 7, "{:?}", decision.checks);
}

#[test]
fn a_candidate_that_is_not_better_is_rejected() {
    // As much worse, but not by enough evidence for harm.
    let evidence = better().with(cells((9000, 540.0, 50.6), (1000, 57.0, 5.3)));
    let decision = decide(&evidence, &Rules { alpha: 0.04, ..Rules::default() });
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Reject, ReasonCode::NoLift));
    assert!(decision.reason.starts_with("Engagement fell by 5.0 % (92 % interval"), "{}", decision.reason);
}

#[test]
fn an_effect_that_cannot_reach_the_minimum_is_rejected() {
    let rules = Rules { minimum_effect: 0.2, ..Rules::default() };
    assert_eq!(decided(&alike(), &rules), (Verdict::Reject, ReasonCode::EffectBelowMinimum));
    // A superior candidate is promoted even so: superiority comes first.
    assert_eq!(decided(&better(), &rules), (Verdict::Promote, ReasonCode::PrimarySuperior));
}

#[test]
fn what_is_not_significant_is_never_promoted() {
    assert_eq!(decided(&alike(), &Rules::default()), (Verdict::Inconclusive, ReasonCode::NotSignificant));
    // The reference's p is 0.0044506…: the level decides, on either side of it.
    let at = |alpha| decided(&better(), &Rules { alpha, ..Rules::default() }).0;
    assert_eq!((at(0.004_46), at(0.004_44)), (Verdict::Promote, Verdict::Inconclusive));
}

#[test]
fn before_the_horizon_only_harm_is_decided() {
    for (evidence, expected) in [
        (better(), Verdict::Collecting),
        (alike(), Verdict::Collecting),
        (Evidence { units: vec![units(9120, 880)], ..better() }, Verdict::Collecting),
        (better().with(Vec::new()), Verdict::Collecting),
    ] {
        let early = Evidence { horizon_reached: false, hours_elapsed: 30.0, ..evidence };
        assert_eq!(decided(&early, &Rules::default()), (expected, ReasonCode::HorizonNotReached));
    }
}

#[test]
fn a_sample_ratio_mismatch_invalidates_at_the_horizon_and_warns_before() {
    let skewed = Evidence { units: vec![units(9120, 880)], ..better() };
    assert_eq!(decided(&skewed, &Rules::default()), (Verdict::Invalid, ReasonCode::SampleRatioMismatch));
    let early = decide(&Evidence { horizon_reached: false, ..skewed.clone() }, &Rules::default());
    assert_eq!(early.verdict, Verdict::Collecting);
    assert!(early.check(CheckCode::SampleRatio).is_some_and(|check| check.passed == Some(false)));
    // It comes before harm.
    let both = Evidence { units: skewed.units.clone(), ..very_bad() };
    assert_eq!(decided(&both, &Rules::default()).0, Verdict::Invalid);
    // Its level is a rule: p is 6.3e-5.
    let rules = Rules { sample_ratio_alpha: 6e-5, ..Rules::default() };
    assert_eq!(decided(&skewed, &rules).0, Verdict::Promote);
}

fn very_bad() -> Evidence {
    better().with(cells((9000, 540.0, 50.6), (1000, 40.0, 4.0)))
}

#[test]
fn harm_stops_at_any_look_and_before_sufficiency() {
    for horizon_reached in [false, true] {
        let evidence = Evidence { horizon_reached, hours_elapsed: 2.0, ..very_bad() };
        assert_eq!(decided(&evidence, &Rules::default()), (Verdict::StopForHarm, ReasonCode::Harm));
    }
}

#[test]
fn too_little_data_is_inconclusive_however_large_the_effect() {
    let rules = Rules::default();
    let huge = |candidate: u64| {
        let candidate = (candidate, 0.5 * candidate as f64, 0.26 * candidate as f64);
        Evidence { units: vec![units(900, 100)], ..better() }.with(cells((9000, 540.0, 50.6), candidate))
    };
    assert_eq!(decided(&huge(99), &rules), (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes));
    assert_eq!(decided(&huge(100), &rules).0, Verdict::Promote);
    let short = |hours_elapsed| Evidence { hours_elapsed, ..better() };
    for hours in [23.9, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(decided(&short(hours), &rules), (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes));
    }
    assert_eq!(decided(&short(24.0), &rules).0, Verdict::Promote);
    for cells in [Vec::new(), better().metrics[&Metric::Engagement].cells[..1].to_vec()] {
        let evidence = better().with(cells);
        assert_eq!(decided(&evidence, &rules), (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes));
    }
}

/// Sticky personas: `candidates` of them in the candidate and 30 in the baseline, 50 outcomes each, of which
/// the candidate's are far higher.
fn sticky(candidates: u32) -> Evidence {
    let cells = (0..30 + candidates)
        .map(|g| {
            let (arm, mean) = if g < 30 { (Arm::Baseline, 0.06) } else { (Arm::Candidate, 0.12) };
            let sum = 50.0 * (mean + 0.001 * f64::from(g % 7));
            Cell::average(1, arm, &g.to_string(), 50, sum, sum)
        })
        .collect();
    Evidence { metrics: engagement(cells, Sampling::Clustered), units: vec![units(90, 10)], ..better() }
}

#[test]
fn each_arm_needs_its_clusters() {
    let rules = Rules { assignment: Assignment::Sticky, ..Rules::default() };
    assert_eq!(decided(&sticky(9), &rules), (Verdict::Inconclusive, ReasonCode::InsufficientOutcomes));
    assert_eq!(decided(&sticky(10), &rules).0, Verdict::Promote);
}

#[test]
fn outcomes_that_cannot_be_compared_do_not_count() {
    // Enough in all, but the candidate's outcomes came when the baseline served nothing.
    let mut evidence = better();
    evidence.engagement_mut().cells[1].epoch = 2;
    let decision = decide(&evidence, &Rules::default());
    assert_eq!(decision.reason_code, ReasonCode::InsufficientOutcomes);
    assert!(decision.reason.contains("(9,000 and 1,000 in all"), "{}", decision.reason);
}

#[test]
fn stragglers_of_an_epoch_without_a_split_are_not_compared() {
    let mut evidence = better();
    evidence.engagement_mut().cells.push(Cell::average(2, Arm::Baseline, "", 9000, 540.0, 50.6));
    evidence.engagement_mut().cells.push(Cell::average(2, Arm::Candidate, "", 3, 0.0, 0.0));
    let weights = PerArm { baseline: 10_000, candidate: 0 };
    evidence.units.push(Units { epoch: 2, weights, counts: PerArm { baseline: 10, candidate: 0 } });
    let expected = decide(&better(), &Rules::default());
    assert_eq!(decide(&evidence, &Rules::default()), expected);
}

#[test]
fn an_unchecked_split_is_not_promoted() {
    let unchecked = Evidence { units: Vec::new(), ..better() };
    assert_eq!(
        decided(&unchecked, &Rules::default()),
        (Verdict::Inconclusive, ReasonCode::SampleRatioUnknown)
    );
}

#[test]
fn outcomes_without_variance_are_not_promoted() {
    let constant = better().with(cells((9000, 540.0, 32.4), (1000, 80.0, 6.4)));
    let decision = decide(&constant, &Rules::default());
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Inconclusive, ReasonCode::NoVariance));
    assert!(decision.reason.starts_with("Engagement rose by 33.3 % over 9,000"), "{}", decision.reason);
}

#[test]
fn evidence_that_is_no_number_decides_nothing() {
    let mut evidence = better();
    evidence.engagement_mut().cells[1].numerator = f64::NAN;
    assert_eq!(decided(&evidence, &Rules::default()), (Verdict::Inconclusive, ReasonCode::EvidenceUnusable));
    evidence.horizon_reached = false;
    assert_eq!(decided(&evidence, &Rules::default()).0, Verdict::Collecting);
}

#[test]
fn the_policy_asks_for_point_estimates_in_addition() {
    let decide_by = |lift, gain, cost| {
        let policy = Policy { minimum_engagement_lift: lift, minimum_cost_gain: gain };
        decided(
            &better().and(Metric::CostPerEngagement, cost),
            &Rules { policy: Some(policy), ..Rules::default() },
        )
    };
    let promoted = (Verdict::Promote, ReasonCode::PrimarySuperior);
    let held = |code| (Verdict::Inconclusive, code);
    assert_eq!(decide_by(None, None, Vec::new()), promoted);
    assert_eq!(decide_by(Some(0.06), None, Vec::new()), promoted);
    assert_eq!(decide_by(Some(0.07), None, Vec::new()), held(ReasonCode::LiftBelowPolicy));
    assert_eq!(decide_by(Some(0.06), Some(0.2), Vec::new()), held(ReasonCode::CostGainUnknown));
    assert_eq!(decide_by(Some(0.06), Some(0.2), costs(0.002, 0.0015)), promoted);
    assert_eq!(decide_by(None, Some(0.26), costs(0.002, 0.0015)), held(ReasonCode::CostGainBelowPolicy));
    // It never stands in for significance.
    let policy = Some(Policy { minimum_engagement_lift: Some(0.0), minimum_cost_gain: None });
    assert_eq!(decided(&alike(), &Rules { policy, ..Rules::default() }).1, ReasonCode::NotSignificant);
}

#[test]
fn a_metric_where_lower_is_better_is_turned() {
    let rules = Rules { primary: Metric::ErrorRate, ..Rules::default() };
    let as_errors = |evidence: Evidence| {
        let cells = evidence.metrics[&Metric::Engagement].cells.clone();
        evidence.and(Metric::ErrorRate, cells)
    };
    let (worse, better, alike) = (|| as_errors(worse()), || as_errors(better()), || as_errors(alike()));
    assert_eq!(decided(&worse(), &rules).0, Verdict::Promote);
    assert_ne!(decided(&better(), &rules).0, Verdict::Promote);
    assert_eq!(decided(&alike(), &rules).0, Verdict::Inconclusive);
    let rules = Rules { minimum_effect: 0.2, ..rules };
    assert_eq!(decided(&alike(), &rules), (Verdict::Reject, ReasonCode::EffectBelowMinimum));
}

#[test]
fn invalid_rules_decide_nothing_and_say_which() {
    let rules = Rules { alpha: 0.7, ..Rules::default() };
    let decision = decide(&very_bad(), &rules);
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Inconclusive, ReasonCode::RulesInvalid));
    assert_eq!(decision.reason, "Nothing can be decided: `alpha` must be above 0 and below 0.5, but is 0.7.");
    for rules in [
        Rules { minimum_effect: -0.1, ..Rules::default() },
        Rules { harm_alpha: f64::NAN, ..Rules::default() },
        Rules { minimum_hours: f64::INFINITY, ..Rules::default() },
        Rules {
            policy: Some(Policy { minimum_cost_gain: Some(1.0), ..Policy::default() }),
            ..Rules::default()
        },
    ] {
        assert!(rules.validate().is_err());
        assert_eq!(decided(&better(), &rules).1, ReasonCode::RulesInvalid);
    }
    assert_eq!(Rules::default().validate(), Ok(()));
}

#[test]
fn rules_have_defaults_and_refuse_what_they_do_not_know() {
    let rules: Rules = serde_json::from_str(r#"{"assignment": "sticky", "minimum_hours": 0}"#).unwrap();
    assert_eq!((rules.alpha, rules.minimum_outcomes, rules.minimum_hours), (0.025, 100, 0.0));
    assert!(serde_json::from_str::<Rules>(r#"{"minimum_outcome": 5}"#).is_err());
}
