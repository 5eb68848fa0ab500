//! Looks before the horizon.

use super::*;

fn rules() -> Rules {
    Rules { early_promotion: Some(EarlyPromotion::default()), ..Rules::default() }
}

/// The reference's arms, at a share of the test.
fn at(fraction: f64, evidence: Evidence) -> Evidence {
    Evidence { horizon_reached: false, hours_elapsed: 168.0 * fraction, ..evidence }
}

/// A candidate that is better beyond any early bound: z is about 5.7.
fn far_better() -> Evidence {
    better().with(cells((9000, 540.0, 50.6), (1000, 69.0, 6.9)))
}

#[test]
fn a_look_is_due_only_once_in_each_part_of_the_test() {
    let looks = |fraction, early_looks| {
        decide(&at(fraction, Evidence { early_looks, ..alike() }), &rules()).early_look
    };
    assert_eq!(looks(0.19, Vec::new()), None);
    let first = looks(0.21, Vec::new()).unwrap();
    assert!((first.fraction - 0.21).abs() < 1e-12);
    assert_eq!(looks(0.39, vec![first]), None);
    assert!(looks(0.41, vec![first]).is_some());
    // A part in which nobody looked is not made up for.
    assert!(looks(0.81, vec![first]).is_some());
    assert_eq!(decide(&at(0.5, alike()), &Rules::default()).early_look, None);
    // A look without enough data spends nothing.
    let few = better().with(cells((9000, 540.0, 50.6), (99, 6.3, 0.6)));
    assert_eq!(decide(&at(0.5, few), &rules()).early_look, None);
}

#[test]
fn an_early_promotion_needs_to_cross_the_early_bound() {
    // p = 0.0044 is far from the level of a first look at 41 %, 4e-4, and 1.5e-8 is below it.
    let decision = decide(&at(0.41, better()), &rules());
    assert_eq!(decision.verdict, Verdict::Collecting);
    assert!(decision.early_bound.unwrap().level < 1e-3);
    let decision = decide(&at(0.41, far_better()), &rules());
    assert_eq!(decision.verdict, Verdict::Promote);
    assert!(decision.reason.contains("at a look whose level is below 0.001"), "{}", decision.reason);
    // Off by default, and never against a guardrail or a policy.
    assert_eq!(decide(&at(0.41, far_better()), &Rules::default()).verdict, Verdict::Collecting);
    let strict = Rules { guardrails_need_data: true, ..rules() };
    assert_eq!(decide(&at(0.41, far_better()), &strict).verdict, Verdict::Collecting);
    let skewed = Evidence { units: vec![units(9120, 880)], ..far_better() };
    assert_eq!(decide(&at(0.41, skewed), &rules()).verdict, Verdict::Invalid);
}

#[test]
fn what_earlier_looks_have_spent_is_missing_at_the_horizon() {
    let level = |early_looks| {
        let decision = decide(&Evidence { early_looks, ..better() }, &rules());
        decision.check(CheckCode::Superiority).unwrap().required
    };
    let whole = level(Vec::new());
    assert!((whole - 0.025).abs() < 1e-9, "{whole}");
    let information = decide(&better(), &rules()).estimate.unwrap().standard_error.powi(-2);
    let look = |fraction: f64| EarlyLook { fraction, information: information * fraction };
    let spent = level([0.2, 0.4, 0.6, 0.8].map(look).into());
    // SciPy: the normal tail beyond the reference's bound of the fifth look, 2.031032043.
    assert!((spent / 0.021_126_0 - 1.0).abs() < 1e-4, "{spent}");
}

#[test]
fn the_looks_are_part_of_the_record() {
    let look = EarlyLook { fraction: 0.5, information: 1e5 };
    let record = Record::decide(rules(), Evidence { early_looks: vec![look], ..better() });
    let stored: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(stored.redecide(), record.decision);
    let mut without = stored.clone();
    without.evidence.early_looks.clear();
    assert_ne!(without.redecide(), record.decision);
    // A look that is no number is left out when the evidence is written down.
    let broken = EarlyLook { fraction: f64::NAN, information: 1.0 };
    let record = Record::decide(rules(), Evidence { early_looks: vec![broken], ..better() });
    assert_eq!(record.evidence.early_looks, []);
}

#[test]
fn early_looks_at_several_success_metrics_are_refused() {
    let rules = Rules { success: vec![Metric::Quality], ..rules() };
    assert_eq!(rules.validate().unwrap_err().field, "success");
}
