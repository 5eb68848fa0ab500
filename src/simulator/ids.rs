//! Identifiers in the style of the real service, and numbers derived from them.

use sha2::{Digest, Sha256};

use crate::clock::Clock;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `prefix` followed by `N` random letters and digits.
pub(super) fn random<const N: usize>(prefix: &str, clock: &Clock) -> String {
    prefix.chars().chain(letters(&clock.bytes::<N>())).collect()
}

/// `prefix` followed by 24 letters and digits that depend on `parts` alone, so that things which are derived
/// anew at each request keep their name.
pub(super) fn derived(prefix: &str, parts: &[&str]) -> String {
    prefix.chars().chain(letters(&digest(parts)).take(24)).collect()
}

/// A number in `0.0..=1.0` that depends on `parts` alone.
pub(super) fn fraction(parts: &[&str]) -> f64 {
    let [first, second, third, fourth, ..] = digest(parts);
    f64::from(u32::from_be_bytes([first, second, third, fourth])) / f64::from(u32::MAX)
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}

fn letters(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 62)]))
}
