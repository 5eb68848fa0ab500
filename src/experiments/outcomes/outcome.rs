//! One observation of a served version, and what of it is possible.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::models::Version;

/// How far an outcome's time may be ahead of the service's clock, or behind the beginning of its revision.
pub(super) const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
/// Costs (dollars) and latencies (milliseconds) above this are mistakes; their squares would not fit a sum.
const MOST: f64 = 1e12;
/// Below this a number is zero for every purpose, and its square would underflow.
const LEAST: f64 = 1e-100;
/// The longest prompt and the longest answer, in characters.
const LONGEST_TEXT: usize = 20_000;
/// The times that can be stored and compared.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;

/// One observation of a served version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The caller's id of this observation, unique in the pipeline; a repeat is counted, never doubled.
    #[schema(min_length = 1, max_length = 200)]
    pub id: String,
    /// The pipeline.
    pub pipeline: String,
    /// The version that served, such as `1.4.0`; or give `model_id`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub version: Option<Version>,
    /// The provider's model id that served; or give `version`.
    #[serde(default)]
    pub model_id: Option<String>,
    /// What was assigned: a post, a request, a user.
    pub unit: String,
    /// Whom the outcomes of several units belong to; the statistics treat them as dependent.
    #[serde(default)]
    pub persona: Option<String>,
    /// When it was served.
    #[serde(deserialize_with = "time")]
    pub served_at: DateTime<Utc>,
    /// The traffic revision that the assignment named; found by `served_at` where absent.
    #[serde(default)]
    pub revision: Option<i64>,
    /// Engagements per impression, 0 to 1.
    #[serde(default)]
    pub engagement_rate: Option<f64>,
    /// How many people engaged.
    #[serde(default)]
    pub engagements: Option<i64>,
    /// How many people saw it.
    #[serde(default)]
    pub impressions: Option<i64>,
    /// What serving it cost, in dollars.
    #[serde(default)]
    pub cost: Option<f64>,
    /// A score, 0 to 1.
    #[serde(default)]
    pub quality: Option<f64>,
    /// Milliseconds to the answer.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// Whether serving failed.
    #[serde(default)]
    pub failed: Option<bool>,
    /// What was asked and answered, for the pipeline's judge. Kept only where the outcome is in the judge's sample, and only
    /// until it is scored or for two days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<OutcomeText>,
}

/// What a version was asked and what it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeText {
    /// What was asked.
    #[schema(max_length = 20_000)]
    pub prompt: String,
    /// What was answered.
    #[schema(min_length = 1, max_length = 20_000)]
    pub answer: String,
}

impl Outcome {
    /// What is wrong with its values, in one sentence.
    pub(super) fn check(&self, now: DateTime<Utc>, retention: TimeDelta) -> Result<(), String> {
        text("id", &self.id)?;
        text("unit", &self.unit)?;
        self.persona.as_deref().map_or(Ok(()), |persona| text("persona", persona))?;
        if !YEARS.contains(&self.served_at.year()) {
            return Err(format!("served_at must be between the years {} and {}", YEARS.start(), YEARS.end()));
        }
        if self.served_at > now + CLOCK_SKEW {
            return Err("served_at is in the future; give the time at which it was served, in UTC".into());
        }
        if now.signed_duration_since(self.served_at) > retention {
            let days = retention.num_days();
            return Err(format!(
                "served_at is more than {days} days ago, which is how long outcomes are kept"
            ));
        }
        for (name, value, most) in [
            ("engagement_rate", self.engagement_rate, 1.0),
            ("quality", self.quality, 1.0),
            ("cost", self.cost, MOST),
            ("latency_ms", self.latency_ms, MOST),
        ] {
            if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
                return Err(format!("{name} must be between 0 and {most}"));
            }
        }
        for (name, value) in [("engagements", self.engagements), ("impressions", self.impressions)] {
            if value.is_some_and(|value| value < 0) {
                return Err(format!("{name} must be 0 or more"));
            }
        }
        self.text.as_ref().map_or(Ok(()), OutcomeText::check)
    }

    /// The measured values as they are stored.
    pub(super) fn values(&self) -> Values {
        Values {
            engagement_rate: self.engagement_rate.map(not_tiny),
            engagements: self.engagements,
            impressions: self.impressions,
            cost: self.cost.map(not_tiny),
            quality: self.quality.map(not_tiny),
            latency_ms: self.latency_ms.map(not_tiny),
            failed: self.failed,
        }
    }
}

impl OutcomeText {
    fn check(&self) -> Result<(), String> {
        if self.answer.is_empty() {
            return Err("text.answer is empty; leave text out where there is nothing to score".into());
        }
        for (name, text) in [("prompt", &self.prompt), ("answer", &self.answer)] {
            if text.chars().nth(LONGEST_TEXT).is_some() || text.contains('\0') {
                return Err(format!("text.{name} must have up to {LONGEST_TEXT} characters and no NUL"));
            }
        }
        Ok(())
    }
}

/// What was measured: the part of an outcome that may be corrected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Values {
    pub(super) engagement_rate: Option<f64>,
    pub(super) engagements: Option<i64>,
    pub(super) impressions: Option<i64>,
    pub(super) cost: Option<f64>,
    pub(super) quality: Option<f64>,
    pub(super) latency_ms: Option<f64>,
    pub(super) failed: Option<bool>,
}

impl Values {
    /// These values, and the earlier ones where there are none.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self {
            engagement_rate: self.engagement_rate.or(earlier.engagement_rate),
            engagements: self.engagements.or(earlier.engagements),
            impressions: self.impressions.or(earlier.impressions),
            cost: self.cost.or(earlier.cost),
            quality: self.quality.or(earlier.quality),
            latency_ms: self.latency_ms.or(earlier.latency_ms),
            failed: self.failed.or(earlier.failed),
        }
    }
}

/// chrono does not say what it takes.
fn time<'de, D: Deserializer<'de>>(text: D) -> Result<DateTime<Utc>, D::Error> {
    DateTime::deserialize(text)
        .map_err(|_| D::Error::custom("must be a time with its offset, such as 2026-11-26T12:00:00Z"))
}

fn text(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() || value.len() > 200 || value.contains('\0') {
        Err(format!("{name} must have 1 to 200 bytes and no NUL"))
    } else {
        Ok(())
    }
}

pub(super) fn not_tiny(value: f64) -> f64 {
    if value < LEAST { 0.0 } else { value }
}
