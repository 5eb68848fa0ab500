//! What a pipeline trains on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which posts become examples, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetSettings {
    /// How a post becomes an example.
    pub template: Template,
    /// Posts at or above this engagement are examples of what to write.
    pub engagement_threshold: f64,
    /// Posts older than this many seconds are left out.
    pub lookback_seconds: f64,
    /// With fewer examples the run is skipped. Providers refuse fewer than 10.
    #[schema(minimum = 10)]
    pub minimum_examples: u32,
}

impl Default for DatasetSettings {
    fn default() -> Self {
        Self {
            template: Template::Hook,
            engagement_threshold: 0.06,
            lookback_seconds: 7.0 * 86_400.0,
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
