//! Cleans the texts of examples: HTML, Unicode, control characters, white space, personal data and secrets.

mod characters;
mod html;
mod numbers;
mod personal_data;
#[cfg(test)]
mod real_posts;
mod secrets;
mod settings;
mod tags;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use regex::Regex;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};
use utoipa::ToSchema;

pub use personal_data::Findings;
pub use settings::{CleaningSettings, NearDuplicatePolicy, PersonalData};

/// Rounds of cleaning before a text counts as made to confuse. One round cleans nearly every text, two those
/// that were escaped twice.
const ROUNDS: usize = 16;

/// A step of cleaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = CleaningStep)]
pub enum Step {
    /// HTML became text.
    Html,
    /// Unicode was composed.
    Unicode,
    /// Control characters were removed.
    ControlCharacters,
    /// White space was collapsed.
    WhiteSpace,
    /// Personal data or secrets were found.
    PersonalData,
}

impl Step {
    /// In the order in which they are taken.
    pub const ALL: [Self; 5] =
        [Self::ControlCharacters, Self::Html, Self::Unicode, Self::WhiteSpace, Self::PersonalData];
}

/// A set of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps(u8);

impl Steps {
    /// Whether the set has a step.
    #[must_use]
    pub fn contains(self, step: Step) -> bool {
        self.0 & (1 << step as u8) != 0
    }

    /// The steps of the set.
    pub fn iter(self) -> impl Iterator<Item = Step> {
        Step::ALL.into_iter().filter(move |&step| self.contains(step))
    }

    fn insert(&mut self, step: Step) {
        self.0 |= 1 << step as u8;
    }
}

impl std::ops::BitOr for Steps {
    type Output = Self;

    /// The steps of either: those that changed the prompt or the completion.
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A text after cleaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned<'a> {
    /// The text; borrowed where nothing changed.
    pub text: Cow<'a, str>,
    /// The steps that changed or found something.
    pub changed: Steps,
    /// Personal data and secrets that were found.
    pub findings: Findings,
    /// Whether the example is to be left out for its personal data.
    pub drop: bool,
}

/// Cleans texts as configured. Cleaning a clean text changes nothing.
#[derive(Debug, Clone)]
pub struct Cleaner {
    settings: CleaningSettings,
}

impl Cleaner {
    /// A cleaner with these settings.
    #[must_use]
    pub fn new(settings: &CleaningSettings) -> Self {
        Self { settings: settings.clone() }
    }

    /// Cleans a text. The steps are taken again until none changes it any more: decoding `&amp;lt;p&amp;gt;`
    /// brings forth an entity, then a tag.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cleaned<'a> {
        let mut cleaned = Cleaned {
            text: Cow::Borrowed(text),
            changed: Steps::default(),
            findings: Findings::default(),
            drop: false,
        };
        if characters::is_plain(text) {
            return cleaned;
        }
        for round in 1.. {
            if characters::is_plain(&cleaned.text) || !self.round(&mut cleaned) {
                break;
            }
            if round % ROUNDS == 0 && self.settings.html {
                // Nobody writes markup nested that deep: without these there is no more of it.
                cleaned.text = cleaned.text.replace(['<', '&'], "").into();
            }
        }
        if self.settings.personal_data == PersonalData::Drop {
            self.find_personal_data(&mut cleaned);
        }
        cleaned
    }

    /// Looks for personal data alone, in a text that was put together of clean ones and of numbers: `+` and what follows it may only
    /// together be a phone number.
    #[must_use]
    pub fn personal_data<'a>(&self, text: &'a str) -> Cleaned<'a> {
        let mut cleaned = Cleaned {
            text: Cow::Borrowed(text),
            changed: Steps::default(),
            findings: Findings::default(),
            drop: false,
        };
        self.find_personal_data(&mut cleaned);
        cleaned
    }

    /// Replaces personal data, or says that the example is to be dropped for it; whether there was any.
    fn find_personal_data(&self, cleaned: &mut Cleaned<'_>) -> bool {
        if self.settings.personal_data == PersonalData::Off || characters::is_plain(&cleaned.text) {
            return false;
        }
        let (text, findings) = personal_data::redacted(&cleaned.text);
        let text = owned(text);
        if findings.total() == 0 {
            return false;
        }
        cleaned.findings += findings;
        cleaned.changed.insert(Step::PersonalData);
        match text {
            Some(text) if self.settings.personal_data == PersonalData::Redact => {
                cleaned.text = Cow::Owned(text);
            }
            _ => cleaned.drop = true,
        }
        true
    }

    /// Whether a completion, already cleaned, is too short to learn from.
    #[must_use]
    pub fn too_short(&self, completion: &str) -> bool {
        let minimum = self.settings.minimum_characters.max(1) as usize;
        let completion = completion.trim();
        completion.len() < minimum || completion.chars().take(minimum).count() < minimum
    }

    /// Takes each step once; whether one changed the text.
    fn round(&self, cleaned: &mut Cleaned<'_>) -> bool {
        let settings = &self.settings;
        let mut changed = false;
        let mut take = |wanted: bool, step: Step, clean: &dyn Fn(&str) -> Option<String>| {
            if wanted && let Some(text) = clean(&cleaned.text) {
                cleaned.text = Cow::Owned(text);
                cleaned.changed.insert(step);
                changed = true;
            }
        };
        take(settings.control_characters, Step::ControlCharacters, &|text| {
            owned(characters::without_controls(text))
        });
        take(settings.html, Step::Html, &|text| owned(html::text(text)));
        take(settings.unicode, Step::Unicode, &|text| {
            (!text.is_ascii() && !is_nfc(text)).then(|| text.nfc().collect())
        });
        take(settings.white_space, Step::WhiteSpace, &|text| owned(characters::collapsed(text)));
        if settings.personal_data == PersonalData::Redact {
            changed |= self.find_personal_data(cleaned);
        }
        changed
    }
}

fn owned(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Owned(text) => Some(text),
        Cow::Borrowed(_) => None,
    }
}

/// Compiles one of this module's constant patterns.
#[expect(clippy::expect_used, reason = "the patterns are constants, and the tests use every one")]
fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern that compiles")
}
