//! What a test needs.

use proptest::prelude::*;

use super::super::planning::{Plan, PlanInput, best_split, plan, power_after, progress};
use super::super::{Method, Variability};
use super::{Arm, Cell, assert_close};

/// The reference: μ 0.06, σ 0.045, 5 %, 90/10.
fn input(method: Method) -> PlanInput {
    let variability = Variability { mean: 0.06, deviation: 0.045, intra_cluster: 0.2, clusters: 200 };
    PlanInput {
        variability,
        method,
        effect: 0.05,
        alpha: 0.025,
        power: 0.8,
        candidate_share: 0.1,
        outcomes_per_day: 10_000.0,
    }
}

#[test]
fn independent_outcomes_need_what_the_reference_says() {
    // The reference is by normal quantiles, 1962.219934; those of t ask for a few more.
    let Plan::Reachable(needed) = plan(&input(Method::Welch)) else { panic!("unreachable") };
    assert!((1963..1967).contains(&needed.candidate_outcomes), "{needed:?}");
    assert_close(needed.design_effect, 1.0, 1e-9);
    assert_close(needed.days.unwrap(), 1.96, 0.01);
    // With personas by the thousand million the quantiles are normal ones: the formula itself.
    let mut many = input(Method::ClusteredPerPost);
    many.variability.clusters = 1 << 50;
    let Plan::Reachable(needed) = plan(&many) else { panic!("unreachable") };
    assert_eq!(needed.candidate_outcomes, 1963);
    assert_close(power_after(&many, 1_962.219_934).unwrap(), 0.8, 1e-9);
}

#[test]
fn sticky_personas_bound_the_power() {
    // σ²ρ(1/20 + 1/180) = 2.25e-5: an effect below 2.8 times its root, 13.8 %, is out of reach.
    let far = input(Method::ClusteredSticky);
    let Plan::Unreachable { smallest_effect } = plan(&far) else { panic!("reachable") };
    let bound = smallest_effect.unwrap();
    assert!(bound > 0.22 && bound < 0.25, "{bound}");
    assert!(matches!(plan(&PlanInput { effect: bound * 0.999, ..far }), Plan::Unreachable { .. }));
    let Plan::Reachable(needed) = plan(&PlanInput { effect: bound * 1.2, ..far }) else { panic!("no") };
    assert!(needed.design_effect > 2.0 && (needed.degrees_of_freedom - 19.0).abs() < 1e-9, "{needed:?}");
}

#[test]
fn the_planned_outcomes_have_the_planned_power() {
    for method in [Method::Welch, Method::ClusteredPerPost, Method::ClusteredSticky] {
        let input = PlanInput { effect: 0.4, ..input(method) };
        let Plan::Reachable(needed) = plan(&input) else { panic!("unreachable") };
        let n = needed.candidate_outcomes as f64;
        assert!(power_after(&input, n).unwrap() >= 0.8);
        assert!(power_after(&input, n - 1.5).unwrap() < 0.8);
        let begun = progress(&input, needed.candidate_outcomes / 2);
        assert!(begun.power.unwrap() < 0.8 && begun.days_left.unwrap() > 0.0);
        assert_close(1.0 + progress(&input, needed.candidate_outcomes).days_left.unwrap(), 1.0, 0.0);
    }
}

#[test]
fn equal_shares_are_fastest() {
    let (share, needed) = best_split(&input(Method::Welch)).unwrap();
    assert_close(share, 0.5, 1e-12);
    assert!(needed.outcomes < 8000);
    assert_eq!(best_split(&PlanInput { effect: 0.001, ..input(Method::ClusteredSticky) }), None);
}

#[test]
fn the_intra_class_correlation_is_that_of_the_cells() {
    // Two outcomes each, m_g ± 1, with m_g = ±3: between-cluster mean square 18·G/(G−1), within 2.
    let cells: Vec<Cell> = (0..100)
        .map(|g| {
            let middle = if g % 2 == 0 { 7.0 } else { 13.0 };
            Cell::average(1, Arm::Baseline, &format!("{g}"), 2, 2.0 * middle, 2.0 * middle * middle + 2.0)
        })
        .collect();
    let found = Variability::of(&cells).unwrap();
    let component = f64::midpoint(18.0 * 100.0 / 99.0, -2.0);
    assert_close(found.mean, 10.0, 1e-12);
    assert_close(found.intra_cluster, component / (component + 2.0), 1e-9);
    assert_close(found.deviation, (component + 2.0).sqrt(), 1e-9);
    assert_eq!(found.clusters, 100);
    assert_eq!(Variability::of(&[]), None);
    assert_eq!(Variability::of(&cells[..1]).unwrap().clusters, 1);
}

#[test]
fn what_makes_no_sense_is_unknown() {
    let sensible = input(Method::Welch);
    let variability = |mean, deviation, intra_cluster, clusters| PlanInput {
        variability: Variability { mean, deviation, intra_cluster, clusters },
        ..input(Method::ClusteredSticky)
    };
    for broken in [
        PlanInput { effect: 0.0, ..sensible },
        PlanInput { effect: f64::NAN, ..sensible },
        PlanInput { alpha: 0.5, ..sensible },
        PlanInput { power: 1.0, ..sensible },
        PlanInput { candidate_share: 0.0, ..sensible },
        PlanInput { candidate_share: 1.0, ..sensible },
        variability(0.0, 1.0, 0.1, 10),
        variability(1.0, 0.0, 0.1, 10),
        variability(1.0, f64::INFINITY, 0.1, 10),
        variability(1.0, 1.0, f64::NAN, 10),
    ] {
        assert_eq!(plan(&broken), Plan::Unknown, "{broken:?}");
    }
    assert!(matches!(plan(&variability(1.0, 1.0, 0.1, 0)), Plan::Unreachable { .. }));
    assert!(matches!(plan(&variability(1.0, 1.0, 0.1, 10)), Plan::Unreachable { .. }));
    let Plan::Reachable(needed) = plan(&PlanInput { outcomes_per_day: 0.0, ..sensible }) else {
        panic!("no")
    };
    assert_eq!(needed.days, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_every_number_is_finite(
        numbers in prop::array::uniform8(prop_oneof![3 => 0.0..1.0_f64, 1 => any::<f64>()]),
        clusters in prop_oneof![0..300_u64, any::<u64>()],
        outcomes in any::<u64>(),
        method in prop_oneof![
            Just(Method::Welch), Just(Method::ClusteredPerPost), Just(Method::ClusteredSticky)
        ],
    ) {
        let [mean, deviation, intra_cluster, effect, alpha, power, candidate_share, rate] = numbers;
        let variability = Variability { mean, deviation, intra_cluster, clusters };
        let input = PlanInput {
            variability, method, effect, alpha, power, candidate_share, outcomes_per_day: rate,
        };
        let found = serde_json::to_string(&progress(&input, outcomes)).unwrap();
        prop_assert!(!found.contains("null"), "{}", found);
    }
}

#[test]
fn effects_too_small_to_plan_for_are_unknown_whatever_the_size() {
    // With 10^15 outcomes in all at a tenth for the candidate the effect is about 2.2·10^-7.
    for method in [Method::Welch, Method::ClusteredPerPost] {
        for effect in [1e-7, 1e-8, 1e-20, 1e-160, 1e-300, f64::MIN_POSITIVE] {
            let plan = plan(&PlanInput { effect, ..input(method) });
            assert_eq!(plan, Plan::Unknown, "{method:?} {effect}");
        }
        let Plan::Reachable(needed) = plan(&PlanInput { effect: 1e-5, ..input(method) }) else {
            panic!("no")
        };
        assert!(needed.outcomes < 1_000_000_000_000_000, "{needed:?}");
        assert!((needed.candidate_outcomes as f64 * 10.0 / needed.outcomes as f64 - 1.0).abs() < 1e-9);
    }
}
