//! Where the judge of a pipeline's live outcomes stands, and what it has cost.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// What a judge was asked.
#[derive(Debug, Default)]
pub struct JudgeCalls {
    /// Replies, of use or not.
    pub calls: i64,
    /// Those of them whose tokens the provider did not tell.
    pub untold_calls: i64,
    /// Tokens read.
    pub prompt_tokens: i64,
    /// Tokens written.
    pub completion_tokens: i64,
}

/// Counts what a judge was asked today. `price` is per million tokens read and written, with its currency.
pub async fn count_judge_calls(
    conn: &mut PgConnection,
    pipeline: &str,
    model: &str,
    calls: &JudgeCalls,
    price: Option<(f64, f64, &str)>,
) -> sqlx::Result<()> {
    if calls.calls == 0 {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO outcome_judge_usage AS known (pipeline, day, model_id, calls, untold_calls, prompt_tokens,
                completion_tokens, input_per_million, output_per_million, currency)
         VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2, $3, $4, $5, $6, $7::text::numeric, $8::text::numeric, $9)
         ON CONFLICT (pipeline, day, model_id) DO UPDATE
            SET calls = known.calls + excluded.calls, untold_calls = known.untold_calls + excluded.untold_calls,
                prompt_tokens = known.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = known.completion_tokens + excluded.completion_tokens",
        pipeline,
        model,
        calls.calls,
        calls.untold_calls,
        calls.prompt_tokens,
        calls.completion_tokens,
        price.map(|(input, _, _)| input.to_string()),
        price.map(|(_, output, _)| output.to_string()),
        price.map(|(_, _, currency)| currency),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps why the judge of a pipeline does not go on.
pub async fn judge_stands_still(conn: &mut PgConnection, pipeline: &str, why: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO outcome_judges (pipeline, standstill) VALUES ($1, $2)
         ON CONFLICT (pipeline) DO UPDATE SET standstill = excluded.standstill",
        pipeline,
        why,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where the judge of a pipeline stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JudgeState {
    /// Outcomes that have its score.
    pub scored: i64,
    /// Texts that wait for a score.
    pub waiting: i64,
    /// When the oldest of them came; texts are deleted after two days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<DateTime<Utc>>,
    /// Scores that were not used, because the caller told a quality meanwhile.
    pub overtaken: i64,
    /// Outcomes that stay without a score because every attempt failed.
    pub failed: i64,
    /// Outcomes whose texts were deleted before they were scored.
    pub expired: i64,
    /// Questions of today's budget (UTC) that are used, those under way among them.
    pub asked_today: i64,
    /// Why it does not go on; absent where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standstill: Option<String>,
    /// What went wrong last, whenever that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What it was asked, and what that cost, by model and currency.
    pub usage: Vec<JudgeUsage>,
}

/// What a judge was asked, and what that cost.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct JudgeUsage {
    /// The model, as the provider calls it.
    pub model_id: String,
    /// Calls that it answered.
    pub calls: i64,
    /// Tokens that it read.
    pub prompt_tokens: i64,
    /// Tokens that it wrote.
    pub completion_tokens: i64,
    /// What that cost as far as it is known; absent where the price table has no price for its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    pub currency: Option<String>,
}

/// Where the judge of a pipeline stands; all zero before it began.
pub async fn judge_state(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<JudgeState> {
    let usage = sqlx::query_as!(
        JudgeUsage,
        r#"SELECT model_id, sum(calls)::bigint AS "calls!", sum(prompt_tokens)::bigint AS "prompt_tokens!",
                  sum(completion_tokens)::bigint AS "completion_tokens!", sum(cost)::double precision AS cost, currency
             FROM outcome_judge_usage WHERE pipeline = $1 GROUP BY model_id, currency ORDER BY model_id, currency"#,
        pipeline,
    )
    .fetch_all(&mut *conn)
    .await?;
    let row = sqlx::query!(
        r#"SELECT coalesce(j.scored, 0) AS "scored!", coalesce(j.overtaken, 0) AS "overtaken!",
                  coalesce(j.given_up, 0) AS "given_up!", coalesce(j.expired, 0) AS "expired!",
                  coalesce(CASE WHEN j.day = (now() AT TIME ZONE 'UTC')::date THEN j.asked END, 0) AS "asked!",
                  j.standstill AS "standstill?", j.last_error AS "last_error?", s.waiting AS "waiting!", s.since
             FROM (SELECT count(*) AS waiting, min(created_at) AS since FROM outcome_samples WHERE pipeline = $1) s
             LEFT JOIN outcome_judges j ON j.pipeline = $1"#,
        pipeline,
    )
    .fetch_one(conn)
    .await?;
    Ok(JudgeState {
        scored: row.scored,
        waiting: row.waiting,
        waiting_since: row.since,
        overtaken: row.overtaken,
        failed: row.given_up,
        expired: row.expired,
        asked_today: row.asked,
        // Where nothing waits any more, nothing stands still.
        standstill: row.standstill.filter(|_| row.waiting > 0),
        last_error: row.last_error,
        usage,
    })
}
