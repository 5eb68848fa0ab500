//! What holds for any data.

use proptest::prelude::*;

use super::super::{Arm, Cell, Estimate, Method, estimate};
use super::{assert_close, interchanged};

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Welch), Just(Method::ClusteredPerPost), Just(Method::ClusteredSticky)]
}

/// Cells of single outcomes of a ratio, in a few epochs and clusters.
fn outcomes() -> impl Strategy<Value = Vec<Cell>> {
    let outcome =
        (0..3_i64, any::<bool>(), 0..8_u8, 0.0..1.0_f64, 1.0..5.0_f64).prop_map(|(epoch, arm, g, s, n)| {
            Cell {
                epoch,
                arm: if arm { Arm::Candidate } else { Arm::Baseline },
                cluster: format!("persona {g}"),
                n: 1,
                numerator: s,
                denominator: n,
                numerator_sq: s * s,
                cross: s * n,
                denominator_sq: n * n,
            }
        });
    prop::collection::vec(outcome, 30..120)
}

/// Any cell at all, most of them nonsense.
fn anything() -> impl Strategy<Value = Vec<Cell>> {
    let number = || prop_oneof![3 => any::<f64>(), 3 => 0.0..100.0_f64, 1 => Just(0.0), 1 => Just(f64::NAN)];
    let cell = (
        0..2_i64,
        any::<bool>(),
        0..4_u8,
        prop_oneof![Just(0), Just(1), 0..50_u64, Just(u64::MAX)],
        [number().boxed(), number().boxed(), number().boxed(), number().boxed(), number().boxed()],
    )
        .prop_map(|(epoch, arm, g, n, sums)| Cell {
            epoch,
            arm: if arm { Arm::Candidate } else { Arm::Baseline },
            cluster: format!("{g}"),
            n,
            numerator: sums[0],
            denominator: sums[1].abs(),
            numerator_sq: sums[2].abs(),
            cross: sums[3],
            denominator_sq: sums[4].abs(),
        });
    prop::collection::vec(cell, 0..20)
}

/// Adds up cells with the same epoch, arm and cluster.
fn merged(cells: &[Cell]) -> Vec<Cell> {
    let mut merged: Vec<Cell> = Vec::new();
    for cell in cells {
        let same = |other: &&mut Cell| {
            (other.epoch, other.arm, &other.cluster) == (cell.epoch, cell.arm, &cell.cluster)
        };
        if let Some(sum) = merged.iter_mut().find(same) {
            sum.n += cell.n;
            sum.numerator += cell.numerator;
            sum.denominator += cell.denominator;
            sum.numerator_sq += cell.numerator_sq;
            sum.cross += cell.cross;
            sum.denominator_sq += cell.denominator_sq;
        } else {
            merged.push(cell.clone());
        }
    }
    merged
}

fn plain(cells: &[Cell], method: Method) -> Estimate {
    estimate(cells, method, 1.0, 0.95).expect("an estimate")
}

/// Every number of an estimate, for a comparison within a tolerance.
fn figures(found: &Estimate) -> Vec<f64> {
    let interval = found.interval.expect("an interval");
    vec![
        found.mean_baseline,
        found.mean_candidate,
        found.standard_error,
        found.degrees_of_freedom.expect("degrees of freedom"),
        found.p_two_sided.expect("a p-value"),
        found.relative.expect("a relative effect"),
        found.relative_standard_error.expect("its standard error"),
        // The bounds may be near zero, where a relative tolerance asks for too much.
        interval.lower + 1.0,
        interval.upper + 1.0,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_cells_does_not_matter(
        (cells, shuffled) in outcomes().prop_flat_map(|cells| (Just(cells.clone()), Just(cells).prop_shuffle())),
        method in method(),
    ) {
        prop_assert_eq!(estimate(&cells, method, 1.0, 0.95), estimate(&shuffled, method, 1.0, 0.95));
    }

    #[test]
    fn cells_of_one_key_may_be_merged_or_split(cells in outcomes(), method in method()) {
        let (split, whole) = (plain(&cells, method), plain(&merged(&cells), method));
        prop_assert_eq!(split.counts, whole.counts);
        for (one, other) in figures(&split).into_iter().zip(figures(&whole)) {
            assert_close(one, other, 1e-9);
        }
    }

    #[test]
    fn interchanging_the_arms_negates_the_difference(cells in outcomes(), method in method()) {
        let (found, mirrored) = (plain(&cells, method), plain(&interchanged(&cells), method));
        assert_close(mirrored.difference, -found.difference, 1e-12);
        assert_close(mirrored.standard_error, found.standard_error, 1e-12);
        assert_close(mirrored.p_greater.unwrap(), found.p_less.unwrap(), 1e-9);
    }

    #[test]
    fn an_epoch_without_one_arm_changes_nothing(cells in outcomes(), extra in outcomes(), method in method()) {
        let with: Vec<Cell> = extra
            .into_iter()
            .map(|cell| Cell { epoch: 9, arm: Arm::Baseline, ..cell })
            .chain(cells.iter().cloned())
            .collect();
        let (found, more) = (plain(&cells, method), plain(&with, method));
        prop_assert_eq!(more.epochs_left_out, found.epochs_left_out + 1);
        let unchanged = Estimate { epochs_left_out: found.epochs_left_out, ..more };
        prop_assert_eq!(unchanged, found);
    }

    #[test]
    fn another_unit_of_measure_scales_the_effect_and_leaves_the_test(
        cells in outcomes(), method in method(), scale in 1e-3..1e3_f64,
    ) {
        let scaled: Vec<Cell> = cells
            .iter()
            .map(|cell| Cell {
                numerator: cell.numerator * scale,
                numerator_sq: cell.numerator_sq * scale * scale,
                cross: cell.cross * scale,
                ..cell.clone()
            })
            .collect();
        let (found, other) = (plain(&cells, method), plain(&scaled, method));
        assert_close(other.mean_candidate, found.mean_candidate * scale, 1e-9);
        assert_close(other.standard_error, found.standard_error * scale, 1e-9);
        assert_close(other.p_two_sided.unwrap(), found.p_two_sided.unwrap(), 1e-7);
        assert_close(other.relative_standard_error.unwrap(), found.relative_standard_error.unwrap(), 1e-9);
    }

    #[test]
    fn sticky_in_one_epoch_is_the_sum_of_the_arms(cells in outcomes()) {
        // Personas of their own in each arm: the variance of each is that of its cluster totals.
        let apart: Vec<Cell> = cells
            .into_iter()
            .map(|cell| Cell { epoch: 1, cluster: format!("{:?} {}", cell.arm, cell.cluster), ..cell })
            .collect();
        let found = plain(&apart, Method::ClusteredSticky);
        let whole = merged(&apart);
        let variance: f64 = [Arm::Baseline, Arm::Candidate]
            .map(|arm| {
                let of_arm: Vec<&Cell> = whole.iter().filter(|cell| cell.arm == arm).collect();
                let s: f64 = of_arm.iter().map(|cell| cell.numerator).sum();
                let n: f64 = of_arm.iter().map(|cell| cell.denominator).sum();
                let g = of_arm.len() as f64;
                let squares: f64 =
                    of_arm.iter().map(|cell| (cell.numerator - s / n * cell.denominator).powi(2)).sum();
                g / (g - 1.0) * squares / n / n
            })
            .iter()
            .sum();
        assert_close(found.standard_error, variance.sqrt(), 1e-9);
    }

    #[test]
    fn whatever_comes_in_every_number_is_finite(
        cells in anything(), method in method(), multiplier in any::<f64>(), level in -0.5..1.5_f64,
    ) {
        for multiplier in [multiplier, 1.0] {
            if let Ok(found) = estimate(&cells, method, multiplier, level) {
                let json = serde_json::to_string(&found).unwrap();
                prop_assert!(!json.contains("null"), "{}", json);
                for p in [found.p_greater, found.p_less, found.p_two_sided].into_iter().flatten() {
                    prop_assert!((0.0..=1.0).contains(&p));
                }
                prop_assert!(found.standard_error >= 0.0);
            }
        }
    }
}
