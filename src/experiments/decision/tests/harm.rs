//! Looks at harm.

use super::*;
use crate::experiments::statistics::{Method, estimate, sequential};

fn look(cells: &[Cell], rules: &Rules, planned_standard_error: Option<f64>) -> HarmLook {
    let observed =
        Observed { sampling: Sampling::Independent, cells: cells.to_vec(), planned_standard_error };
    look_for_harm(rules.primary, Some(&observed), rules)
}

fn better_cells() -> Vec<Cell> {
    better().metrics[&Metric::Engagement].cells.clone()
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
    let found = look(&better_cells(), &Rules::default(), None);
    assert!(found.enough && !found.harmed);
    assert!(found.e_value.unwrap() < 1.0);
    let lower_is_better = Rules { primary: Metric::Latency, ..Rules::default() };
    assert!(look(&better_cells(), &lower_is_better, None).e_value.unwrap() > 1.0);
}

#[test]
fn harm_is_not_judged_before_there_is_enough_of_each_arm() {
    let bad = |n: u64| cells((9000, 540.0, 50.6), (n, 0.01 * n as f64, 0.001 * n as f64));
    let early = look(&bad(99), &Rules::default(), Some(0.001));
    assert_eq!((early.enough, early.harmed, early.e_value), (false, false, None));
    assert!(
        early.reason.starts_with("Too early to judge harm to engagement: 9,000 baseline and 99 candidate")
    );
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
    let later = look(&better_cells(), &Rules::default(), first.planned_standard_error);
    assert_eq!(later.planned_standard_error, first.planned_standard_error);
    assert_ne!(later.e_value, look(&better_cells(), &Rules::default(), None).e_value);
    // One that is no error is not used.
    let nonsense = look(&better_cells(), &Rules::default(), Some(f64::NAN));
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
fn outcomes_that_do_not_vary_show_harm_where_they_differ() {
    let rules = Rules { primary: Metric::ErrorRate, ..Rules::default() };
    let errors = |baseline, candidate| {
        look(&cells((9000, baseline, baseline), (1000, candidate, candidate)), &rules, None)
    };
    let found = errors(0.0, 1000.0);
    assert_eq!((found.enough, found.harmed, found.standard_error), (true, true, Some(0.0)));
    assert_eq!(
        found.reason,
        "The error rate changed by 1.0000, which is harm (e-value beyond all numbers, threshold 100)."
    );
    for (baseline, candidate) in [(0.0, 0.0), (9000.0, 1000.0), (9000.0, 0.0)] {
        let found = errors(baseline, candidate);
        assert_eq!((found.enough, found.harmed, found.e_value), (true, false, Some(0.0)), "{found:?}");
    }
    // Too few to judge stay so.
    let few = cells((9000, 0.0, 0.0), (99, 99.0, 99.0));
    assert_eq!(look(&few, &rules, None).e_value, None);
}

#[test]
fn each_watched_metric_has_its_share_of_the_level_and_its_tolerance() {
    let watched = |metric, tolerance| Watched { metric, tolerance };
    let rules = Rules {
        harm_alpha: 0.02,
        watched: vec![
            watched(Metric::Engagement, None),
            watched(Metric::ErrorRate, Some(0.5)),
            watched(Metric::Latency, Some(0.1)),
            watched(Metric::Quality, None),
        ],
        ..Rules::default()
    };
    // Errors rise from 1 % to 4 %, latency by a tenth: within its tolerance.
    let evidence = better()
        .and(Metric::ErrorRate, cells((9000, 90.0, 90.0), (1000, 40.0, 40.0)))
        .and(Metric::Latency, cells((9000, 9e6, 9.1e9), (1000, 1.1e6, 1.22e9)));
    let report = HarmReport::of(&evidence.metrics, &rules);
    let metrics: Vec<Metric> = report.looks.iter().map(|look| look.metric).collect();
    assert_eq!(metrics, [Metric::Engagement, Metric::ErrorRate, Metric::Latency, Metric::Quality]);
    assert!(report.looks.iter().all(|look| (look.threshold - 200.0).abs() < 1e-9));
    let harmed: Vec<bool> = report.looks.iter().map(|look| look.harmed).collect();
    assert_eq!(harmed, [false, true, false, false]);
    assert!(report.harmed && report.enough);
    assert!(
        report.reason.starts_with("The error rate changed by 300.0 %, which is harm"),
        "{}",
        report.reason
    );
    assert_eq!(decided(&evidence, &rules), (Verdict::StopForHarm, ReasonCode::Harm));
    // The metric is not watched by default, and a tolerance of its own forgives.
    assert_eq!(decided(&evidence, &Rules::default()).0, Verdict::Promote);
    let mut tolerant = rules.clone();
    tolerant.watched[1].tolerance = Some(0.99);
    assert!(HarmReport::of(&evidence.metrics, &tolerant).looks[1].e_value < report.looks[1].e_value);
    // What is planned is kept for each.
    let planned = decide(&evidence, &rules).planned_standard_errors;
    assert_eq!(planned.keys().copied().collect::<Vec<_>>(), metrics_with_data());
}

fn metrics_with_data() -> Vec<Metric> {
    let mut metrics = vec![Metric::Engagement, Metric::ErrorRate, Metric::Latency];
    metrics.sort();
    metrics
}

#[test]
fn a_watch_without_any_outcome_has_not_enough() {
    let report = HarmReport::of(&BTreeMap::new(), &Rules::default());
    assert!(!report.enough && !report.harmed);
    assert!(report.reason.starts_with("Harm to engagement cannot be judged"), "{}", report.reason);
}
