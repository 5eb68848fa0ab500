//! An inconclusive test goes on, once.

use super::*;

fn rules() -> Rules {
    Rules { extension: Some(Extension::default()), ..Rules::default() }
}

fn extended(evidence: Evidence) -> Evidence {
    Evidence { extended: true, horizon_hours: None, hours_elapsed: 300.0, ..evidence }
}

#[test]
fn an_inconclusive_test_is_extended_once_where_a_part_of_the_level_was_kept() {
    let decision = decide(&alike(), &rules());
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Extend, ReasonCode::NotSignificant));
    assert!(decision.reason.ends_with("The test goes on for 168 hours more, once."), "{}", decision.reason);
    assert_eq!(decide(&better().with(Vec::new()), &rules()).verdict, Verdict::Extend);
    assert_eq!(decide(&extended(alike()), &rules()).verdict, Verdict::Inconclusive);
    // Nothing was kept: the level is fully spent.
    assert_eq!(decide(&alike(), &Rules::default()).verdict, Verdict::Inconclusive);
    // More outcomes do not help.
    let unusable = better().with(cells((9000, f64::NAN, 50.6), (1000, 64.0, 6.2)));
    assert_eq!(decide(&unusable, &rules()).verdict, Verdict::Inconclusive);
}

#[test]
fn what_is_kept_for_the_extension_is_missing_at_the_horizon() {
    // One-sided p = 0.00445: 0.8 · 0.0055 is 0.0044, 0.8 · 0.0056 is 0.00448.
    let found = |alpha| decide(&better(), &Rules { alpha, ..rules() }).verdict;
    assert_eq!((found(0.005_6), found(0.005_5)), (Verdict::Promote, Verdict::Extend));
    assert_eq!(decide(&better(), &Rules { alpha: 0.0055, ..Rules::default() }).verdict, Verdict::Promote);
}

#[test]
fn the_extended_part_is_judged_by_the_confidence_sequence_of_what_was_kept() {
    // z = 2.6 would do at the horizon, and does not at any time: the sequence at 1 % reaches below 0.
    let decision = decide(&extended(better()), &rules());
    assert_eq!((decision.verdict, decision.reason_code), (Verdict::Inconclusive, ReasonCode::NotSignificant));
    let sequence = decision.sequence.unwrap();
    assert!(sequence.interval.lower < 0.0 && sequence.p_value > 0.01);
    let check = decision.check(CheckCode::Superiority).unwrap();
    assert!((check.required - 0.005).abs() < 1e-12);
    assert!((check.actual.unwrap() - sequence.p_value / 2.0).abs() < 1e-12);

    // z = 5.7 does, at the end and at any look before.
    let far = better().with(cells((9000, 540.0, 50.6), (1000, 69.0, 6.9)));
    assert_eq!(decide(&extended(far.clone()), &rules()).verdict, Verdict::Promote);
    let early = Evidence { horizon_reached: false, ..extended(far) };
    assert_eq!(decide(&early, &rules()).verdict, Verdict::Promote);
    let early = Evidence { horizon_reached: false, ..extended(better()) };
    assert_eq!(decide(&early, &rules()).verdict, Verdict::Collecting);
}

#[test]
fn a_candidate_that_is_not_better_after_the_extension_is_rejected() {
    let rules = Rules { harm_minimum_outcomes: 100_000, ..rules() };
    let low = better().with(cells((900_000, 54_000.0, 5060.0), (9000, 480.0, 44.0)));
    let mut low = Evidence { units: vec![units(900_000, 100_000)], ..extended(low) };
    // Planned by an earlier look, as many are allowed.
    low.engagement_mut().planned_standard_error = Some(0.000_5);
    assert_eq!(decided(&low, &rules), (Verdict::Reject, ReasonCode::NoLift));
    // Without enough data to plan for there is no sequence, and nothing is decided.
    low.engagement_mut().planned_standard_error = None;
    assert_eq!(decided(&low, &rules).0, Verdict::Inconclusive);
}
