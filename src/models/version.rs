//! Semantic versions of a pipeline's models: `1.4.0` in `hook@1.4.0`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// MAJOR.MINOR.PATCH; see [`Version::next`] for what makes each grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Version {
    /// Grows when the base model or the prompt changes; 0 only for the model the pipeline served before tuneloop.
    pub major: i32,
    /// Grows when it is trained again.
    pub minor: i32,
    /// Grows with the same training done again, and with another checkpoint of the same job.
    pub patch: i32,
}

/// Not a version.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a version: give MAJOR.MINOR.PATCH, such as 1.4.0")]
pub struct VersionError(String);

impl Version {
    /// The configured serving model, which nobody here trained.
    pub const BASE: Self = Self { major: 0, minor: 0, patch: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |part: &str| match part.parse::<i32>() {
            Ok(number) if number.to_string() == part && number >= 0 => Some(number),
            _ => None,
        };
        let mut parts = text.split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(VersionError(text.to_owned())),
        }
    }
}

/// As text. Parsed where the text is visited, so that a refusal names the place it stands at.
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version such as \"1.4.0\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let version: Version = "1.40.2".parse().unwrap();
        assert_eq!(version, Version { major: 1, minor: 40, patch: 2 });
        assert_eq!(version.to_string(), "1.40.2");
        for bad in
            ["", "1", "1.2", "1.2.3.4", "1.2.x", "v1.2.3", "-1.0.0", "01.0.0", "+1.0.0", "1.2.99999999999"]
        {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
