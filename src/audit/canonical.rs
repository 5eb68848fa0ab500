//! The bytes of an event that are hashed, in a form that every language can make: a JSON object of texts, with sorted
//! names, without spaces. `docs/audit.md` describes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An event as the chain holds it. What the database keeps as JSON (`before`, `after`) stands here as the text that
/// the database prints of it: numbers and names keep the one form they have there, whoever reads them.
///
/// The fields stand in the order of their names, which is the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalEvent {
    /// What was done.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// What changed, after the change.
    pub after: Option<String>,
    /// When, in RFC 3339 with microseconds: `2026-11-26T17:00:00.000000Z`.
    pub at: String,
    /// What changed, before the change.
    pub before: Option<String>,
    /// The event's number.
    pub id: i64,
    /// The pipeline it concerns.
    pub pipeline: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The request it was done by.
    pub request_id: Option<String>,
    /// What it was done to.
    pub subject_id: String,
    /// The kind of what it was done to.
    pub subject_kind: String,
    /// The trace it was part of.
    pub trace_id: Option<String>,
}

impl CanonicalEvent {
    /// The text that is hashed.
    #[must_use]
    #[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "texts and a number are always JSON")]
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and a number are JSON")
    }
}

/// A link of the chain. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands before the first event: zeros.
    pub const START: Self = Self([0; 32]);

    /// The hash of `event` that follows this one.
    #[must_use]
    pub fn then(self, event: &CanonicalEvent) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(event.text()).finalize().into())
    }

    /// The bytes, as they are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash of 64 hexadecimal digits")]
pub struct HashError;

impl TryFrom<Vec<u8>> for Hash {
    type Error = HashError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, HashError> {
        bytes.try_into().map(Self).map_err(|_| HashError)
    }
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        hex::decode(text).map_err(|_| HashError)?.try_into()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> CanonicalEvent {
        CanonicalEvent {
            action: "traffic.promotion".to_owned(),
            actor: "key:zoë".to_owned(),
            after: Some(r#"{"live": "1.0.0", "share": 1.50}"#.to_owned()),
            at: "2026-11-26T17:00:00.000001Z".to_owned(),
            before: None,
            id: 7,
            pipeline: Some("hook".to_owned()),
            reason: Some("a \"better\"\\model\n\t\u{8}\u{c}\u{1}\u{7f}\u{2028}/ 🦀".to_owned()),
            request_id: None,
            subject_id: "hook".to_owned(),
            subject_kind: "pipeline".to_owned(),
            trace_id: None,
        }
    }

    /// Computed with Python: `sha256(bytes(32) + json.dumps(event, sort_keys=True, separators=(",", ":"),
    /// ensure_ascii=False).encode())`.
    #[test]
    fn the_hash_is_that_of_another_implementation() {
        let first = Hash::START.then(&event());
        assert_eq!(first.to_string(), "8af12998bdf7b8c56ba52a2f46d5d1ae3e9569dfb24f93cc4ecfda046d92ac8a");
        assert_eq!(
            first.then(&event()).to_string(),
            "8675f01c00af057c4c39bf785465a61b852d47ae56792e690181073a27bc931c"
        );
    }

    #[test]
    fn names_are_sorted() {
        let text = event().text();
        let sorted = serde_json::from_str::<std::collections::BTreeMap<String, serde_json::Value>>(&text);
        assert_eq!(serde_json::to_string(&sorted.unwrap()).unwrap(), text);
    }

    #[test]
    fn hashes_are_read_as_they_are_printed() {
        let hash = Hash::START.then(&event());
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(Hash::try_from(hash.as_bytes().to_vec()), Ok(hash));
        for bad in ["", "00", "zz"] {
            assert_eq!(bad.parse::<Hash>(), Err(HashError), "{bad}");
        }
    }
}
