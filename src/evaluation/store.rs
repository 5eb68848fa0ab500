//! Evaluations in the database.

use serde::Serialize;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Evaluation, Judgement};
use crate::trainers::Completion;

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// The line of the dataset with the prompt, from 1.
    pub line: i64,
    /// The model that answered, as the provider calls it.
    pub model_id: String,
    /// What it said.
    pub answer: String,
    /// What it said instead, where it declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Why it ended, in the provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The judge's score, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Why, in the judge's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged_because: Option<String>,
}

impl Answer {
    /// The answer as the provider gave it.
    #[must_use]
    pub fn completion(&self) -> Completion {
        Completion {
            content: self.answer.clone(),
            refusal: self.refusal.clone(),
            finish_reason: self.finish_reason.clone(),
            prompt_tokens: None,
            completion_tokens: None,
        }
    }
}

/// The answers of a run's evaluation, by line and model.
pub async fn answers(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Vec<Answer>> {
    sqlx::query_as!(
        Answer,
        "SELECT line, model_id, answer, refusal, finish_reason, score, judged_because
           FROM evaluation_answers WHERE run_id = $1 ORDER BY line, model_id",
        run,
    )
    .fetch_all(db)
    .await
}

/// Text without the one character that Postgres cannot keep.
fn storable(text: &str) -> String {
    text.replace('\0', "")
}

/// Keeps what a model answered; the first answer stays.
pub async fn keep_answer(
    conn: &mut PgConnection,
    run: Uuid,
    line: i64,
    model: &str,
    said: &Completion,
) -> sqlx::Result<()> {
    let tokens = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    sqlx::query!(
        "INSERT INTO evaluation_answers
                (run_id, line, model_id, answer, refusal, finish_reason, prompt_tokens, completion_tokens)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        run,
        line,
        model,
        storable(&said.content),
        said.refusal.as_deref().map(storable),
        said.finish_reason,
        tokens(said.prompt_tokens),
        tokens(said.completion_tokens),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts a call that a model answered, whether or not the answer was of use. `price` is per million tokens read and
/// written, with its currency.
pub async fn count_call(
    conn: &mut PgConnection,
    run: Uuid,
    model: &str,
    said: &Completion,
    price: Option<(f64, f64, &str)>,
) -> sqlx::Result<()> {
    let tokens = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    let (prompt, completion) = (tokens(said.prompt_tokens), tokens(said.completion_tokens));
    sqlx::query!(
        "INSERT INTO evaluation_usage AS known (run_id, model_id, calls, untold_calls, prompt_tokens,
                completion_tokens, input_per_million, output_per_million, currency)
         VALUES ($1, $2, 1, $3, $4, $5, $6::text::numeric, $7::text::numeric, $8)
         ON CONFLICT (run_id, model_id) DO UPDATE
            SET calls = known.calls + 1, untold_calls = known.untold_calls + excluded.untold_calls,
                prompt_tokens = known.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = known.completion_tokens + excluded.completion_tokens",
        run,
        model,
        i64::from(prompt.is_none() || completion.is_none()),
        prompt.unwrap_or_default(),
        completion.unwrap_or_default(),
        price.map(|(input, _, _)| input.to_string()),
        price.map(|(_, output, _)| output.to_string()),
        price.map(|(_, _, currency)| currency),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a run's evaluation asked of models and judges, and what that cost.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Usage {
    /// The model, as the provider calls it.
    pub model_id: String,
    /// Calls that it answered.
    pub calls: i64,
    /// Tokens that it read.
    pub prompt_tokens: i64,
    /// Tokens that it wrote.
    pub completion_tokens: i64,
    /// What that cost; absent where the price table has no price for its answers, or the provider told no tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// The currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    pub currency: Option<String>,
}

/// What a run's evaluation asked, by model.
pub async fn usage(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Vec<Usage>> {
    sqlx::query_as!(
        Usage,
        "SELECT model_id, calls, prompt_tokens, completion_tokens, cost::double precision AS cost, currency
           FROM evaluation_usage WHERE run_id = $1 ORDER BY model_id",
        run,
    )
    .fetch_all(db)
    .await
}

/// Keeps how good an answer is.
pub async fn keep_judgement(
    conn: &mut PgConnection,
    run: Uuid,
    line: i64,
    model: &str,
    judgement: &Judgement,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE evaluation_answers SET score = $4, judged_because = $5
          WHERE run_id = $1 AND line = $2 AND model_id = $3",
        run,
        line,
        model,
        judgement.score,
        storable(&judgement.reason),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What the run's evaluation found, once it has ended.
pub async fn found(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Option<Evaluation>> {
    let found = sqlx::query_scalar!(
        r#"SELECT evaluation AS "evaluation: Json<Evaluation>" FROM runs WHERE id = $1"#,
        run,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.flatten().map(|Json(found)| found))
}

/// Keeps what the evaluation found on the run, and the figures of it on the model version.
pub async fn keep_evaluation(
    conn: &mut PgConnection,
    run: Uuid,
    version: Uuid,
    found: &Evaluation,
) -> sqlx::Result<()> {
    sqlx::query!("UPDATE runs SET evaluation = $2 WHERE id = $1", run, Json(found) as _)
        .execute(&mut *conn)
        .await?;
    let quality = found.judge.as_ref().map(|judge| judge.candidate);
    sqlx::query!(
        "UPDATE model_versions SET metrics = metrics || jsonb_strip_nulls(jsonb_build_object('quality', $2::double precision))
          WHERE id = $1",
        version,
        quality,
    )
    .execute(conn)
    .await?;
    Ok(())
}
