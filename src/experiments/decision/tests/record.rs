//! A stored decision says the same when it is read again.

use proptest::prelude::*;

use super::*;

fn read_back(record: &Record) -> Record {
    serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap()
}

#[test]
fn a_record_reads_back_with_its_digest_and_verdict() {
    for evidence in [better(), worse(), alike(), better().with(Vec::new())] {
        let record = Record::decide(Rules::default(), evidence);
        let stored = read_back(&record);
        assert_eq!(stored, record);
        assert_eq!(stored.digest().unwrap(), record.digest().unwrap());
        assert_eq!(stored.redecide(), record.decision);
        assert_eq!(stored.engine_version, ENGINE_VERSION);
    }
}

#[test]
fn the_digest_is_lower_case_hex() {
    let digest = Record::decide(Rules::default(), better()).digest().unwrap();
    assert_eq!(digest.len(), 64);
    assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
}

#[test]
fn any_change_of_the_record_changes_the_digest() {
    let record = Record::decide(Rules::default(), better());
    let digest = record.digest().unwrap();
    let mut changed = record.clone();
    changed.evidence.engagement_mut().cells[0].n += 1;
    assert_ne!(changed.digest().unwrap(), digest);
    let mut changed = record.clone();
    changed.rules.alpha = 0.025_000_000_000_000_005;
    assert_ne!(changed.digest().unwrap(), digest);
    let mut changed = record;
    changed.decision.verdict = Verdict::Reject;
    assert_ne!(changed.digest().unwrap(), digest);
}

#[test]
fn the_order_of_the_evidence_does_not_change_the_digest() {
    let evidence =
        Evidence { units: vec![units(9000, 1000), Units { epoch: 2, ..units(90, 10) }], ..better() };
    let mut turned = evidence.clone();
    turned.engagement_mut().cells.reverse();
    turned.units.reverse();
    let digest = |evidence| Record::decide(Rules::default(), evidence).digest().unwrap();
    assert_eq!(digest(evidence), digest(turned));
}

#[test]
fn numbers_that_json_does_not_have_read_back_as_they_were_decided() {
    let mut evidence = better();
    evidence.engagement_mut().cells[0].numerator = f64::INFINITY;
    evidence.engagement_mut().cells[1].cross = -0.0;
    evidence.hours_elapsed = f64::NAN;
    evidence.engagement_mut().planned_standard_error = Some(f64::NAN);
    let record = Record::decide(Rules::default(), evidence);
    // A database's numbers have no negative zero.
    let text = serde_json::to_string(&record).unwrap().replace("-0.0,", "0.0,");
    let stored: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(stored.digest().unwrap(), record.digest().unwrap());
    assert_eq!(stored.redecide(), record.decision);
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let number = || prop_oneof![4 => 0.0..300.0_f64, 1 => any::<f64>()];
    let cell = (1..3_i64, any::<bool>(), 0..15_u8, 0..400_u64, number(), number()).prop_map(
        |(epoch, candidate, g, n, sum, sum_sq)| {
            let arm = if candidate { Arm::Candidate } else { Arm::Baseline };
            Cell::average(epoch, arm, &g.to_string(), n, sum, sum_sq)
        },
    );
    let units = (1..3_i64, 0..10_001_u32, 0..3000_u64, 0..3000_u64).prop_map(|(epoch, weight, b, c)| Units {
        epoch,
        weights: PerArm { baseline: 10_000 - weight, candidate: weight },
        counts: PerArm { baseline: b, candidate: c },
    });
    (
        prop::collection::vec(cell, 0..60),
        prop::collection::vec(units, 0..3),
        prop_oneof![Just(0.0), Just(168.0), any::<f64>()],
        any::<bool>(),
        any::<bool>(),
        prop::option::of(any::<f64>()),
        any::<bool>(),
        prop::collection::vec((prop_oneof![4 => 0.0..1.0_f64, 1 => any::<f64>()], any::<f64>()), 0..3),
    )
        .prop_map(|parts| {
            let (cells, units, hours_elapsed, horizon_reached, clustered, planned_standard_error, ..) = parts;
            let (.., extended, looks) = parts;
            let sampling = if clustered { Sampling::Clustered } else { Sampling::Independent };
            let all = [
                Metric::Engagement,
                Metric::CostPerEngagement,
                Metric::Quality,
                Metric::ErrorRate,
                Metric::Latency,
            ];
            let observed = Observed { sampling, cells, planned_standard_error };
            Evidence {
                hours_elapsed,
                horizon_hours: Some(168.0),
                horizon_reached,
                extended,
                metrics: all.map(|metric| (metric, observed.clone())).into(),
                units,
                early_looks: looks
                    .into_iter()
                    .map(|(fraction, information)| EarlyLook { fraction, information })
                    .collect(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_record_survives_storage(evidence in evidence(), sticky in any::<bool>(), policy in any::<bool>(), many in any::<bool>()) {
        use crate::experiments::statistics::Assignment;
        let rules = Rules {
            assignment: if sticky { Assignment::Sticky } else { Assignment::PerPost },
            policy: policy.then_some(Policy { minimum_engagement_lift: Some(0.1), minimum_cost_gain: Some(0.1) }),
            extension: many.then(Extension::default),
            early_promotion: (!many).then(EarlyPromotion::default),
            success: if many { vec![Metric::Quality] } else { Vec::new() },
            watched: if many {
                [Metric::ErrorRate, Metric::Latency].map(|metric| Watched { metric, tolerance: None }).into()
            } else {
                Vec::new()
            },
            ..Rules::default()
        };
        prop_assert_eq!(rules.validate(), Ok(()));
        let record = Record::decide(rules, evidence);
        prop_assert!(!serde_json::to_string(&record.decision).unwrap().contains("null"));
        let stored = read_back(&record);
        prop_assert_eq!(stored.digest().unwrap(), record.digest().unwrap());
        prop_assert_eq!(stored.redecide(), record.decision);
    }

    #[test]
    fn a_promotion_always_has_enough_of_everything(evidence in evidence()) {
        let rules = Rules { alpha: 0.4, ..Rules::default() };
        let decision = decide(&evidence, &rules);
        if decision.verdict == Verdict::Promote {
            let counts = decision.estimate.unwrap().counts;
            prop_assert!(counts.both(|count| count.outcomes >= 100 && count.clusters >= 10));
            prop_assert!((evidence.horizon_reached || evidence.extended) && evidence.hours_elapsed >= 24.0);
            prop_assert!(decision.sample_ratio.unwrap() >= 0.001);
        }
    }
}
