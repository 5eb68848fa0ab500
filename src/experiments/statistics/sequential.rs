//! Inference that stays valid however often one looks.
//!
//! Source: asymptotic confidence sequences, Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv
//! 2103.06476, in the form `GrowthBook` and Eppo use; the e-value is the one-sided mixture (a half-normal prior)
//! of the same family.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Interval;
use super::distribution::ln_scaled_normal;

/// A two-sided confidence sequence at one look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sequence {
    /// The bounds of the difference, which hold at all looks together.
    pub interval: Interval,
    /// The p-value that belongs to it.
    pub p_value: f64,
}

/// The interval δ ± SE · √((1+w)/w · (2 ln(1/α) + ln(1+w))) and p = min(1, √(1+w) · exp(−z²w / (2(1+w)))).
///
/// It is narrowest where the standard error equals `planned_standard_error`. `None` where a number is not
/// finite, a standard error is not positive, or `alpha` is not in 0..1.
#[must_use]
pub fn confidence_sequence(
    difference: f64,
    standard_error: f64,
    planned_standard_error: f64,
    alpha: f64,
) -> Option<Sequence> {
    let w = mixture(standard_error, planned_standard_error, alpha)?;
    let z = difference / standard_error;
    let width = ((1.0 + w) / w * (2.0 * -alpha.ln() + w.ln_1p())).sqrt();
    let ln_p = 0.5 * w.ln_1p() - z * z * w / (2.0 * (1.0 + w));
    Some(Sequence {
        interval: Interval::around(difference, standard_error * width)?,
        p_value: Some(ln_p.exp().min(1.0)).filter(|p| p.is_finite())?,
    })
}

/// The evidence that the candidate is worse than tolerated, an e-value: E ≥ 1/α happens with probability at
/// most α over all looks together where it is not.
///
/// E = 2/√(1+w) · exp(z²w/(2(1+w))) · Φ(z√(w/(1+w))) with z = `excess_harm` / SE and 2α in place of α in w.
/// `excess_harm` is the harm beyond what is tolerated, positive where the candidate is worse: h − t.
/// Capped at the largest number there is. `None` where a number is not finite, a standard error is not
/// positive, or `alpha` is not in 0..0.5. Outcomes that do not vary have [`harm_e_value_without_variance`].
#[must_use]
pub fn harm_e_value(
    excess_harm: f64,
    standard_error: f64,
    planned_standard_error: f64,
    alpha: f64,
) -> Option<f64> {
    let w =
        mixture(standard_error, planned_standard_error, 2.0 * alpha).filter(|_| excess_harm.is_finite())?;
    let z = excess_harm / standard_error;
    let ln_e = 2.0_f64.ln() - 0.5 * w.ln_1p() + ln_scaled_normal(z * (w / (1.0 + w)).sqrt());
    Some(ln_e.exp().min(f64::MAX)).filter(|e| !e.is_nan())
}

/// The limit of [`harm_e_value`] as the standard error falls to 0, whatever was planned: the largest number there is for any
/// harm beyond what is tolerated, 0 for none. `None` where the excess is not finite.
#[must_use]
pub fn harm_e_value_without_variance(excess_harm: f64) -> Option<f64> {
    excess_harm.is_finite().then_some(if excess_harm > 0.0 { f64::MAX } else { 0.0 })
}

/// w = a · (SE*/SE)² with a = −2 ln α + ln(1 − 2 ln α), which tunes the mixture to the planned precision.
fn mixture(standard_error: f64, planned_standard_error: f64, alpha: f64) -> Option<f64> {
    let positive = |number: f64| number.is_finite() && number > 0.0;
    if !(positive(standard_error) && positive(planned_standard_error) && alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    let a = -2.0 * alpha.ln() + (-2.0 * alpha.ln()).ln_1p();
    Some(a * (planned_standard_error / standard_error).powi(2)).filter(|w| positive(*w))
}
