//! What trainings and evaluations have cost, by month and pipeline.

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;

/// The trainings and evaluations of one pipeline in one calendar month (UTC), in one currency.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MonthlyCost {
    /// The month's first day.
    pub month: NaiveDate,
    /// The pipeline.
    #[schema(example = "hook")]
    pub pipeline: String,
    /// The currency; absent for models without a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    pub currency: Option<String>,
    /// Trainings that were begun at the provider.
    pub trainings: i64,
    /// Tokens that were billed.
    pub trained_tokens: i64,
    /// What they cost, where the provider has told the billed tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// What the others are expected to cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_cost: Option<f64>,
    /// Questions to models and judges in evaluations.
    pub evaluation_calls: i64,
    /// Tokens that models and judges read.
    pub prompt_tokens: i64,
    /// Tokens that they wrote.
    pub completion_tokens: i64,
    /// What that cost, as far as the tokens are known; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_cost: Option<f64>,
}

/// What totals are ordered by: the month, the pipeline, and the currency; `~`, behind all others, where there is none.
pub type MonthlyCostKey = (NaiveDate, String, String);

impl MonthlyCost {
    /// Its place in the order.
    #[must_use]
    pub fn key(&self) -> MonthlyCostKey {
        (self.month, self.pipeline.clone(), self.currency.clone().unwrap_or_else(|| "~".into()))
    }
}

/// Up to `limit` totals after the one with the key `after`, newest month first. An absent condition matches everything.
pub async fn monthly_costs(
    db: impl PgExecutor<'_>,
    pipeline: Option<&str>,
    month: Option<NaiveDate>,
    after: Option<&MonthlyCostKey>,
    limit: i64,
) -> sqlx::Result<Vec<MonthlyCost>> {
    sqlx::query_as!(
        MonthlyCost,
        r#"WITH entries AS (
               SELECT t.created_at, r.pipeline, t.currency, 1 AS trainings, t.trained_tokens, t.cost,
                      CASE WHEN t.cost IS NULL THEN t.expected_cost END AS expected_cost,
                      0::bigint AS calls, 0::bigint AS prompt_tokens, 0::bigint AS completion_tokens,
                      NULL::numeric AS evaluation_cost
                 FROM trainings t JOIN runs r ON r.id = t.run_id WHERE t.creates > 0
               UNION ALL
               SELECT u.created_at, r.pipeline, u.currency, 0, NULL, NULL, NULL, u.calls, u.prompt_tokens,
                      u.completion_tokens, u.cost
                 FROM evaluation_usage u JOIN runs r ON r.id = u.run_id
               UNION ALL
               SELECT j.day::timestamp AT TIME ZONE 'UTC', j.pipeline, j.currency, 0, NULL, NULL, NULL, j.calls,
                      j.prompt_tokens, j.completion_tokens, j.cost
                 FROM outcome_judge_usage j),
           totals AS (
               SELECT date_trunc('month', e.created_at AT TIME ZONE 'UTC')::date AS month, e.pipeline, e.currency,
                      sum(e.trainings)::bigint AS trainings,
                      coalesce(sum(e.trained_tokens), 0)::bigint AS trained_tokens,
                      sum(e.cost)::double precision AS cost,
                      sum(e.expected_cost)::double precision AS expected_cost,
                      sum(e.calls)::bigint AS evaluation_calls, sum(e.prompt_tokens)::bigint AS prompt_tokens,
                      sum(e.completion_tokens)::bigint AS completion_tokens,
                      sum(e.evaluation_cost)::double precision AS evaluation_cost
                 FROM entries e
                WHERE ($1::text IS NULL OR e.pipeline = $1)
                GROUP BY 1, 2, 3)
           SELECT month AS "month!", pipeline AS "pipeline!", currency, trainings AS "trainings!",
                  trained_tokens AS "trained_tokens!", cost, expected_cost,
                  evaluation_calls AS "evaluation_calls!", prompt_tokens AS "prompt_tokens!",
                  completion_tokens AS "completion_tokens!", evaluation_cost
             FROM totals
            WHERE ($2::date IS NULL OR month = $2)
              AND ($3::date IS NULL OR month < $3
                   OR month = $3 AND (pipeline, coalesce(currency, '~') COLLATE "C") > ($4::text, $5::text))
            ORDER BY month DESC, pipeline, coalesce(currency, '~') COLLATE "C" LIMIT $6"#,
        pipeline,
        month,
        after.map(|(month, _, _)| *month),
        after.map(|(_, pipeline, _)| pipeline.as_str()),
        after.map(|(_, _, currency)| currency.as_str()),
        limit,
    )
    .fetch_all(db)
    .await
}
