//! The effect of the candidate on one metric, with its uncertainty.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clustered::Clustered;
use super::distribution::{t_critical, t_greater};
use super::strata::Strata;
use super::welch::Welch;
use super::{Arm, Cell, Direction, Method, PerArm};

/// A standard error below this share of the means is rounding: the data has no variance.
const ROUNDING: f64 = 1e-12;

/// What an estimate rests on, in one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ArmCounts)]
pub struct Counts {
    /// Outcomes with the metric.
    pub outcomes: u64,
    /// Distinct clusters among them; as many as outcomes where these are independent.
    pub clusters: u64,
}

/// A range between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Interval {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
}

impl Interval {
    /// The most favourable end of a difference's interval, turned so that positive is better.
    #[must_use]
    pub fn best(self, direction: Direction) -> f64 {
        match direction {
            Direction::HigherIsBetter => self.upper,
            Direction::LowerIsBetter => -self.lower,
        }
    }

    /// `centre` ± `half_width`, if both bounds are numbers.
    pub(super) fn around(centre: f64, half_width: f64) -> Option<Self> {
        let interval = Self { lower: centre - half_width, upper: centre + half_width };
        (interval.lower.is_finite() && interval.upper.is_finite()).then_some(interval)
    }
}

/// The contrast δ = Σ w (rT − m·rC) and what is known about it. Every number is finite.
///
/// Where the data has no variance (each outcome, or each cluster, has the same value), the standard error is
/// 0 and there is no statistic, interval or p-value: nothing tells a real difference from a coincidence, and
/// data without any noise more likely comes from a fault than from people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// The test that was used.
    pub method: Method,
    /// m, by which the baseline is multiplied: 1 for a plain difference.
    pub multiplier: f64,
    /// Σ w rC, the baseline's mean over the epochs compared.
    pub mean_baseline: f64,
    /// Σ w rT, the candidate's mean over the epochs compared.
    pub mean_candidate: f64,
    /// δ = mean of the candidate − m · mean of the baseline.
    pub difference: f64,
    /// The standard error of δ.
    pub standard_error: f64,
    /// Degrees of freedom of Student's t.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrees_of_freedom: Option<f64>,
    /// t = δ / SE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistic: Option<f64>,
    /// One-sided p-value against δ ≤ 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_greater: Option<f64>,
    /// One-sided p-value against δ ≥ 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_less: Option<f64>,
    /// Two-sided p-value against δ = 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_two_sided: Option<f64>,
    /// The confidence level of the intervals, such as 0.95.
    pub level: f64,
    /// The two-sided interval of δ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Candidate / baseline − 1, whatever m is; absent where the baseline's mean is not positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Its standard error, which carries the baseline's variance (delta method).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_standard_error: Option<f64>,
    /// Its two-sided interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_interval: Option<Interval>,
    /// Outcomes and clusters in the epochs compared.
    pub counts: PerArm<Counts>,
    /// Epochs compared.
    pub epochs: u64,
    /// Epochs left out, because an arm had fewer than two independent observations in them.
    pub epochs_left_out: u64,
}

impl Estimate {
    /// The one-sided p-value against "not better".
    #[must_use]
    pub fn p_better(&self, direction: Direction) -> Option<f64> {
        match direction {
            Direction::HigherIsBetter => self.p_greater,
            Direction::LowerIsBetter => self.p_less,
        }
    }

    /// The most favourable end of δ's interval, turned so that positive is better.
    #[must_use]
    pub fn best_case(&self, direction: Direction) -> Option<f64> {
        self.interval.map(|interval| interval.best(direction))
    }
}

/// Why there is no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NoEstimate {
    /// No epoch has two independent observations in each arm.
    #[error("no traffic revision has outcomes of at least two clusters in each arm")]
    NothingToCompare,
    /// The sums are not those of any outcomes.
    #[error("the sums hold a number that is not finite or that no outcomes can have")]
    Unusable,
    /// The numbers are too large or too small to compute with.
    #[error("the sums are too large or too small to compute with")]
    OutOfRange,
}

/// Estimates the contrast with multiplier `multiplier` for the baseline, with intervals at the two-sided
/// `level`.
///
/// Stratifying by epoch is what makes a changed split harmless (Optimizely's "weighted improvement"): arms
/// are compared within an epoch only, and epochs are weighted by their share of ΣN over both arms.
pub fn estimate(cells: &[Cell], method: Method, multiplier: f64, level: f64) -> Result<Estimate, NoEstimate> {
    let strata = Strata::of(cells, method)?;
    if strata.epochs.is_empty() {
        return Err(NoEstimate::NothingToCompare);
    }
    let counts = strata.counts(method);
    let spread = Spread::of(&strata, counts, method)?;
    let (baseline, candidate) = (strata.mean(Arm::Baseline), strata.mean(Arm::Candidate));
    let difference = candidate - multiplier * baseline;
    let standard_error =
        significant(spread.variance(multiplier).sqrt(), candidate.abs() + (multiplier * baseline).abs());
    let figures = [multiplier, level, baseline, candidate, difference, standard_error];
    if !figures.iter().all(|figure| figure.is_finite()) {
        return Err(NoEstimate::OutOfRange);
    }

    let freedom = (standard_error > 0.0)
        .then(|| spread.degrees_of_freedom(multiplier))
        .filter(|freedom| freedom.is_finite());
    let critical = freedom.and_then(|freedom| t_critical(level, freedom));
    let statistic = freedom.map(|_| difference / standard_error).filter(|t| t.is_finite());
    let p_greater = statistic.zip(freedom).and_then(|(t, freedom)| t_greater(t, freedom));
    let p_less = statistic.zip(freedom).and_then(|(t, freedom)| t_greater(-t, freedom));
    let relative = relative(&spread, baseline, candidate);
    Ok(Estimate {
        method,
        multiplier,
        mean_baseline: baseline,
        mean_candidate: candidate,
        difference,
        standard_error,
        degrees_of_freedom: freedom,
        statistic,
        p_greater,
        p_less,
        p_two_sided: p_greater.zip(p_less).map(|(greater, less)| (2.0 * greater.min(less)).min(1.0)),
        level,
        interval: critical.and_then(|critical| Interval::around(difference, critical * standard_error)),
        relative: relative.map(|(effect, _)| effect),
        relative_standard_error: relative.map(|(_, error)| error),
        relative_interval: relative
            .zip(critical)
            .and_then(|((effect, error), critical)| Interval::around(effect, critical * error)),
        counts,
        epochs: strata.epochs.len() as u64,
        epochs_left_out: strata.left_out,
    })
}

/// The effect relative to the baseline and its standard error: the contrast with m = rT / rC is zero by
/// construction, and its variance over rC² is that of the ratio (delta method).
fn relative(spread: &Spread, baseline: f64, candidate: f64) -> Option<(f64, f64)> {
    let ratio = (baseline > 0.0).then(|| candidate / baseline)?;
    let error = significant(spread.variance(ratio).sqrt() / baseline, 2.0 * ratio.abs());
    (ratio.is_finite() && error.is_finite()).then_some((ratio - 1.0, error))
}

/// A standard error, or 0 where it is the rounding of numbers as large as `scale`.
fn significant(standard_error: f64, scale: f64) -> f64 {
    if standard_error <= ROUNDING * scale { 0.0 } else { standard_error }
}

/// The variance of contrasts, by the method that fits the data.
enum Spread {
    Welch(Welch),
    Clustered(Clustered),
}

impl Spread {
    fn of(strata: &Strata<'_>, counts: PerArm<Counts>, method: Method) -> Result<Self, NoEstimate> {
        Ok(match method {
            Method::Welch => Self::Welch(Welch::of(strata)?),
            _ => Self::Clustered(Clustered::of(strata, counts, method)),
        })
    }

    fn variance(&self, multiplier: f64) -> f64 {
        match self {
            Self::Welch(welch) => welch.variance(multiplier),
            Self::Clustered(clustered) => clustered.variance(multiplier),
        }
    }

    fn degrees_of_freedom(&self, multiplier: f64) -> f64 {
        match self {
            Self::Welch(welch) => welch.degrees_of_freedom(multiplier),
            Self::Clustered(clustered) => clustered.degrees_of_freedom(),
        }
    }
}
