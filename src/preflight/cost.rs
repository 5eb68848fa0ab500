//! What trainings have cost, by month and pipeline.

use chrono::NaiveDate;
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;

/// The trainings of one pipeline in one calendar month (UTC), in one currency.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MonthlyCost {
    /// The month's first day.
    pub month: NaiveDate,
    /// The pipeline.
    #[schema(example = "hook")]
    pub pipeline: String,
    /// The currency; absent for trainings whose model had no price.
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
}

/// Totals, newest month first. An absent condition matches everything.
pub async fn monthly_costs(
    db: impl PgExecutor<'_>,
    pipeline: Option<&str>,
    month: Option<NaiveDate>,
) -> sqlx::Result<Vec<MonthlyCost>> {
    sqlx::query_as!(
        MonthlyCost,
        r#"SELECT date_trunc('month', t.created_at AT TIME ZONE 'UTC')::date AS "month!", r.pipeline, t.currency,
                  count(*) AS "trainings!", coalesce(sum(t.trained_tokens), 0)::bigint AS "trained_tokens!",
                  sum(t.cost)::double precision AS cost,
                  sum(t.expected_cost) FILTER (WHERE t.cost IS NULL)::double precision AS expected_cost
             FROM trainings t JOIN runs r ON r.id = t.run_id
            WHERE t.creates > 0 AND ($1::text IS NULL OR r.pipeline = $1)
              AND ($2::date IS NULL OR date_trunc('month', t.created_at AT TIME ZONE 'UTC')::date = $2)
            GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3"#,
        pipeline,
        month,
    )
    .fetch_all(db)
    .await
}
