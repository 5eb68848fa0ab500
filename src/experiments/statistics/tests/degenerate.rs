//! Inputs that have no ordinary answer have a defined one.

use super::super::group_sequential::{Look, bounds, spent};
use super::super::sequential::{confidence_sequence, harm_e_value};
use super::super::{Arm, Cell, Method, NoEstimate, estimate};
use super::{assert_close, clustered, two_arms};

const METHODS: [Method; 3] = [Method::Welch, Method::ClusteredPerPost, Method::ClusteredSticky];

fn refusal(cells: &[Cell], method: Method) -> NoEstimate {
    estimate(cells, method, 1.0, 0.95).expect_err("no estimate")
}

#[test]
fn nothing_one_outcome_or_an_empty_arm_cannot_be_compared() {
    let one = [Cell::average(1, Arm::Candidate, "a", 1, 0.1, 0.01)];
    let one_each = [one[0].clone(), Cell::average(1, Arm::Baseline, "b", 1, 0.1, 0.01)];
    for method in METHODS {
        assert_eq!(refusal(&[], method), NoEstimate::NothingToCompare);
        assert_eq!(refusal(&one, method), NoEstimate::NothingToCompare);
        assert_eq!(refusal(&one_each, method), NoEstimate::NothingToCompare);
        assert_eq!(refusal(&two_arms()[..1], method), NoEstimate::NothingToCompare);
    }
    // Many outcomes of one cluster are one observation.
    assert_eq!(refusal(&two_arms(), Method::ClusteredSticky), NoEstimate::NothingToCompare);
}

#[test]
fn a_denominator_of_zero_cannot_be_compared() {
    let free = |arm| Cell {
        denominator: 0.0,
        denominator_sq: 0.0,
        cross: 0.0,
        ..Cell::average(1, arm, "", 9, 1.0, 1.0)
    };
    assert_eq!(
        refusal(&[free(Arm::Baseline), free(Arm::Candidate)], Method::Welch),
        NoEstimate::NothingToCompare
    );
}

#[test]
fn numbers_that_no_outcomes_have_are_refused() {
    for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut cells = two_arms();
        cells[1].numerator = broken;
        assert_eq!(refusal(&cells, Method::Welch), NoEstimate::Unusable);
    }
    let mut cells = two_arms();
    cells[0].denominator = -1.0;
    assert_eq!(refusal(&cells, Method::Welch), NoEstimate::Unusable);
    // A sum of squares below what the sum allows.
    let mut cells = two_arms();
    cells[0].numerator_sq = 1.0;
    assert_eq!(refusal(&cells, Method::Welch), NoEstimate::Unusable);
}

#[test]
fn numbers_beyond_the_range_are_refused() {
    let huge = |arm, cluster| Cell::average(1, arm, cluster, u64::MAX, f64::MAX, f64::MAX);
    let cells: Vec<Cell> = [Arm::Baseline, Arm::Candidate]
        .into_iter()
        .flat_map(|arm| ["a", "b"].map(|g| huge(arm, g)))
        .collect();
    for method in METHODS {
        assert_eq!(refusal(&cells, method), NoEstimate::OutOfRange);
    }
}

#[test]
fn huge_counts_are_computed() {
    let n = 1_000_000_000_000;
    let cells = [
        Cell::average(1, Arm::Baseline, "", n, 0.06 * n as f64, 0.0061 * n as f64),
        Cell::average(1, Arm::Candidate, "", n, 0.060_01 * n as f64, 0.0061 * n as f64),
    ];
    let found = estimate(&cells, Method::Welch, 1.0, 0.95).unwrap();
    assert!(found.p_greater.unwrap() < 1e-9 && found.p_greater.unwrap() >= 0.0);
    assert!(found.interval.unwrap().lower > 0.0);
}

#[test]
fn without_variance_a_difference_is_shown_but_not_tested() {
    // 0.06 and 0.08 are not exact in binary, so that the sums carry rounding.
    let mut cells = Vec::new();
    for (arm, value) in [(Arm::Baseline, 0.06), (Arm::Candidate, 0.08)] {
        for g in 0..20 {
            let sum: f64 = (0..7).map(|_| value).sum();
            let sum_sq: f64 = (0..7).map(|_| value * value).sum();
            cells.push(Cell::average(1, arm, &format!("{g}"), 7, sum, sum_sq));
        }
    }
    for method in METHODS {
        let found = estimate(&cells, method, 1.0, 0.95).unwrap();
        assert_close(found.relative.unwrap(), 1.0 / 3.0, 1e-9);
        assert_close(found.standard_error + 1.0, 1.0, 0.0);
        assert_eq!((found.statistic, found.p_greater, found.interval), (None, None, None), "{method:?}");
    }
}

#[test]
fn arms_that_move_together_within_each_persona_have_no_variance() {
    let mut cells = Vec::new();
    for g in 0..20 {
        let value = 0.013 * f64::from(g) + 0.01;
        for (arm, shift) in [(Arm::Baseline, 0.0), (Arm::Candidate, 0.007)] {
            cells.push(Cell::average(1, arm, &format!("{g}"), 1, value + shift, 1.0));
        }
    }
    let found = estimate(&cells, Method::ClusteredPerPost, 1.0, 0.95).unwrap();
    assert_close(found.difference, 0.007, 1e-9);
    assert_eq!(found.p_greater, None);
}

#[test]
fn variance_in_one_arm_is_enough() {
    let cells = [
        Cell::average(1, Arm::Baseline, "", 50, 3.0, 0.18),
        Cell::average(1, Arm::Candidate, "", 50, 4.0, 0.5),
    ];
    let found = estimate(&cells, Method::Welch, 1.0, 0.95).unwrap();
    assert_close(found.degrees_of_freedom.unwrap(), 49.0, 1e-9);
    assert!(found.p_greater.is_some());
}

#[test]
fn nothing_is_relative_to_a_baseline_of_zero() {
    let cells = [
        Cell::average(1, Arm::Baseline, "", 50, 0.0, 0.0),
        Cell::average(1, Arm::Candidate, "", 50, 4.0, 0.5),
    ];
    let found = estimate(&cells, Method::Welch, 1.0, 0.95).unwrap();
    assert_eq!((found.relative, found.relative_standard_error, found.relative_interval), (None, None, None));
    assert!(found.p_greater.is_some());
}

#[test]
fn an_epoch_with_a_single_cluster_in_an_arm_is_left_out() {
    let cells = clustered(|g, _| g % 4 == 0);
    let alone = estimate(&cells, Method::ClusteredSticky, 1.0, 0.95).unwrap();
    let mut more = cells;
    more.push(Cell::average(2, Arm::Candidate, "persona 0", 1, 1.0, 1.0));
    for g in 1..12 {
        more.push(Cell::average(2, Arm::Baseline, &format!("persona {g}"), 90, 9.0, 9.0));
    }
    let found = estimate(&more, Method::ClusteredSticky, 1.0, 0.95).unwrap();
    assert_eq!(found.epochs_left_out, 1);
    assert_close(found.standard_error, alone.standard_error, 0.0);
    assert_eq!(found.counts, alone.counts);
}

#[test]
fn sequential_figures_are_finite_or_absent() {
    let numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-300,
        1e300,
        -1e300,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::NAN,
        f64::INFINITY,
        -f64::INFINITY,
    ];
    for a in numbers {
        for b in numbers {
            for c in numbers {
                for alpha in [0.05, 0.0, 1e-300, 0.5, 0.9, -1.0, f64::NAN] {
                    if let Some(e_value) = harm_e_value(a, b, c, alpha) {
                        assert!(e_value.is_finite() && e_value >= 0.0, "{a} {b} {c} {alpha}");
                    }
                    if let Some(sequence) = confidence_sequence(a, b, c, alpha) {
                        assert!((0.0..=1.0).contains(&sequence.p_value));
                        assert!(sequence.interval.lower.is_finite() && sequence.interval.upper.is_finite());
                    }
                }
            }
        }
    }
    assert_eq!(harm_e_value(1.0, 0.0, 1.0, 0.05), None);
    assert_close(harm_e_value(1e6, 1.0, 1.0, 0.05).unwrap(), f64::MAX, 0.0);
    let benefit = harm_e_value(-60.0, 1.0, 1.0, 0.05).unwrap();
    assert!(benefit > 0.0 && benefit < 0.01, "{benefit}");
}

#[test]
fn bounds_are_finite_whatever_the_looks_and_absent_where_they_are_none() {
    let look = |fraction, information| Look { fraction, information };
    for broken in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        assert_eq!(bounds(0.025, &[look(broken, 1.0)]), None);
        assert_eq!(bounds(0.025, &[look(0.5, broken)]), None);
        assert_eq!(bounds(broken, &[look(0.5, 1.0)]), None);
    }
    assert_eq!(bounds(0.025, &[]), Some(Vec::new()));
    // Information that falls or stands still, time that does, and an early end of both.
    let strange = [
        [look(0.5, 10.0), look(0.5, 10.0), look(1.0, 5.0)],
        [look(1e-9, 1e-300), look(1e-6, 1e300), look(2.0, 1e308)],
        [look(0.9, 1.0), look(0.1, 1.0), look(1.0, 1.0)],
    ];
    for looks in strange {
        let found = bounds(0.025, &looks).unwrap();
        let is_level = |level: f64| (0.0..=0.025 * (1.0 + 1e-6)).contains(&level);
        assert!(found.iter().all(|bound| bound.z.is_finite() && is_level(bound.level)), "{found:?}");
    }
    assert_close(spent(0.025, 1.0), 0.025, 0.0);
    assert_close(spent(0.025, 7.0), 0.025, 0.0);
    assert_close(1.0 + spent(0.025, 0.0) + spent(0.025, f64::NAN), 1.0, 0.0);
}
