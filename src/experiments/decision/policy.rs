//! The optional policy on top of the test: point estimates that a promotion must reach *in addition to*
//! being significant.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Minimum improvements, relative to the baseline: 0.05 is 5 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The engagement lift that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_engagement_lift: Option<f64>,
    /// The gain in cost per engagement that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_cost_gain: Option<f64>,
}

/// How much higher the candidate is, relative to the baseline: 0.06 to 0.08 is a lift of one third.
/// `None` where the baseline is not positive or a number is not finite.
#[must_use]
pub fn lift(baseline: f64, candidate: f64) -> Option<f64> {
    let lift = (candidate - baseline) / baseline;
    (baseline > 0.0 && lift.is_finite()).then_some(lift)
}

/// How much is saved, relative to the baseline: a cost of 0.002 that becomes 0.0015 is a gain of a quarter.
/// `None` where the baseline is not positive or a number is not finite.
#[must_use]
pub fn cost_gain(baseline: f64, candidate: f64) -> Option<f64> {
    lift(baseline, candidate).map(|rise| -rise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(actual: Option<f64>, expected: f64) {
        let actual = actual.expect("a figure");
        assert!((actual - expected).abs() < 1e-12, "{actual} is not {expected}");
    }

    #[test]
    fn engagement_from_six_to_eight_percent_is_a_lift_of_a_third() {
        assert_near(lift(0.06, 0.08), 1.0 / 3.0);
    }

    #[test]
    fn a_cost_from_2_to_1_5_mills_is_a_gain_of_a_quarter() {
        assert_near(cost_gain(0.002, 0.0015), 0.25);
    }

    #[test]
    fn nothing_is_gained_over_a_baseline_of_nothing() {
        assert_eq!(lift(0.0, 0.08), None);
        assert_eq!(lift(f64::NAN, 0.08), None);
        assert_eq!(cost_gain(0.002, f64::INFINITY), None);
    }
}
