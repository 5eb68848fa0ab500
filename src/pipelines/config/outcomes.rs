//! How outcomes are gathered beside those that applications send.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// How outcomes are gathered beside those that applications send.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutcomeSettings {
    /// Read them from the application's own database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullSettings>,
    /// Have a model score a sample of those that come without a quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<OutcomeJudgeSettings>,
}

/// A model that scores live outcomes, from 0 to 1. It is asked about outcomes that are evidence in an experiment, come with
/// their `text` and without a `quality`, and are in the sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeJudgeSettings {
    /// The model that judges, at the pipeline's provider.
    pub model: String,
    /// What makes an answer good, in words for the judge.
    #[serde(default = "instructions")]
    pub instructions: String,
    /// The share of the outcomes that it scores, above 0 and up to 1. By the ids: neither the version nor the arm has a say.
    #[serde(default = "sample")]
    #[schema(maximum = 1)]
    pub sample: f64,
    /// How many questions it answers in a day (UTC), of use or not. It stops as well where the month's budget
    /// (`budget.per_month`) is used up, if the price table has a price for its answers.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub budget_per_day: u32,
}

fn instructions() -> String {
    "It answers the request, reads well, and would make people stop and react.".into()
}

fn sample() -> f64 {
    0.1
}

/// A query that yields outcomes. Rows that were read before and have changed since are corrected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullSettings {
    /// The environment variable that holds the URL of the Postgres database; absent for the service's own. The variable must
    /// be set where the API and where the workers run; its value is never stored or shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SHOP_DATABASE_URL")]
    pub url_env: Option<String>,
    /// One `SELECT` whose columns are called as the fields of an outcome: `id`, `unit`, `served_at`, one of `version` and
    /// `model_id`, and of the others those there are. It uses `:since`, which is the time up to which was read less
    /// `revisit_seconds`, and `:until`, which is now less `maturity_seconds`.
    #[schema(
        example = "SELECT id, model AS model_id, id AS unit, author_id AS persona, published_at AS served_at, \
                        engagement_rate FROM posts WHERE updated_at >= :since AND published_at < :until"
    )]
    pub query: String,
    /// Time between two pulls.
    #[serde(default = "interval")]
    pub interval_seconds: f64,
    /// How old an outcome is before it counts.
    #[serde(default)]
    pub maturity_seconds: f64,
    /// How far behind what was read every pull begins, so that rows that came late or changed are read again.
    #[serde(default = "revisit")]
    pub revisit_seconds: f64,
    /// How long the query may take.
    #[serde(default = "timeout")]
    #[schema(minimum = 1, maximum = 3_600)]
    pub timeout_seconds: u32,
}

fn interval() -> f64 {
    300.0
}

fn revisit() -> f64 {
    7.0 * 86_400.0
}

fn timeout() -> u32 {
    60
}

impl OutcomeSettings {
    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        if let Some(judge) = &self.judge {
            checks.model("judge/model", &judge.model);
            let instructions = !judge.instructions.trim().is_empty() && judge.instructions.len() <= 10_000;
            checks.that("judge/instructions", instructions, "must have 1 to 10000 bytes");
            let sample = judge.sample > 0.0 && judge.sample <= 1.0;
            checks.that("judge/sample", sample, "must be a share above 0 and up to 1");
            let budget = (1..=1_000_000).contains(&judge.budget_per_day);
            checks.that("judge/budget_per_day", budget, "must be between 1 and 1000000");
        }
        let Some(pull) = &self.pull else { return };
        checks.interval("pull/interval_seconds", pull.interval_seconds);
        for (field, seconds) in
            [("pull/maturity_seconds", pull.maturity_seconds), ("pull/revisit_seconds", pull.revisit_seconds)]
        {
            let good = seconds == 0.0 || (seconds > 0.0 && seconds <= 366.0 * 86_400.0);
            checks.that(field, good, "must be a number of seconds between 0 and a year");
        }
        let timeout = (1..=3_600).contains(&pull.timeout_seconds);
        checks.that("pull/timeout_seconds", timeout, "must be between 1 and 3600");
    }
}
