//! Exact duplicates, found as examples stream by.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// Remembers examples by 16 bytes of hash each (about 20 to 40 with the table's free places). Two different
/// examples among a million share them with a probability below 10⁻²⁶.
#[derive(Debug, Default)]
pub struct Duplicates {
    seen: HashSet<Key, BuildHasherDefault<Hashed>>,
}

impl Duplicates {
    /// None seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this is the first example with this prompt and completion, both [`normalised`]. Examples come
    /// highest engagement first, so the first is the one to keep.
    pub fn first(&mut self, prompt: &str, completion: &str) -> bool {
        self.is_first(Key::of(&normalised(prompt), &normalised(completion)))
    }

    /// Whether this is the first example with this key.
    pub(super) fn is_first(&mut self, key: Key) -> bool {
        self.seen.insert(key)
    }
}

/// What an example is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 16]);

impl Key {
    /// The key of a prompt and a completion, both [`normalised`].
    pub(super) fn of(prompt: &str, completion: &str) -> Self {
        let mut hash = Sha256::new();
        // With its length, so that no text can move from the prompt to the completion unseen.
        hash.update((prompt.len() as u64).to_be_bytes());
        hash.update(prompt);
        hash.update(completion);
        Self(prefix(&hash.finalize()))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Takes a part of a key as it is: it is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The first 16 bytes of a SHA-256.
pub(super) fn prefix(digest: &[u8]) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix.copy_from_slice(&digest[..16]);
    prefix
}

/// A text without what does not make it another one: compatibility forms are composed (NFKC), letters are
/// lower case, white space is one space between words, typographic quotes, dashes and ellipses are the plain
/// ones. Other punctuation counts: `Really?` is not `Really!`.
#[must_use]
pub fn normalised(text: &str) -> String {
    if is_plain(text) {
        return text.to_ascii_lowercase();
    }
    let mut normalised = String::with_capacity(text.len());
    let mut space = false;
    let mut push = |c: char| {
        if c.is_whitespace() {
            space = true;
            return;
        }
        if std::mem::take(&mut space) && !normalised.is_empty() {
            normalised.push(' ');
        }
        normalised.push(folded(c));
    };
    // Most texts of the West; for these characters what follows would do the same, and five times as slowly.
    if text.chars().all(|c| c.is_ascii() || matches!(c, '–' | '—' | '‘' | '’' | '“' | '”')) {
        text.chars().for_each(|c| push(c.to_ascii_lowercase()));
    } else {
        // Lower case may come apart again (`İ`), so it is composed afterwards.
        text.nfkc().flat_map(char::to_lowercase).nfkc().for_each(push);
    }
    normalised
}

/// Whether nothing is to be done but to make letters lower case.
fn is_plain(text: &str) -> bool {
    let mut before = b' ';
    text.bytes().all(|byte| {
        let spaces = byte == b' ' && before == b' ';
        before = byte;
        matches!(byte, b' '..=b'~') && byte != b'`' && !spaces
    }) && before != b' '
}

fn folded(c: char) -> char {
    match c {
        '‘' | '’' | '‚' | '‛' | '′' | '`' | '´' => '\'',
        '“' | '”' | '„' | '‟' | '«' | '»' | '″' => '"',
        '‐'..='―' | '−' => '-',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_kept_and_the_later_are_known() {
        let mut duplicates = Duplicates::new();
        assert!(duplicates.first("About cats", "“It’s”  a cat…"));
        assert!(!duplicates.first(" about\nCATS", "\"it's\" a cat..."));
        assert!(duplicates.first("About cats", "It's a cat?"));
        assert!(duplicates.first("About", "cats It's a cat?"));
        assert!(duplicates.first("About catsIt's a cat?", ""));
    }

    #[test]
    fn normalising_folds_what_looks_the_same() {
        assert_eq!(normalised(" A\u{a0}“B” — ﬁn \u{2026}"), "a \"b\" - fin ...");
        assert_ne!(normalised("Really?"), normalised("Really!"));
    }

    proptest! {
        #[test]
        fn a_second_pass_over_what_was_kept_removes_nothing(texts in prop::collection::vec(".{0,3}", 0..40)) {
            let keep = |texts: &[String]| {
                let mut duplicates = Duplicates::new();
                texts.iter().filter(|text| duplicates.first(text, text)).cloned().collect::<Vec<_>>()
            };
            let once = keep(&texts);
            prop_assert_eq!(&keep(&once), &once);
            // Each is kept where it stands first.
            for text in &once {
                let first = texts.iter().find(|other| normalised(other) == normalised(text));
                prop_assert_eq!(first, Some(text));
            }
        }

        #[test]
        fn a_plain_text_is_normalised_like_any_other(text in "( ?[A-Za-z0-9`'.-]{0,3}){0,6}") {
            let slowly: Vec<String> =
                text.to_lowercase().replace('`', "'").split_whitespace().map(str::to_owned).collect();
            prop_assert_eq!(normalised(&text), slowly.join(" "));
        }

        #[test]
        fn normalising_twice_is_normalising_once(text in "\\PC{0,40}") {
            let once = normalised(&text);
            prop_assert_eq!(normalised(&once), once);
        }
    }
}
