//! Near duplicates, found as examples stream by: `MinHash` signatures of word pairs, looked up by
//! locality-sensitive hashing.
//!
//! A text is the set of its pairs of neighbouring words (shingles of k = 2: in headlines of ten words longer
//! ones would let one changed word hide a copy). 128 hash functions give its signature; the share of equal
//! values in two signatures estimates their Jaccard similarity (Broder 1997). The first 40 values form 8
//! bands of 5 rows: texts that share a band are compared, which those at similarity s do with probability
//! 1 − (1 − s⁵)⁸, or 0.96 at 0.8 and 0.999 at 0.9. They are compared by two bits of each of the 128 values
//! (b-bit minwise hashing, Li and König 2010), with a standard error of 0.04 at 0.8 and 0.03 at 0.9.

use std::collections::HashMap;

use super::union_find::UnionFind;

const VALUES: usize = 128;
const ROWS: usize = 5;
const BANDS: usize = 8;

/// Of 128 values, how many agree in two bits at Jaccard 0.8: 128 · (0.8 + 0.2 / 4), rounded down.
const AGREEING: u32 = 108;

/// How many examples with the same band are compared, the newest first: enough for any true cluster, and a
/// bound where all examples have a long passage in common.
const COMPARED: usize = 16;

/// How many examples are remembered at most. Each takes 150 to 230 bytes (8 entries of 9 bytes in tables that
/// are half to nearly full, as many links of 4 bytes, and a sketch of 32 bytes), so all take less than 70 MB.
const REMEMBERED: usize = 400_000;

/// What an example is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// Unlike any.
    New,
    /// Nearly the same as the example with this number.
    Near(u32),
}

/// Which examples later ones are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// Those that are new: for leaving out near duplicates, so that each is like one that was kept.
    New,
    /// All: for keeping them and knowing the clusters.
    All,
}

/// Compares examples with those before them. The same texts in the same order give the same answers, on any
/// machine.
#[derive(Debug)]
pub struct NearDuplicates {
    remember: Remember,
    factors: Vec<(u64, u64)>,
    /// For each band, the place in `remembered` of the newest example with a key.
    bands: [HashMap<u32, u32>; BANDS],
    remembered: Vec<Remembered>,
    clusters: UnionFind,
    limit: usize,
    forgotten: u64,
}

#[derive(Debug)]
struct Remembered {
    number: u32,
    sketch: Sketch,
    /// For each band, the place of the example before this one with the same key.
    earlier: [u32; BANDS],
}

/// No place.
const NONE: u32 = u32::MAX;

/// The two lowest bits of each value of a signature.
type Sketch = [u64; VALUES * 2 / 64];

impl NearDuplicates {
    /// None seen yet. The seed chooses the hash functions.
    #[must_use]
    pub fn new(seed: u64, remember: Remember) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        };
        Self {
            remember,
            factors: (0..VALUES).map(|_| (next() | 1, next())).collect(),
            bands: std::array::from_fn(|_| HashMap::new()),
            remembered: Vec::new(),
            clusters: UnionFind::default(),
            limit: REMEMBERED,
            forgotten: 0,
        }
    }

    /// Compares the next example's text (what the model should learn to write) with those before it. Examples
    /// are numbered from 0 in the order of these calls. A text without words is new.
    pub fn insert(&mut self, text: &str) -> Nearness {
        let number = self.clusters.add();
        let Some(signature) = self.signature(text) else { return Nearness::New };
        let sketch = sketch(&signature);
        let keys: [u32; BANDS] = std::array::from_fn(|band| key(&signature[band * ROWS..][..ROWS]));
        let mut nearest: Option<u32> = None;
        for (band, key) in keys.iter().enumerate() {
            let mut place = self.bands[band].get(key).copied().unwrap_or(NONE);
            for _ in 0..COMPARED {
                let Some(other) = self.remembered.get(place as usize) else { break };
                if agreeing(&other.sketch, &sketch) >= AGREEING {
                    self.clusters.join(number, other.number);
                    nearest = Some(nearest.map_or(other.number, |nearest| nearest.min(other.number)));
                }
                place = other.earlier[band];
            }
        }
        if nearest.is_none() || self.remember == Remember::All {
            self.keep(number, keys, sketch);
        }
        nearest.map_or(Nearness::New, Nearness::Near)
    }

    /// The cluster of an example: the number of its first one.
    pub fn cluster(&mut self, example: u32) -> u32 {
        self.clusters.root(example)
    }

    /// How many examples came when no more could be remembered: later ones were not compared with them.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn keep(&mut self, number: u32, keys: [u32; BANDS], sketch: Sketch) {
        let place = match u32::try_from(self.remembered.len()) {
            Ok(place) if self.remembered.len() < self.limit => place,
            _ => {
                self.forgotten += 1;
                return;
            }
        };
        let earlier = std::array::from_fn(|band| self.bands[band].insert(keys[band], place).unwrap_or(NONE));
        self.remembered.push(Remembered { number, sketch, earlier });
    }

    fn signature(&self, text: &str) -> Option<[u32; VALUES]> {
        let words = words(text);
        let single = words.first().filter(|_| words.len() == 1);
        let pairs = words.windows(2).map(|pair| mixed(pair[0].rotate_left(29) ^ pair[1]));
        let mut signature = [u32::MAX; VALUES];
        for shingle in pairs.chain(single.copied()) {
            for (value, (factor, offset)) in signature.iter_mut().zip(&self.factors) {
                let hash = factor.wrapping_mul(shingle).wrapping_add(*offset) >> 32;
                // The upper half of 64 bits.
                *value = (*value).min(u32::try_from(hash).unwrap_or(u32::MAX));
            }
        }
        (!words.is_empty()).then_some(signature)
    }
}

/// The hashes of the words, in lower case and without punctuation. Where a script has no spaces between
/// words, each character is one.
fn words(text: &str) -> Vec<u64> {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut words = Vec::with_capacity(text.len() / 5 + 1);
    let mut word = START;
    for c in text.chars() {
        let alone = is_unspaced(c);
        // An apostrophe is part of a word, and may be any.
        if matches!(c, '\'' | '’') {
            continue;
        }
        if (alone || !c.is_alphanumeric()) && word != START {
            words.push(mixed(word));
            word = START;
        }
        if c.is_alphanumeric() {
            // FNV-1a over code points.
            for c in c.to_lowercase() {
                word = (word ^ u64::from(u32::from(c))).wrapping_mul(PRIME);
            }
        }
        if alone && word != START {
            words.push(mixed(word));
            word = START;
        }
    }
    if word != START {
        words.push(mixed(word));
    }
    words
}

/// Thai, Lao, Burmese, Khmer, Chinese and Japanese.
fn is_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x2e80..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff
    )
}

fn sketch(signature: &[u32; VALUES]) -> Sketch {
    let mut sketch = [0; VALUES * 2 / 64];
    for (place, value) in signature.iter().enumerate() {
        sketch[place / 32] |= u64::from(value & 3) << (place % 32 * 2);
    }
    sketch
}

/// How many values agree in both bits.
fn agreeing(a: &Sketch, b: &Sketch) -> u32 {
    let same = |(a, b): (&u64, &u64)| {
        let different = a ^ b;
        32 - ((different | different >> 1) & 0x5555_5555_5555_5555).count_ones()
    };
    a.iter().zip(b).map(same).sum()
}

fn key(rows: &[u32]) -> u32 {
    let key = rows.iter().fold(0, |key: u64, &row| mixed(key ^ u64::from(row)));
    u32::try_from(key >> 32).unwrap_or(u32::MAX)
}

/// The finalizer of `SplitMix64`: every bit of the input changes about half of the output's.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
