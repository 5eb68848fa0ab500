//! What a pipeline trains on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clean::CleaningSettings;
use super::source::SourceSettings;
use super::split::SplitSettings;

/// Ten years: nobody looks back further.
const LONGEST_SECONDS: f64 = 3650.0 * 86_400.0;

/// Which posts become examples, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetSettings {
    /// Where the posts come from.
    pub source: SourceSettings,
    /// The built-in way to make an example of a post, unless `prompts` are given.
    pub template: Template,
    /// Templates of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Prompts>,
    /// Makes pairs of a better and a worse answer to the same prompt, for the training method `preference`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairSettings>,
    /// Posts at or above this engagement are examples of what to write.
    pub engagement_threshold: f64,
    /// Replaces `engagement_threshold` by one that follows recent engagement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_threshold: Option<DynamicThreshold>,
    /// Posts older than this many seconds are left out.
    pub lookback_seconds: f64,
    /// Posts younger than this many seconds are left out: their engagement is still coming in.
    pub maturity_seconds: f64,
    /// Posts seen fewer times are left out: their rate says little. 0 asks for no column of impressions.
    pub minimum_impressions: u32,
    /// How texts are cleaned, and which examples are left out for what is in them.
    pub cleaning: CleaningSettings,
    /// Which examples are set aside to validate with.
    pub split: SplitSettings,
    /// The most examples, those with the highest engagement.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10)]
    pub maximum_examples: Option<u32>,
    /// The most examples of one persona, those with the highest engagement.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub maximum_per_persona: Option<u32>,
    /// With fewer examples, counted after cleaning and before the split, the run is skipped. Providers refuse fewer than 10.
    #[schema(minimum = 10)]
    pub minimum_examples: u32,
}

impl Default for DatasetSettings {
    fn default() -> Self {
        Self {
            source: SourceSettings::default(),
            template: Template::Hook,
            prompts: None,
            pairs: None,
            engagement_threshold: 0.06,
            dynamic_threshold: None,
            lookback_seconds: 7.0 * 86_400.0,
            maturity_seconds: 0.0,
            minimum_impressions: 0,
            cleaning: CleaningSettings::default(),
            split: SplitSettings::default(),
            maximum_examples: None,
            maximum_per_persona: None,
            minimum_examples: 100,
        }
    }
}

/// The built-in ways to make an example of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// User: the original input (`Create engaging content` where it is empty); assistant: the hook.
    Hook,
    /// User: the hook, a blank line, `Write a detailed post:`; assistant: the body.
    Body,
}

/// Jinja templates over the columns of a row, by the columns' own names. A column without a value is undefined:
/// it prints nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The instruction that stands before every conversation; none where absent or blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "You write headlines for {{ persona_id }}.")]
    pub system: Option<String>,
    /// What is asked. A row for which it is blank makes no example.
    #[schema(example = "{{ original_input | default('Surprise me', true) }}")]
    pub user: String,
    /// What the model should answer. A row for which it is blank makes no example.
    #[schema(example = "{{ hook }}")]
    pub assistant: String,
}

/// Which posts of the same prompt make a pair: one at or above the engagement threshold, and one with less engagement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PairSettings {
    /// How much less engagement the worse post must have, in the unit of the engagement.
    pub minimum_gap: f64,
    /// The most pairs of one prompt, those with the widest gap.
    #[serde(default = "maximum_per_prompt")]
    #[schema(minimum = 1, maximum = 100)]
    pub maximum_per_prompt: u32,
}

fn maximum_per_prompt() -> u32 {
    1
}

/// The threshold that gives a wanted number of examples: the engagement of the post in that place, counted from
/// the highest, among those that pass the other filters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DynamicThreshold {
    /// How many posts should pass; more do where several share the last place.
    #[schema(minimum = 10)]
    pub target_examples: u32,
    /// The threshold never falls below.
    #[serde(default)]
    pub floor: f64,
}

impl DatasetSettings {
    /// What is wrong, as far as it can be told without the source: fields as JSON pointers below the settings,
    /// and sentences.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut check = |field: &str, good: bool, sentence: &str| {
            if !good {
                faults.push((field.to_owned(), sentence.to_owned()));
            }
        };
        let engagement = |value: f64| value.is_finite() && value >= 0.0;
        check(
            "/engagement_threshold",
            engagement(self.engagement_threshold),
            "must be a number of at least 0",
        );
        if let Some(dynamic) = &self.dynamic_threshold {
            check("/dynamic_threshold/floor", engagement(dynamic.floor), "must be a number of at least 0");
            check("/dynamic_threshold/target_examples", dynamic.target_examples >= 10, "must be at least 10");
        }
        check(
            "/lookback_seconds",
            self.lookback_seconds > 0.0 && self.lookback_seconds <= LONGEST_SECONDS,
            "must be a number of seconds above 0 and at most ten years",
        );
        check(
            "/maturity_seconds",
            self.maturity_seconds >= 0.0
                && (self.maturity_seconds == 0.0 || self.maturity_seconds < self.lookback_seconds),
            "must be a number of seconds from 0 to less than the look-back",
        );
        check(
            "/minimum_examples",
            self.minimum_examples >= 10,
            "must be at least 10: providers refuse fewer examples",
        );
        check(
            "/maximum_examples",
            self.maximum_examples.is_none_or(|most| most >= self.minimum_examples.max(10)),
            "must be at least 10 and at least minimum_examples, or every run would be skipped",
        );
        check(
            "/split/validation_share",
            self.split.is_valid(),
            "must be between 0, for no validation set, and 0.5",
        );
        let shortest = self.cleaning.minimum_characters;
        check(
            "/cleaning/minimum_characters",
            (1..=10_000).contains(&shortest),
            "must be between 1 and 10000",
        );
        if let Some(pairs) = &self.pairs {
            let gap = pairs.minimum_gap.is_finite() && pairs.minimum_gap > 0.0;
            check("/pairs/minimum_gap", gap, "must be a number above 0");
            let most = (1..=100).contains(&pairs.maximum_per_prompt);
            check("/pairs/maximum_per_prompt", most, "must be between 1 and 100");
        }
        check("/maximum_per_persona", self.maximum_per_persona != Some(0), "must be at least 1");
        faults.extend(
            self.source.faults().into_iter().map(|(field, fault)| (format!("/source{field}"), fault)),
        );
        faults.extend(super::prompts::faults(self));
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(settings: serde_json::Value) -> Vec<String> {
        let settings: DatasetSettings = serde_json::from_value(settings).unwrap();
        settings.faults().into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn settings_stored_before_there_were_filters_are_read_and_valid() {
        let old = json!({
            "template": "body", "engagement_threshold": 0.06, "lookback_seconds": 604_800.0, "minimum_examples": 100,
        });
        let settings: DatasetSettings = serde_json::from_value(old).unwrap();
        assert_eq!(settings, DatasetSettings { template: Template::Body, ..DatasetSettings::default() });
        assert!(settings.faults().is_empty(), "{:?}", settings.faults());
    }

    #[test]
    fn each_filter_has_its_bounds() {
        let bad = json!({
            "engagement_threshold": -1.0, "lookback_seconds": 10.0, "maturity_seconds": 10.0,
            "minimum_examples": 20, "maximum_examples": 19, "maximum_per_persona": 0,
            "dynamic_threshold": {"target_examples": 9, "floor": -0.1}, "split": {"validation_share": 0.6},
            "cleaning": {"minimum_characters": 0},
        });
        let expected = [
            "/engagement_threshold",
            "/dynamic_threshold/floor",
            "/dynamic_threshold/target_examples",
            "/maturity_seconds",
            "/maximum_examples",
            "/split/validation_share",
            "/cleaning/minimum_characters",
            "/maximum_per_persona",
        ];
        assert_eq!(fields(bad), expected);
        assert!(fields(json!({"maturity_seconds": 3600, "maximum_examples": 100})).is_empty());
    }
}
