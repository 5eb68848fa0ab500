//! Several metrics at one level.
//!
//! Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics
//! 1979.

/// Holm's adjusted p-values, in the order of `p_values`: what is below a level is significant at it, and the
/// chance that any of them is so by error is at most the level. A p-value that is missing counts as 1.
#[must_use]
pub fn adjusted(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let known = |p: Option<f64>| p.filter(|p| (0.0..=1.0).contains(p));
    let mut order: Vec<(usize, f64)> =
        p_values.iter().enumerate().filter_map(|(index, &p)| Some((index, known(p)?))).collect();
    order.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut adjusted = vec![None; p_values.len()];
    let mut largest = 0.0;
    for (rank, (index, p)) in order.into_iter().enumerate() {
        largest = f64::max(largest, p * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = Some(largest);
    }
    adjusted
}
