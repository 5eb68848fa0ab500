//! Which version serves a unit: a pure function of the traffic revision and the unit.
//!
//! With `salt` the revision's salt, the *fraction* is the first 8 bytes of SHA-256 of `salt:unit` as a
//! big-endian number, the *bucket* is floor(fraction · 10,000 / 2^64), and the unit goes to the first share
//! whose cumulative weight is above the bucket. Shares are accumulated in the revision's order, the candidate
//! first, so that raising its weight moves no unit that was already in it.

use sha2::{Digest, Sha256};

/// The bucket of a unit, in `0..10_000`.
#[must_use]
pub fn bucket(salt: &str, unit: &str) -> i32 {
    let mut hash = Sha256::new();
    hash.update(salt.as_bytes());
    hash.update(b":");
    hash.update(unit.as_bytes());
    let digest = hash.finalize();
    let fraction = digest.iter().take(8).fold(0_u64, |fraction, byte| fraction << 8 | u64::from(*byte));
    // The product stays below 10,000 · 2^64, so the shifted value is below 10,000.
    i32::try_from((u128::from(fraction) * 10_000) >> 64).unwrap_or(9_999)
}

/// The index of the share that serves a bucket; `weights` in the order of accumulation, summing to 10,000.
#[must_use]
pub fn share_of(bucket: i32, weights: impl IntoIterator<Item = i32>) -> Option<usize> {
    let mut reached = 0;
    weights.into_iter().position(|weight| {
        reached += weight;
        bucket < reached
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_those_of_the_specification() {
        // Computed apart, with Python: int.from_bytes(sha256(b"salt:unit").digest()[:8], "big") * 10000 >> 64.
        for (salt, unit, expected) in VECTORS {
            assert_eq!(bucket(salt, unit), expected, "{salt}:{unit}");
        }
    }

    const VECTORS: [(&str, &str, i32); 5] = [
        ("hook", "persona-1", 4653),
        ("hook", "persona-2", 3550),
        ("0199f0e2-0000-7000-8000-000000000000", "post-42", 7416),
        ("body", "", 6533),
        ("hook", "Zoë", 9714),
    ];

    #[test]
    fn buckets_are_spread_evenly() {
        let below = (0..20_000).filter(|unit| bucket("salt", &unit.to_string()) < 1_000).count();
        // Binomial(20000, 0.1): five standard deviations are 212.
        assert!(below.abs_diff(2_000) < 212, "{below} of 20000 in a tenth");
    }

    proptest! {
        #[test]
        fn every_bucket_has_a_share_and_a_wider_first_share_loses_nobody(
            unit in ".{0,20}", first in 0..10_000_i32, more in 0..10_000_i32,
        ) {
            let bucket = bucket("salt", &unit);
            prop_assert!((0..10_000).contains(&bucket));
            let wider = (first + more).min(10_000);
            let before = share_of(bucket, [first, 10_000 - first]).unwrap();
            let after = share_of(bucket, [wider, 10_000 - wider]).unwrap();
            prop_assert!(before == 1 || after == 0);
        }
    }
}
