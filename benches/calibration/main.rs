//! How often the decision errs, by simulation through its own code: `cargo bench --bench calibration`.
//!
//! What the figures mean stands in `docs/benchmarks.md`. `-- 2000` simulates so many experiments of each kind in
//! place of 20,000.

mod harm;
mod scenario;
mod simulate;

use std::process::ExitCode;

use scenario::{SCENARIOS, Scenario};
use tuneloop::experiments::decision::{ReasonCode, Rules, Verdict, decide};

const EXPERIMENTS: u64 = 20_000;
/// The effect whose power is compared with the planner's.
const EFFECT: f64 = 0.2;

fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let experiments = wanted.unwrap_or(EXPERIMENTS);
    let (mut worst_ratio, mut power_gap) = (0.0_f64, 0.0_f64);
    for scenario in &SCENARIOS {
        let null = tally(scenario, experiments, 0.0);
        let ratio = null.promoted / Rules::default().alpha;
        println!(
            "{}: false promotions {:.2} % ({ratio:.2} of nominal), insufficient {:.2} %, invalid {:.2} %, \
             stopped for harm {:.2} %",
            scenario.name,
            null.promoted * 100.0,
            null.insufficient * 100.0,
            null.invalid * 100.0,
            null.harmed * 100.0,
        );
        worst_ratio = worst_ratio.max(ratio);
        if null.insufficient > 0.05 {
            eprintln!("calibration: {} decides too seldom to be calibrated", scenario.name);
            return ExitCode::FAILURE;
        }
        if let Some(planned) = scenario.planned_power(EFFECT) {
            let found = tally(scenario, experiments, EFFECT).superior;
            let gap = (found - planned) * 100.0;
            println!("{}: power {:.1} %, planned {:.1} %", scenario.name, found * 100.0, planned * 100.0);
            if gap.abs() > power_gap.abs() {
                power_gap = gap;
            }
        }
    }
    for scenario in &SCENARIOS {
        let stopped = harm::false_stops(scenario, experiments);
        let ratio = stopped / Rules::default().harm_alpha;
        println!(
            "{}: hourly looks for harm over 168 hours stop {:.2} % ({ratio:.2} of nominal)",
            scenario.name,
            stopped * 100.0
        );
        worst_ratio = worst_ratio.max(ratio);
    }
    println!("calibration: worst_ratio={worst_ratio:.2} power_gap={power_gap:.2}");
    ExitCode::SUCCESS
}

/// Shares of all experiments.
struct Tally {
    promoted: f64,
    superior: f64,
    insufficient: f64,
    invalid: f64,
    harmed: f64,
}

fn tally(scenario: &Scenario, experiments: u64, effect: f64) -> Tally {
    let rules = scenario.rules();
    let salt = if effect > 0.0 { "power" } else { "null" };
    let counts = simulate::in_parallel(experiments, |index| {
        let mut random = simulate::seeded(&format!("{salt} {}", scenario.name), index);
        let decision = decide(&scenario.evidence(&mut random, effect), &rules);
        // The policy and the split are other questions than whether the effect is found.
        let superior = decision.reason_code == ReasonCode::PrimarySuperior
            || decision.reason_code == ReasonCode::SampleRatioMismatch
                && decision
                    .estimate
                    .as_ref()
                    .is_some_and(|found| found.p_greater.is_some_and(|p| p < rules.alpha));
        [
            decision.verdict == Verdict::Promote,
            superior,
            decision.reason_code == ReasonCode::InsufficientOutcomes,
            decision.verdict == Verdict::Invalid,
            decision.verdict == Verdict::StopForHarm,
        ]
    });
    let [promoted, superior, insufficient, invalid, harmed] =
        counts.map(|count| count as f64 / experiments as f64);
    Tally { promoted, superior, insufficient, invalid, harmed }
}
