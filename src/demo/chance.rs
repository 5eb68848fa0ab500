//! Draws from the distributions that the simulation needs.

use rand::{Rng, RngExt};

/// A draw from the standard normal distribution (Box and Muller).
pub(super) fn normal(random: &mut impl Rng) -> f64 {
    // The logarithm needs a number above 0.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

/// One of the items; `None` where there are none.
pub(super) fn pick<'a, T: ?Sized>(random: &mut impl Rng, items: &[&'a T]) -> Option<&'a T> {
    if items.is_empty() { None } else { items.get(random.random_range(0..items.len())).copied() }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn normal_draws_have_mean_0_and_variance_1() {
        let mut random = StdRng::seed_from_u64(1);
        let draws: Vec<f64> = (0..20_000).map(|_| normal(&mut random)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Five standard errors.
        assert!(mean.abs() < 0.036 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
