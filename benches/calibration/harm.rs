//! Looks for harm every hour of a week, where there is none.

use tuneloop::experiments::decision::HarmReport;

use crate::scenario::{Running, Scenario};
use crate::simulate;

const HOURS: u32 = 168;

/// The share of experiments without an effect that any look stops.
pub(crate) fn false_stops(scenario: &Scenario, experiments: u64) -> f64 {
    let rules = scenario.rules();
    let [stopped] = simulate::in_parallel(experiments, |index| {
        let mut random = simulate::seeded(&format!("harm {}", scenario.name), index);
        let mut test = Running::new(scenario, &mut random);
        let mut planned = None;
        let harmed = (0..HOURS).any(|_| {
            test.serve(&mut random, 1, scenario.first_weight(), 1, 0.0);
            let report = HarmReport::of(&test.metrics(planned), &rules);
            // What the first look with enough data froze stays.
            planned = planned.or(report.looks[0].planned_standard_error);
            report.harmed
        });
        [harmed]
    });
    stopped as f64 / experiments as f64
}
