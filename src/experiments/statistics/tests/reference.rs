//! Reference numbers, from gbstats 0.8.0, statsmodels 0.15.0 and `SciPy` 1.17.1, and by hand.

use super::super::group_sequential::{self, Look, bounds};
use super::super::sequential::{confidence_sequence, harm_e_value};
use super::super::{
    Arm, Cell, Direction, Estimate, Method, PerArm, Sampling, Units, estimate, holm, sample_ratio,
};
use super::{assert_close, clustered, two_arms};

const TOLERANCE: f64 = 1e-9;

fn plain(cells: &[Cell], method: Method) -> Estimate {
    estimate(cells, method, 1.0, 0.95).expect("an estimate")
}

#[test]
fn welch_agrees_with_gbstats_and_scipy() {
    let found = plain(&two_arms(), Method::Welch);
    assert_close(found.difference, 0.004, TOLERANCE);
    assert_close(found.statistic.unwrap(), 2.620_024_767, TOLERANCE);
    assert_close(found.degrees_of_freedom.unwrap(), 1_222.010_268, TOLERANCE);
    assert_close(found.p_two_sided.unwrap(), 0.008_901_306_955, TOLERANCE);
    assert_close(found.p_greater.unwrap(), 0.004_450_653_477, TOLERANCE);
    assert_close(found.p_less.unwrap(), 1.0 - 0.004_450_653_477, TOLERANCE);
    let interval = found.interval.unwrap();
    assert_close(interval.lower, 0.001_004_750_205, TOLERANCE);
    assert_close(interval.upper, 0.006_995_249_795, TOLERANCE);
    assert_close(found.relative.unwrap(), 0.066_666_666_67, TOLERANCE);
    assert_close(found.relative_standard_error.unwrap(), 0.025_613_491_18, TOLERANCE);
    assert_eq!(found.counts.map(|count| count.outcomes), PerArm { baseline: 9000, candidate: 1000 });
}

#[test]
fn epochs_are_stratified_and_not_pooled() {
    let mut cells = two_arms();
    cells.push(Cell::average(2, Arm::Baseline, "", 4000, 200.0, 17.2));
    cells.push(Cell::average(2, Arm::Candidate, "", 4000, 212.0, 18.9));
    let found = plain(&cells, Method::Welch);
    assert_close(found.difference, 0.003_555_555_556, TOLERANCE);
    assert_close(found.standard_error, 0.000_950_232_445_5, TOLERANCE);
    assert_eq!((found.epochs, found.epochs_left_out), (2, 0));
}

#[test]
fn sticky_personas_agree_with_the_delta_method_per_arm() {
    let found = plain(&clustered(|g, _| g % 4 == 0), Method::ClusteredSticky);
    assert_close(found.difference, -0.048_341_977_05, TOLERANCE);
    assert_close(found.standard_error, 0.087_807_163_4, TOLERANCE);
    assert_close(found.degrees_of_freedom.unwrap(), 2.0, TOLERANCE);
    assert_eq!(found.counts.map(|count| count.clusters), PerArm { baseline: 9, candidate: 3 });
}

#[test]
fn posts_of_shared_personas_agree_with_the_cluster_robust_variance() {
    let found = plain(&clustered(|g, j| (7 * g + 3 * j) % 5 == 0), Method::ClusteredPerPost);
    assert_close(found.difference, 0.066_299_397_54, TOLERANCE);
    assert_close(found.standard_error, 0.050_757_633_88, TOLERANCE);
    assert_close(found.degrees_of_freedom.unwrap(), 11.0, TOLERANCE);
}

#[test]
fn a_contrast_carries_its_multiplier_into_the_variance() {
    // s²/n of the arms, by hand: (50.6 − 540²/9000) / 8999 / 9000 and (6.2 − 64²/1000) / 999 / 1000.
    let (baseline, candidate) = (18.2 / 8999.0 / 9000.0, 2.104 / 999.0 / 1000.0);
    let found = estimate(&two_arms(), Method::Welch, 0.98, 0.9).unwrap();
    assert_close(found.difference, 0.064 - 0.98 * 0.06, TOLERANCE);
    assert_close(found.standard_error, (candidate + 0.98_f64.powi(2) * baseline).sqrt(), TOLERANCE);
    assert_close(found.relative.unwrap(), 0.066_666_666_67, TOLERANCE);
}

#[test]
fn a_ratio_of_sums_has_the_variance_of_its_residuals() {
    // Dollars over engagements: r = 10/20 in the baseline and 6/20 in the candidate, by hand.
    let cell = |arm, pairs: [(f64, f64); 4]| {
        let sum = |of: fn(f64, f64) -> f64| pairs.iter().map(|&(s, n)| of(s, n)).sum();
        Cell {
            numerator: sum(|s, _| s),
            denominator: sum(|_, n| n),
            numerator_sq: sum(|s, _| s * s),
            cross: sum(|s, n| s * n),
            denominator_sq: sum(|_, n| n * n),
            ..Cell::average(1, arm, "", 4, 0.0, 0.0)
        }
    };
    let cells = [
        cell(Arm::Baseline, [(1.0, 4.0), (2.0, 6.0), (3.0, 2.0), (4.0, 8.0)]),
        cell(Arm::Candidate, [(1.0, 5.0), (2.0, 5.0), (2.0, 8.0), (1.0, 2.0)]),
    ];
    let found = plain(&cells, Method::Welch);
    assert_close(found.difference, -0.2, TOLERANCE);
    // Σ(S − rN)²: 1 + 1 + 4 + 0 = 6 and 0.25 + 0.25 + 0.16 + 0.16 = 0.82; each times 4/3 over 20².
    assert_close(found.standard_error, ((6.0_f64 + 0.82) * 4.0 / 3.0 / 400.0).sqrt(), TOLERANCE);
    assert_eq!(found.p_better(Direction::LowerIsBetter), found.p_less);
    assert!(found.p_less < found.p_greater);
}

#[test]
fn the_confidence_sequence_agrees_with_gbstats() {
    let found = plain(&two_arms(), Method::Welch);
    // N* = 5,000 of N = 10,000 outcomes, so that (SE*/SE)² = 2.
    let planned = found.standard_error * 2.0_f64.sqrt();
    let sequence = confidence_sequence(found.difference, found.standard_error, planned, 0.05).unwrap();
    assert_close(sequence.interval.lower, -0.000_673_966_837_9, TOLERANCE);
    assert_close(sequence.interval.upper, 0.008_673_966_838, TOLERANCE);
    assert_close(sequence.p_value, 0.162_674_811_4, TOLERANCE);
}

#[test]
fn the_e_value_agrees_with_an_independent_implementation() {
    let e_value = harm_e_value(2.620_024_767, 1.0, 2.0_f64.sqrt(), 0.05).unwrap();
    assert_close(e_value, 12.950_144_44, TOLERANCE);
}

#[test]
fn holm_agrees_with_statsmodels() {
    let adjusted = holm::adjusted(&[0.011, 0.02, 0.03, 0.2].map(Some));
    for (found, expected) in adjusted.into_iter().zip([0.044, 0.06, 0.06, 0.2]) {
        assert_close(found.unwrap(), expected, TOLERANCE);
    }
    // The order is that of the input, a missing p-value counts as one more metric.
    assert_eq!(holm::adjusted(&[Some(0.03), None, Some(0.01)]), [Some(0.06), None, Some(0.03)]);
    assert_eq!(holm::adjusted(&[Some(0.9), Some(f64::NAN), Some(0.8)]), [Some(1.0), None, Some(1.0)]);
    assert_eq!(holm::adjusted(&[]), []);
}

#[test]
fn bounds_agree_with_obrien_and_fleming_by_an_independent_implementation() {
    let looks: Vec<Look> =
        (1..=5).map(|k| Look { fraction: f64::from(k) / 5.0, information: f64::from(k) * 2000.0 }).collect();
    let bounds = bounds(0.025, &looks).unwrap();
    let expected = [4.876_884_949, 3.357_011_922, 2.680_280_065, 2.289_816_768, 2.031_032_043];
    for (found, expected) in bounds.iter().zip(expected) {
        assert_close(found.z, expected, 1e-6);
    }
    // SciPy: norm.sf(2.031032043).
    assert_close(bounds[4].level, 0.021_125_9, 1e-4);
    let one = group_sequential::bounds(0.025, &[Look { fraction: 1.0, information: 3.0 }]).unwrap();
    assert_close(one[0].level, 0.025, TOLERANCE);
}

fn units(epoch: i64, counts: [u64; 2], weights: [u32; 2]) -> Units {
    Units {
        epoch,
        weights: PerArm { baseline: weights[0], candidate: weights[1] },
        counts: PerArm { baseline: counts[0], candidate: counts[1] },
    }
}

#[test]
fn the_sample_ratio_agrees_with_scipy() {
    let one = [units(1, [9120, 880], [9000, 1000])];
    assert_close(sample_ratio::p_value(&one).unwrap(), 6.334_248_367e-5, TOLERANCE);
    let two = [units(1, [9050, 950], [9000, 1000]), units(2, [4100, 3900], [5000, 5000])];
    assert_close(sample_ratio::p_value(&two).unwrap(), 0.020_468_075_71, TOLERANCE);
}

#[test]
fn the_sample_ratio_passes_over_epochs_without_a_ratio() {
    let one = units(1, [9120, 880], [9000, 1000]);
    let more = [one.clone(), units(2, [0, 0], [5000, 5000]), units(3, [40, 2], [10_000, 0])];
    assert_eq!(sample_ratio::p_value(&more), sample_ratio::p_value(&[one]));
    assert_eq!(sample_ratio::p_value(&more[1..]), None);
    assert_eq!(sample_ratio::p_value(&[]), None);
    // Rows of one epoch are one stratum; other versions may hold the rest of the weight.
    let split = [units(1, [9000, 500], [4500, 500]), units(1, [120, 380], [4500, 500])];
    assert_close(sample_ratio::p_value(&split).unwrap(), 6.334_248_367e-5, TOLERANCE);
}

#[test]
fn only_single_outcomes_without_personas_are_independent() {
    let cell = |cluster, n| Cell::average(1, Arm::Baseline, cluster, n, 0.1, 0.1);
    assert_eq!(Sampling::of(&[cell("a", 1), cell("b", 1)], false), Sampling::Independent);
    assert_eq!(Sampling::of(&[cell("a", 1), cell("b", 1)], true), Sampling::Clustered);
    assert_eq!(Sampling::of(&[cell("a", 1), cell("a", 1)], false), Sampling::Clustered);
    assert_eq!(Sampling::of(&[cell("a", 2), cell("b", 1)], false), Sampling::Clustered);
}
