//! The distributions behind the tests, guarded so that no argument can make them panic.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};
use statrs::function::erf::{erfc, erfc_inv};

/// From here on series in 1/ν are exact to twelve digits and more, while the incomplete beta function begins to
/// lose them.
const MANY: f64 = 1_000.0;

/// P(T > t) of Student's t.
pub(super) fn t_greater(t: f64, degrees_of_freedom: f64) -> Option<f64> {
    if t.is_nan() || degrees_of_freedom.is_nan() || degrees_of_freedom <= 0.0 {
        return None;
    }
    if degrees_of_freedom >= MANY {
        // An infinite number of them differs from so many in no digit.
        return Some(normal_greater(normalised(t, degrees_of_freedom.min(1e18))));
    }
    let student = StudentsT::new(0.0, 1.0, degrees_of_freedom).ok()?;
    Some(student.sf(t).clamp(0.0, 1.0))
}

/// The z whose normal tail is that of `t`. Source: Hill, CACM algorithm 395 (1970).
fn normalised(t: f64, degrees_of_freedom: f64) -> f64 {
    let a = degrees_of_freedom - 0.5;
    let b = 48.0 * a * a;
    let y_sq = a * (t * t / degrees_of_freedom).ln_1p();
    if y_sq.is_infinite() {
        return t;
    }
    let series = (((-0.4 * y_sq - 3.3) * y_sq - 24.0) * y_sq - 85.5) / (0.8 * y_sq * y_sq + 100.0 + b);
    let y = y_sq.sqrt();
    (y + y * (series + y_sq + 3.0) / b).copysign(t)
}

/// The t that leaves `(1 - level) / 2` on either side.
pub(super) fn t_critical(level: f64, degrees_of_freedom: f64) -> Option<f64> {
    // Ill-posed at the ends, and below one degree of freedom nothing here asks for it.
    if !(level > 0.0 && level < 1.0 && degrees_of_freedom >= 1.0) {
        return None;
    }
    let tail = (1.0 - level) / 2.0;
    let critical = if degrees_of_freedom >= MANY {
        expanded(normal_upper(tail), degrees_of_freedom)
    } else {
        -StudentsT::new(0.0, 1.0, degrees_of_freedom).ok()?.inverse_cdf(tail)
    };
    critical.is_finite().then_some(critical)
}

/// The t whose tail is that of the normal `z`. Source: Cornish and Fisher's expansion (Abramowitz and Stegun
/// 26.7.5).
fn expanded(z: f64, degrees_of_freedom: f64) -> f64 {
    let z_sq = z * z;
    let first = (z_sq + 1.0) / 4.0;
    let second = ((5.0 * z_sq + 16.0) * z_sq + 3.0) / 96.0;
    let third = (((3.0 * z_sq + 19.0) * z_sq + 17.0) * z_sq - 15.0) / 384.0;
    let step = degrees_of_freedom.recip();
    z * (1.0 + step * (first + step * (second + step * third)))
}

/// P(X > x) of χ².
pub(super) fn chi_squared_greater(x: f64, degrees_of_freedom: u32) -> Option<f64> {
    if x.is_nan() || degrees_of_freedom == 0 {
        return None;
    }
    let chi_squared = ChiSquared::new(f64::from(degrees_of_freedom)).ok()?;
    Some(chi_squared.sf(x.max(0.0)).clamp(0.0, 1.0))
}

/// P(Z > z) of the normal distribution.
pub(super) fn normal_greater(z: f64) -> f64 {
    0.5 * erfc(z * FRAC_1_SQRT_2)
}

/// The z with P(Z > z) = `tail`, for a tail in 0..1.
pub(super) fn normal_upper(tail: f64) -> f64 {
    erfc_inv(2.0 * tail) / FRAC_1_SQRT_2
}

/// The density of the normal distribution.
pub(super) fn normal_density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (2.0 * PI).sqrt()
}

/// ln(exp(x²/2) · Φ(x)), without overflow at either end.
pub(super) fn ln_scaled_normal(x: f64) -> f64 {
    if x > -8.0 {
        return x * x / 2.0 + normal_greater(-x).ln();
    }
    // Mills' ratio as Laplace's continued fraction: exp(x²/2) Φ(-t) √(2π) = 1/(t + 1/(t + 2/(t + 3/(t + …)))).
    let t = -x;
    let mills = (1..=40).rev().fold(t, |tail, k| t + f64::from(k) / tail).recip();
    mills.ln() - (2.0 * PI).sqrt().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.t`: the quantile of 0.975 and P(T > 2.5).
    #[test]
    fn students_t_agrees_with_scipy_from_one_to_very_many_degrees_of_freedom() {
        for (freedom, critical, tail) in [
            (1.0, 12.706_204_736_174_694, 0.121_118_941_590_843_41),
            (2.7, 3.392_148_383_173_750_7, 0.048_539_707_221_467_34),
            (9.0, 2.262_157_162_798_205, 0.016_930_913_841_492_867),
            (49.0, 2.009_575_237_129_239_2, 0.007_907_894_423_590_04),
            (199.0, 1.971_956_544_251_753_3, 0.006_613_629_983_253_852),
            (400.0, 1.965_912_343_229_462_7, 0.006_409_433_381_715_792),
            (999.0, 1.962_341_461_133_449_3, 0.006_289_363_792_254_608),
            (1_000.0, 1.962_339_080_826_408_3, 0.006_289_283_900_545_403_6),
            (123_456.0, 1.959_983_200_245_186_7, 0.006_210_308_686_017_823),
            (1e9, 1.959_963_986_912_325, 0.006_209_665_405_201_246),
        ] {
            let found = (t_critical(0.95, freedom).unwrap(), t_greater(2.5, freedom).unwrap());
            assert!((found.0 / critical - 1.0).abs() < 1e-10, "{freedom}: {} is not {critical}", found.0);
            assert!((found.1 / tail - 1.0).abs() < 1e-10, "{freedom}: {} is not {tail}", found.1);
            assert!((t_greater(-2.5, freedom).unwrap() + found.1 - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn students_t_has_an_answer_at_its_ends() {
        for freedom in [0.5, 2.0, 999.0, 1_000.0, 1e12, f64::MAX, f64::INFINITY] {
            for (t, tail) in [(0.0, 0.5), (f64::INFINITY, 0.0), (f64::NEG_INFINITY, 1.0), (1e200, 0.0)] {
                let found = t_greater(t, freedom).unwrap();
                assert!((found - tail).abs() < 1e-9, "{t} {freedom}: {found}");
            }
        }
        assert_eq!(t_greater(f64::NAN, 5.0), None);
        assert_eq!(t_greater(1.0, 0.0), None);
        assert_eq!(t_critical(1.0, 5.0), None);
        assert_eq!(t_critical(f64::NAN, 5.0), None);
    }

    #[test]
    fn the_scaled_normal_is_continuous_where_its_form_changes() {
        let (left, right) = (ln_scaled_normal(-8.0 - 1e-9), ln_scaled_normal(-8.0 + 1e-9));
        assert!((left - right).abs() < 1e-8, "{left} {right}");
        // SciPy: log_ndtr(-40) + 800, log_ndtr(-3) + 4.5.
        assert!((ln_scaled_normal(-40.0) - -4.608_442_013_755).abs() < 1e-9);
        assert!((ln_scaled_normal(-3.0) - -2.107_726_221_504).abs() < 1e-9);
    }
}
