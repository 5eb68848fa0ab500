//! Real tests of headlines through the decision, beside a chi-square on the same tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::json;
use tuneloop::experiments::decision::{Evidence, Metric, Observed, Rules, Verdict, decide};
use tuneloop::experiments::statistics::{Arm, Cell, PerArm, Sampling, Units};

/// Impressions and clicks of the first two arms of each test.
fn pairs(file: &Path) -> Vec<[(u64, u64); 2]> {
    let mut tests: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let mut rows = csv::Reader::from_reader(GzDecoder::new(File::open(file).unwrap()));
    for row in rows.deserialize::<(String, u64, u64, u64, u64)>() {
        let (test, _, impressions, clicks, _) = row.unwrap();
        tests.entry(test).or_default().push((impressions, clicks));
    }
    tests.into_values().filter(|arms| arms.len() > 1).map(|arms| [arms[0], arms[1]]).collect()
}

/// Every impression is a unit with one outcome: 1 where it was clicked.
fn evidence([baseline, candidate]: [(u64, u64); 2]) -> Evidence {
    let cell = |arm, (n, clicks): (u64, u64)| Cell::average(1, arm, "", n, clicks as f64, clicks as f64);
    let cells = vec![cell(Arm::Baseline, baseline), cell(Arm::Candidate, candidate)];
    let observed = Observed { sampling: Sampling::Independent, cells, planned_standard_error: None };
    Evidence {
        hours_elapsed: 168.0,
        horizon_hours: Some(168.0),
        horizon_reached: true,
        extended: false,
        metrics: BTreeMap::from([(Metric::Engagement, observed)]),
        units: vec![Units {
            epoch: 1,
            weights: PerArm { baseline: 5000, candidate: 5000 },
            counts: PerArm { baseline: baseline.0, candidate: candidate.0 },
        }],
        early_looks: Vec::new(),
    }
}

#[test]
fn real_tests_are_decided_as_a_chi_square_would() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/ab_tests_2013.csv.gz"));
    if !file.exists() {
        println!("skipped: ../shared/data is not there");
        return;
    }
    let pairs = pairs(file);
    let tables: Vec<_> =
        pairs.iter().map(|[one, other]| [[one.0 - one.1, one.1], [other.0 - other.1, other.1]]).collect();
    let Some(answers) = super::ask(&[json!({"kind": "headlines", "tables": tables})]) else { return };
    let rules = Rules { harm_minimum_outcomes: u64::MAX, ..Rules::default() };
    let (mut verdicts, mut agree, mut valid) = (BTreeMap::<String, u32>::new(), 0_u32, 0_u32);
    for (pair, chi_square) in pairs.iter().zip(&answers[0]) {
        let decision = decide(&evidence(*pair), &rules);
        *verdicts.entry(format!("{:?}", decision.verdict)).or_default() += 1;
        if matches!(decision.verdict, Verdict::Promote | Verdict::Reject | Verdict::Inconclusive) {
            valid += 1;
            let rose = decision.estimate.as_ref().is_some_and(|found| found.difference > 0.0);
            let expected = match (*chi_square < 2.0 * rules.alpha, rose) {
                (true, true) => Verdict::Promote,
                (true, false) => Verdict::Reject,
                (false, _) => Verdict::Inconclusive,
            };
            agree += u32::from(decision.verdict == expected);
        }
    }
    println!("{} pairs: {verdicts:?}; {agree} of {valid} valid ones as chi-square says", pairs.len());
    assert_eq!(pairs.len(), 1370);
    // Near the level the two tests differ in the fourth digit of p.
    assert!(f64::from(agree) >= 0.99 * f64::from(valid), "{agree} of {valid}");
}
