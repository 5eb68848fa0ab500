//! Looks at harm.

use super::*;
use crate::experiments::statistics::{Method, estimate, sequential};

fn look(cells: &[Cell], rules: &Rules, planned: Option<f64>) -> HarmLook {
    look_for_harm(cells, Sampling::Independent, rules, planned)
}

#[test]
fn harm_is_found_by_the_e_value_of_the_loss() {
    // The reference's arms interchanged: the candidate is 0.004 lower, z = 2.62.
    let cells = cells((1000, 64.0, 6.2), (9000, 540.0, 50.6));
    let standard_error = estimate(&cells, Method::Welch, 1.0, 0.95).unwrap().standard_error;
    let planned = standard_error * 2.0_f64.sqrt();
    let rules = Rules { harm_alpha: 0.05, ..Rules::default() };
    let found = look(&cells, &rules, Some(planned));
    assert!((found.e_value.unwrap() / 12.950_144_44 - 1.0).abs() < 1e-8, "{found:?}");
    assert!((found.threshold - 20.0).abs() < 1e-12);
    assert!(found.enough && !found.harmed);
    assert!((found.relative.unwrap() + 0.0625).abs() < 1e-12);
    // At a level that 12.95 reaches, it is harm; at its neighbour it is not.
    let at = |harm_alpha| {
        let expected = sequential::harm_e_value(0.004, standard_error, planned, harm_alpha).unwrap();
        let found = look(&cells, &Rules { harm_alpha, ..Rules::default() }, Some(planned));
        assert_eq!(found.harmed, expected >= 1.0 / harm_alpha);
        found.harmed
    };
    assert!(at(0.09) && !at(0.05));
}

#[test]
fn a_better_candidate_shows_no_harm() {
    let found = look(&better().cells, &Rules::default(), None);
    assert!(found.enough && !found.harmed);
    assert!(found.e_value.unwrap() < 1.0);
    let lower_is_better = Rules { primary: Metric::Latency, ..Rules::default() };
    assert!(look(&better().cells, &lower_is_better, None).e_value.unwrap() > 1.0);
}

#[test]
fn harm_is_not_judged_before_there_is_enough_of_each_arm() {
    let bad = |n: u64| cells((9000, 540.0, 50.6), (n, 0.01 * n as f64, 0.001 * n as f64));
    let early = look(&bad(99), &Rules::default(), Some(0.001));
    assert_eq!((early.enough, early.harmed, early.e_value), (false, false, None));
    assert!(early.reason.starts_with("Too early to judge harm: 9,000 baseline and 99 candidate"));
    assert!(look(&bad(100), &Rules::default(), Some(0.001)).harmed);
    let rules = Rules { harm_minimum_clusters: 101, ..Rules::default() };
    assert!(!look(&bad(100), &rules, Some(0.001)).harmed);
    let none = look(&[], &Rules::default(), None);
    assert_eq!((none.enough, none.harmed, none.planned_standard_error), (false, false, None));
}

#[test]
fn the_first_look_with_enough_data_gives_the_error_to_freeze() {
    let early = look(&cells((900, 54.0, 5.06), (99, 6.3, 0.6)), &Rules::default(), None);
    assert_eq!(early.planned_standard_error, None);
    let first = look(&cells((900, 54.0, 5.06), (100, 6.4, 0.62)), &Rules::default(), None);
    assert!(first.planned_standard_error.is_some());
    assert_eq!(first.planned_standard_error, first.standard_error);
    let later = look(&better().cells, &Rules::default(), first.planned_standard_error);
    assert_eq!(later.planned_standard_error, first.planned_standard_error);
    assert_ne!(later.e_value, look(&better().cells, &Rules::default(), None).e_value);
    // One that is no error is not used.
    let nonsense = look(&better().cells, &Rules::default(), Some(f64::NAN));
    assert_eq!(nonsense.planned_standard_error, nonsense.standard_error);
}

#[test]
fn a_tolerated_loss_is_not_harm() {
    let bad = cells((9000, 540.0, 50.6), (1000, 45.0, 4.2));
    assert!(look(&bad, &Rules::default(), None).harmed);
    let tolerant = Rules { harm_tolerance: 0.25, ..Rules::default() };
    let found = look(&bad, &tolerant, None);
    assert!(!found.harmed && found.e_value.unwrap() < 1.0, "{found:?}");
    assert!((found.relative.unwrap() + 0.25).abs() < 1e-12);
}

#[test]
fn outcomes_without_variance_show_no_harm() {
    let found = look(&cells((9000, 540.0, 32.4), (1000, 20.0, 0.4)), &Rules::default(), None);
    assert_eq!((found.enough, found.harmed, found.e_value), (true, false, None));
    assert_eq!(found.reason, "Harm cannot be judged: the outcomes do not vary at all.");
}
