//! Which cleaning steps a pipeline wants.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How examples are cleaned. Each step can be switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each step is a switch of its own")]
pub struct CleaningSettings {
    /// HTML becomes running text: tags, scripts and styles go, paragraphs stay, entities become characters.
    pub html: bool,
    /// Characters are composed: Unicode normalization form C.
    pub unicode: bool,
    /// Control and invisible characters go, except line breaks and tabs.
    pub control_characters: bool,
    /// One space between words, at most one blank line, nothing at either end.
    pub white_space: bool,
    /// What happens to e-mail addresses, phone numbers, card numbers, IBANs, IP addresses and secrets.
    pub personal_data: PersonalData,
    /// Examples whose completion has fewer characters are left out.
    #[schema(minimum = 1)]
    pub minimum_characters: u32,
    /// Of examples with the same prompt and completion, the one with the highest engagement is kept.
    pub exact_duplicates: bool,
    /// What happens to examples that are nearly the same as one with a higher engagement (Jaccard similarity 0.8
    /// or more).
    pub near_duplicates: NearDuplicatePolicy,
}

impl Default for CleaningSettings {
    fn default() -> Self {
        Self {
            html: true,
            unicode: true,
            control_characters: true,
            white_space: true,
            personal_data: PersonalData::Redact,
            minimum_characters: 1,
            exact_duplicates: true,
            near_duplicates: NearDuplicatePolicy::Report,
        }
    }
}

/// What happens to personal data and secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PersonalData {
    /// They are not looked for.
    Off,
    /// Each is replaced by its kind, such as `[EMAIL]`.
    #[default]
    Redact,
    /// The example is left out.
    Drop,
}

/// What happens to near duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NearDuplicatePolicy {
    /// They are not looked for.
    Off,
    /// They are counted, and stay on one side of the split.
    #[default]
    Report,
    /// They are left out.
    Drop,
}
