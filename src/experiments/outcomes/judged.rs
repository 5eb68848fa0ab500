//! Scores that a judge gives to live outcomes: what is waiting, what of the day's budget is left, and the scores themselves,
//! which are corrections of their outcomes and reach the sums the same way.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, PgExecutor};

use super::rows::Rows;
use super::{correct, samples, sums};

/// After this many attempts an outcome stays without a score: the waits between them sum up to four hours.
pub const MOST_ATTEMPTS: i32 = 7;
/// The wait after the first attempt, in seconds; each other is four times the one before.
const FIRST_WAIT: f64 = 10.0;

/// A text that waits for a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    number: i64,
    id: String,
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub answer: String,
}

/// What there is for a judge to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing at this moment.
    None,
    /// There is, but the day's budget is used up.
    OverBudget,
    /// These; they are taken out of the day's budget.
    Some(Vec<Waiting>),
}

/// Takes up to `most` texts of a pipeline that are due, the oldest first, within a budget of questions per day (UTC). They
/// count as asked from now on: a worker that is killed does not have them back.
pub async fn take_samples(
    conn: &mut PgConnection,
    pipeline: &str,
    budget: i64,
    most: i64,
) -> sqlx::Result<Work> {
    let asked = sqlx::query_scalar!(
        "INSERT INTO outcome_judges AS known (pipeline) VALUES ($1)
         ON CONFLICT (pipeline) DO UPDATE
            SET asked = CASE WHEN known.day = excluded.day THEN known.asked ELSE 0 END, day = excluded.day
         RETURNING asked",
        pipeline,
    )
    .fetch_one(&mut *conn)
    .await?;
    let left = (budget - asked).max(0);
    let due = sqlx::query_as!(
        Waiting,
        "SELECT number, id, prompt, answer FROM outcome_samples
          WHERE pipeline = $1 AND due_at <= now() ORDER BY due_at, number LIMIT $2",
        pipeline,
        // One more than is allowed tells whether any is waiting.
        most.min(left).max(1),
    )
    .fetch_all(&mut *conn)
    .await?;
    if due.is_empty() {
        return Ok(Work::None);
    }
    if left == 0 {
        return Ok(Work::OverBudget);
    }
    sqlx::query!(
        "UPDATE outcome_judges SET asked = asked + $2 WHERE pipeline = $1",
        pipeline,
        i64::try_from(due.len()).unwrap_or(i64::MAX),
    )
    .execute(conn)
    .await?;
    Ok(Work::Some(due))
}

/// Whether any text of a pipeline is due.
pub async fn samples_due(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM outcome_samples WHERE pipeline = $1 AND due_at <= now()) AS "due!""#,
        pipeline,
    )
    .fetch_one(db)
    .await
}

/// What became of asking about one text.
#[derive(Debug)]
pub enum Verdict {
    /// Its score, 0 to 1.
    Score(f64),
    /// The judge replied, and not with a score; or the provider did not answer or refused.
    Failed {
        /// In one sentence.
        why: String,
        /// How long the provider asked to wait.
        retry_after: Option<Duration>,
    },
    /// It was not asked.
    Untouched,
}

/// Writes what became of texts that were taken. A score becomes the quality of its outcome, unless the text is gone (somebody
/// else wrote the score) or the outcome has one: the caller's stays.
pub async fn settle(
    conn: &mut PgConnection,
    pipeline: &str,
    verdicts: Vec<(Waiting, Verdict)>,
    replies: i64,
) -> sqlx::Result<()> {
    let (mut scores, mut failures, mut last_error) = (HashMap::new(), Vec::new(), None);
    let taken = i64::try_from(verdicts.len()).unwrap_or(i64::MAX);
    for (waiting, verdict) in verdicts {
        match verdict {
            Verdict::Score(score) => {
                scores.insert(waiting.number, (waiting.id, score));
            }
            Verdict::Failed { why, retry_after } => {
                failures.push((waiting.number, retry_after));
                last_error = Some(why);
            }
            Verdict::Untouched => {}
        }
    }
    let judged = fold(conn, pipeline, scores).await?;
    let given_up = put_off(conn, &failures).await?;
    sqlx::query!(
        // What brought no reply costs nothing, and is given back to the day that it was taken from.
        "UPDATE outcome_judges
            SET scored = scored + $2, overtaken = overtaken + $3, given_up = given_up + $4,
                asked = CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN greatest(asked - $5, 0) ELSE asked END,
                last_error = coalesce($6, last_error), standstill = NULL
          WHERE pipeline = $1",
        pipeline,
        judged.scored,
        judged.overtaken,
        given_up,
        taken - replies,
        last_error,
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct Folded {
    scored: i64,
    overtaken: i64,
}

/// Makes scores the qualities of their outcomes. The order of locks is that of recording: outcomes, then sums.
async fn fold(
    conn: &mut PgConnection,
    pipeline: &str,
    scores: HashMap<i64, (String, f64)>,
) -> sqlx::Result<Folded> {
    if scores.is_empty() {
        return Ok(Folded { scored: 0, overtaken: 0 });
    }
    let corrections = correct::judged(conn, pipeline, &scores).await?;
    let used = i64::try_from(corrections.0.len()).unwrap_or(i64::MAX);
    let asked = i64::try_from(scores.len()).unwrap_or(i64::MAX);
    sums::add(conn, Rows::default(), corrections).await?;
    let numbers: Vec<i64> = scores.into_keys().collect();
    samples::forget(conn, &numbers).await?;
    Ok(Folded { scored: used, overtaken: asked - used })
}

/// Has texts wait for another attempt; those that had all of theirs are deleted, and counted.
async fn put_off(conn: &mut PgConnection, failures: &[(i64, Option<Duration>)]) -> sqlx::Result<i64> {
    if failures.is_empty() {
        return Ok(0);
    }
    let numbers: Vec<i64> = failures.iter().map(|(number, _)| *number).collect();
    let asked: Vec<f64> = failures
        .iter()
        .map(|(_, wait)| wait.unwrap_or_default().min(Duration::from_hours(1)).as_secs_f64())
        .collect();
    sqlx::query!(
        "UPDATE outcome_samples s
            SET attempts = s.attempts + 1, due_at = now() + make_interval(secs => greatest($3::float8 * 4::float8 ^ s.attempts, f.wait))
           FROM unnest($1::bigint[], $2::float8[]) AS f (number, wait) WHERE s.number = f.number",
        &numbers,
        &asked,
        FIRST_WAIT,
    )
    .execute(&mut *conn)
    .await?;
    let deleted = sqlx::query!(
        "DELETE FROM outcome_samples WHERE number = ANY($1) AND attempts >= $2",
        &numbers,
        MOST_ATTEMPTS,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(deleted.rows_affected()).unwrap_or(i64::MAX))
}
