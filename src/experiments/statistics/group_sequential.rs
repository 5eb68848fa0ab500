//! Looks before the horizon that share one level.
//!
//! Sources: the spending function α(t) = 2(1 − Φ(z_{1−α/2}/√t)) for one side, of O'Brien and Fleming's type
//! (Lan and `DeMets`, Biometrika 1983); spending by the calendar, with the correlations of looks from their
//! information (Lan and `DeMets`, Biometrika 1989); the recursion of Armitage, `McPherson` and Rowe (JRSS A 1969).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::distribution::{normal_density, normal_greater, normal_upper};

/// Where the normal distribution ends for every purpose here, in standard deviations.
const END: f64 = 8.0;
/// Points of the grid on which a density is integrated.
const POINTS: usize = 600;
/// Information must grow by this from look to look; less is taken as so much, which only raises the bound.
const GROWTH: f64 = 1.01;

/// A look at the primary metric that spends a part of the level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// How much of the test's time had passed, 0 to 1, by which the level is spent.
    pub fraction: f64,
    /// 1/SE² of the contrast at the look, which tells how closely two looks resemble each other.
    pub information: f64,
}

impl Look {
    /// Whether both figures are such that a bound can be computed.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.fraction > 0.0
            && self.fraction.is_finite()
            && self.information > 0.0
            && self.information.is_finite()
    }
}

/// What z must exceed at a look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bound {
    /// The bound of z.
    pub z: f64,
    /// P(Z > z): the one-sided level that a p-value must be below at this look.
    pub level: f64,
}

/// What may be spent of the one-sided `alpha` until the share `fraction` of the test.
#[must_use]
pub fn spent(alpha: f64, fraction: f64) -> f64 {
    if fraction >= 1.0 {
        return alpha;
    }
    if fraction > 0.0 { 2.0 * normal_greater(normal_upper(alpha / 2.0) / fraction.sqrt()) } else { 0.0 }
}

/// The upper bound of each look, in their order; each depends only on the looks before it. `None` where
/// `alpha` is not in 0..0.5 or a look is not usable. A look that comes no later than its predecessor has
/// nothing to spend: its bound is far out.
#[must_use]
pub fn bounds(alpha: f64, looks: &[Look]) -> Option<Vec<Bound>> {
    if !(alpha > 0.0 && alpha < 0.5 && looks.iter().all(Look::is_usable)) {
        return None;
    }
    let mut bounds = Vec::with_capacity(looks.len());
    let mut density: Option<Density> = None;
    let mut spent_before = 0.0;
    for look in looks {
        let total = spent(alpha, look.fraction).max(spent_before);
        let allowance = total - spent_before;
        spent_before = total;
        let (z, next) = match density {
            None => {
                let z = if allowance > 0.0 { normal_upper(allowance).min(END) } else { END };
                (z, Density::first(look.information, z))
            }
            Some(density) => {
                let information = look.information.max(density.information * GROWTH);
                let z = density.bound(information, allowance);
                let next = density.next(information, z);
                (z, next)
            }
        };
        density = Some(next);
        bounds.push(Bound { z, level: normal_greater(z) });
    }
    Some(bounds)
}

/// The density of the score Z√I over those experiments that no look has ended, on a grid.
struct Density {
    information: f64,
    step: f64,
    scores: Vec<f64>,
    /// The density times the weight of Simpson's rule.
    weighted: Vec<f64>,
}

impl Density {
    fn first(information: f64, z: f64) -> Self {
        let root = information.sqrt();
        Self::on_grid(information, z, |score| normal_density(score / root) / root)
    }

    fn next(&self, information: f64, z: f64) -> Self {
        let root = (information - self.information).sqrt();
        Self::on_grid(information, z, |score| {
            self.integral(|before| normal_density((score - before) / root) / root)
        })
    }

    /// `density` between the far end and the bound `z`.
    fn on_grid(information: f64, z: f64, density: impl Fn(f64) -> f64) -> Self {
        let root = information.sqrt();
        let (from, to) = (-END * root, z * root);
        let step = (to - from) / POINTS as f64;
        let scores: Vec<f64> = (0..=POINTS).map(|index| from + step * index as f64).collect();
        let weighted = scores
            .iter()
            .enumerate()
            .map(|(index, &score)| {
                let weight = match index {
                    0 | POINTS => 1.0,
                    _ if index % 2 == 1 => 4.0,
                    _ => 2.0,
                };
                weight * density(score)
            })
            .collect();
        Self { information, step, scores, weighted }
    }

    fn integral(&self, of: impl Fn(f64) -> f64) -> f64 {
        let terms = self.scores.iter().zip(&self.weighted).map(|(&score, weighted)| weighted * of(score));
        terms.sum::<f64>() * self.step / 3.0
    }

    /// The z that is exceeded for the first time, at a look with `information`, with probability `allowance`.
    fn bound(&self, information: f64, allowance: f64) -> f64 {
        let (root, gap) = (information.sqrt(), (information - self.information).sqrt());
        let exceeds = |z: f64| self.integral(|before| normal_greater((z * root - before) / gap));
        let (mut low, mut high) = (-END, END);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if exceeds(middle) > allowance { low = middle } else { high = middle }
        }
        high
    }
}
