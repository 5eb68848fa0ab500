//! What a test needs: outcomes, days and the best split for an effect.
//!
//! Source: the sample size of a comparison of two means with unequal arms (Chow, Shao and Wang, "Sample Size
//! Calculations in Clinical Research"), with quantiles of Student's t at the test's own degrees of freedom,
//! and the design effect of clusters (Donner and Klar, "Design and Analysis of Cluster Randomization Trials").

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::distribution::{t_critical, t_greater};
use super::{Method, Variability};

/// More outcomes than this are as good as never.
const ENDLESS: f64 = 1e15;

/// What is asked for, and what is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanInput {
    /// How much outcomes vary.
    pub variability: Variability,
    /// The test that will be used.
    pub method: Method,
    /// The effect to be found, relative to the mean: 0.05 is 5 %; its sign does not matter.
    pub effect: f64,
    /// One-sided level of the test.
    pub alpha: f64,
    /// The chance to find the effect, such as 0.8.
    pub power: f64,
    /// The candidate's share of the outcomes, 0 to 1.
    pub candidate_share: f64,
    /// Outcomes of both arms a day.
    pub outcomes_per_day: f64,
}

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Plan {
    /// So many outcomes show it.
    Reachable(Needed),
    /// The clusters at hand bound the power, whatever the traffic.
    Unreachable {
        /// The smallest relative effect that endless traffic would show with the power asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        smallest_effect: Option<f64>,
    },
    /// Nothing varies, a number makes no sense, or it would take more than 10^15 outcomes.
    Unknown,
}

/// The outcomes and the time that show an effect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Needed {
    /// Outcomes of the candidate.
    pub candidate_outcomes: u64,
    /// Outcomes of both arms.
    pub outcomes: u64,
    /// How many times more outcomes are needed than without clusters.
    pub design_effect: f64,
    /// Degrees of freedom of the test.
    pub degrees_of_freedom: f64,
    /// At the traffic given; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<f64>,
}

/// The outcomes that `input` needs: `n_T` = (`q_α` + `q_β`)² · σ² · (1 + `n_T`/`n_C`) / (dμ)² times the design effect.
///
/// Where a persona is in one arm at a time, the variance of the difference is
/// σ²(1−ρ)(1 + k)/`n_T` + σ²ρ(1/`G_T` + 1/`G_C`) with k = `n_T`/`n_C` and clusters divided like the traffic, of which
/// the second part stays. Because chance divides them, 1/`G` and 1/`n` are on average a little larger. Where each persona is in both arms in the same proportion, what is common to its
/// outcomes cancels, and only the degrees of freedom show that there are clusters.
#[must_use]
pub fn plan(input: &PlanInput) -> Plan {
    let Some(design) = Design::of(input) else { return Plan::Unknown };
    let mut freedom = design.freedom(f64::INFINITY);
    let mut outcomes = f64::NAN;
    // The degrees of freedom of independent outcomes depend on their number, and the number on them.
    for _ in 0..50 {
        let Some(quantiles) = quantiles(input, freedom) else { break };
        let allowed = (design.effect / quantiles).powi(2) - design.floor;
        if allowed <= 0.0 && design.floor == 0.0 {
            // The effect is so small that its square is none.
            return Plan::Unknown;
        }
        if allowed <= 0.0 {
            let smallest = (design.floor.sqrt() * quantiles / input.variability.mean.abs()).abs();
            return Plan::Unreachable { smallest_effect: Some(smallest).filter(|effect| effect.is_finite()) };
        }
        let before = outcomes;
        outcomes = design.variance / allowed;
        freedom = design.freedom(outcomes);
        if (outcomes - before).abs() <= 1e-12 * outcomes {
            break;
        }
    }
    let total = outcomes / input.candidate_share;
    if total > ENDLESS {
        return Plan::Unknown;
    }
    if !freedom.is_finite() || freedom < 1.0 || outcomes.is_nan() {
        return Plan::Unreachable { smallest_effect: None };
    }
    let plain = quantiles(input, freedom).map(|sum| design.independent * (sum / design.effect).powi(2));
    let days = (input.outcomes_per_day > 0.0).then(|| total / input.outcomes_per_day);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and ENDLESS")]
    let whole = |number: f64| number.ceil() as u64;
    Plan::Reachable(Needed {
        // A variance takes two outcomes in each arm.
        candidate_outcomes: whole(outcomes.max(2.0)),
        outcomes: whole(total.max(4.0)),
        design_effect: plain.map(|plain| outcomes / plain).filter(|ratio| ratio.is_finite()).unwrap_or(1.0),
        degrees_of_freedom: freedom,
        days: days.filter(|days| days.is_finite()),
    })
}

/// The candidate's share, in whole percent, with which `input` needs the fewest outcomes in all, and what it
/// needs then. `None` where no share reaches it.
#[must_use]
pub fn best_split(input: &PlanInput) -> Option<(f64, Needed)> {
    let shares = (1..100_u32).map(|percent| f64::from(percent) / 100.0);
    let reachable =
        shares.filter_map(|candidate_share| match plan(&PlanInput { candidate_share, ..*input }) {
            Plan::Reachable(needed) => Some((candidate_share, needed)),
            Plan::Unreachable { .. } | Plan::Unknown => None,
        });
    // Of equals the one that puts fewest units at risk.
    reachable.min_by(|one, other| one.1.outcomes.cmp(&other.1.outcomes))
}

/// The chance that a one-sided test at `alpha` finds `effect` (absolute, in the direction looked for) with
/// this standard error: the counterpart of the planner's formula.
#[must_use]
pub fn power(effect: f64, standard_error: f64, degrees_of_freedom: f64, alpha: f64) -> Option<f64> {
    let shift = effect / standard_error;
    let critical = t_critical(1.0 - 2.0 * alpha, degrees_of_freedom).filter(|_| standard_error > 0.0)?;
    t_greater(critical - shift, degrees_of_freedom)
}

/// The power that `input` has after so many outcomes of the candidate.
#[must_use]
pub fn power_after(input: &PlanInput, candidate_outcomes: f64) -> Option<f64> {
    let design = Design::of(input)?;
    let error = standard_error_after(input, candidate_outcomes)?;
    power(design.effect, error, design.freedom(candidate_outcomes), input.alpha)
}

/// The standard error of the difference that `input` has after so many outcomes of the candidate.
#[must_use]
pub fn standard_error_after(input: &PlanInput, candidate_outcomes: f64) -> Option<f64> {
    let design = Design::of(input).filter(|_| candidate_outcomes > 0.0)?;
    let error = (design.variance / candidate_outcomes + design.floor).sqrt();
    Some(error).filter(|error| error.is_finite() && *error > 0.0)
}

/// Where a running test stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The chance to have found the effect by now, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// What the whole test takes.
    pub plan: Plan,
    /// Days until the power asked for is reached, at the traffic given; 0 where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_left: Option<f64>,
}

/// Where a test stands after so many outcomes of the candidate.
#[must_use]
pub fn progress(input: &PlanInput, candidate_outcomes: u64) -> Progress {
    let plan = plan(input);
    let days_left = match &plan {
        Plan::Reachable(needed) => {
            let missing = needed.candidate_outcomes.saturating_sub(candidate_outcomes) as f64;
            let a_day = input.outcomes_per_day * input.candidate_share;
            if missing > 0.0 { (a_day > 0.0).then(|| missing / a_day) } else { Some(0.0) }
        }
        Plan::Unreachable { .. } | Plan::Unknown => None,
    };
    Progress { power: power_after(input, candidate_outcomes as f64), plan, days_left }
}

/// The sum of the two quantiles, of the level and of the power.
fn quantiles(input: &PlanInput, degrees_of_freedom: f64) -> Option<f64> {
    // Of Student's t with endless degrees of freedom a large number gives the same digits.
    let freedom = degrees_of_freedom.min(1e15);
    let alpha = t_critical(1.0 - 2.0 * input.alpha, freedom)?;
    let beta = if input.power > 0.5 { t_critical(2.0 * input.power - 1.0, freedom)? } else { 0.0 };
    Some(alpha + beta)
}

/// The variance of the difference: `variance` / `n_T` + `floor`.
struct Design {
    effect: f64,
    variance: f64,
    floor: f64,
    /// `variance` if there were no clusters.
    independent: f64,
    /// Degrees of freedom where they depend on clusters.
    clusters: Option<f64>,
    ratio: f64,
}

/// How much larger the mean of 1/G is than 1/mean, where each cluster falls into the arm by chance: to second order, of a
/// binomial number G, 1 + (1 − share)/mean.
fn inflation(mean: f64, share: f64) -> f64 {
    1.0 + (1.0 - share) / mean
}

impl Design {
    fn of(input: &PlanInput) -> Option<Self> {
        let Variability { mean, deviation, intra_cluster, clusters } = input.variability;
        let share = input.candidate_share;
        let open = |number: f64| number > 0.0 && number < 1.0;
        let effect = (input.effect * mean).abs();
        let sensible = open(share)
            && open(input.power)
            && input.power >= 0.5
            && open(2.0 * input.alpha)
            && (0.0..=1.0).contains(&intra_cluster)
            && effect > 0.0
            && effect.is_finite()
            && deviation > 0.0
            && deviation.is_finite();
        if !sensible {
            return None;
        }
        let (variance, ratio) = (deviation * deviation, share / (1.0 - share));
        let independent = variance * (1.0 + ratio);
        let clusters = clusters as f64;
        let (dependent, floor, freedom) = match input.method {
            Method::Welch => (independent, 0.0, None),
            Method::ClusteredPerPost => (independent, 0.0, Some(clusters - 1.0)),
            Method::ClusteredSticky => {
                let (candidate, baseline) = (clusters * share, clusters * (1.0 - share));
                let more = (inflation(candidate, share), inflation(baseline, 1.0 - share));
                let floor = variance * intra_cluster * (more.0 / candidate + more.1 / baseline);
                let within = variance * (1.0 - intra_cluster) * (more.0 + more.1 * ratio);
                (within, floor, Some(candidate.min(baseline) - 1.0))
            }
        };
        Some(Self { effect, variance: dependent, floor, independent, clusters: freedom, ratio })
    }

    /// Satterthwaite's for equal deviations where there are no clusters.
    fn freedom(&self, candidate_outcomes: f64) -> f64 {
        self.clusters.unwrap_or_else(|| {
            let (treated, control) = (candidate_outcomes, candidate_outcomes / self.ratio);
            if treated.is_infinite() {
                return f64::INFINITY;
            }
            let sum = 1.0 / treated + 1.0 / control;
            let freedom = sum * sum
                / (treated.powi(-2) / (treated - 1.0).max(1.0) + control.powi(-2) / (control - 1.0).max(1.0));
            freedom.max(1.0)
        })
    }
}
