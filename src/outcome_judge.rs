//! Has a judge score live outcomes that came without a quality: one job per pipeline, a small batch at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;
use sqlx::PgPool;

use crate::evaluation::{self, Question};
use crate::experiments::outcomes::{self, JudgeCalls, Verdict, Waiting, Work};
use crate::jobs::{self, Done, Handler, JobError, Lease};
use crate::pipelines::config::OutcomeJudgeSettings;
use crate::pipelines::{self, Pipeline};
use crate::preflight::{self, PriceTable};
use crate::trainers::{AnyTrainer, ChatMessage, Completion, Trainer, TrainerError, Trainers};

/// The kind of job; its subject is the pipeline.
const KIND: &str = "outcome_judge";
/// Texts of one batch. Small, so that a worker that is killed leaves little to be asked again.
const BATCH: i64 = 16;
/// Questions under way at once.
const AT_ONCE: usize = 4;
/// How soon a judge that stands still looks again: settings may have changed, or the day.
const STANDSTILL: Duration = Duration::from_mins(1);
/// How soon others are asked about after the provider failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(10);

/// Sees to it that the outcomes of a pipeline are scored, if its settings say so and any wait.
pub(crate) async fn schedule(db: &PgPool, pipeline: &Pipeline) -> sqlx::Result<()> {
    if pipeline.config.outcomes.judge.is_none() || !outcomes::samples_due(db, &pipeline.name).await? {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    jobs::enqueue(&mut tx, KIND, &pipeline.name, &Value::Null, Duration::ZERO).await?;
    tx.commit().await
}

/// Handles the job.
#[derive(Debug)]
pub(crate) struct OutcomeJudge {
    pub(crate) db: PgPool,
    pub(crate) trainers: Trainers,
    pub(crate) prices: PriceTable,
}

impl Handler for OutcomeJudge {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            let Some(pipeline) = pipelines::by_name(&self.db, &lease.subject).await? else {
                return Ok(Done::Finished);
            };
            match &pipeline.config.outcomes.judge {
                // Texts that are left are deleted in time.
                None => Ok(Done::Finished),
                Some(settings) => self.batch(lease, &pipeline, settings).await,
            }
        }
        .boxed()
    }
}

impl OutcomeJudge {
    /// Takes a batch, asks, and writes the scores. Between the two transactions nothing is held.
    async fn batch(
        &self,
        lease: &Lease,
        pipeline: &Pipeline,
        settings: &OutcomeJudgeSettings,
    ) -> Result<Done, JobError> {
        let name = &pipeline.name;
        let trainer = self.trainers.get(&pipeline.config.training.provider)?;
        let price = self.prices.inference(&settings.model, None);
        let price = price.map(|price| (price.input_per_million, price.output_per_million, price.currency));
        let mut tx = self.db.begin().await?;
        lease.fence(&mut tx).await?;
        let limit = pipeline.config.budget.per_month.zip(price.map(|(_, _, currency)| currency));
        if let Some((limit, currency)) = limit {
            let spent = preflight::spending(&mut tx, name, currency).await?.amount;
            if spent >= limit {
                let why = format!(
                    "{spent:.2} {currency} are spent in this month, and budget.per_month allows {limit:.2}; raise it, or \
                     wait for the next month"
                );
                outcomes::judge_stands_still(&mut tx, name, &why).await?;
                lease.reschedule(&mut tx, STANDSTILL).await?;
                tx.commit().await?;
                return Ok(Done::Committed);
            }
        }
        let work = outcomes::take_samples(&mut tx, name, settings.budget_per_day.into(), BATCH).await?;
        let taken = match work {
            Work::Some(taken) => taken,
            Work::None => {
                lease.finish(&mut tx).await?;
                tx.commit().await?;
                return Ok(Done::Committed);
            }
            Work::OverBudget => {
                let why = format!(
                    "the {} questions of today (UTC) are used up; raise outcomes.judge.budget_per_day, or wait for the \
                     next day",
                    settings.budget_per_day
                );
                outcomes::judge_stands_still(&mut tx, name, &why).await?;
                lease.reschedule(&mut tx, STANDSTILL).await?;
                tx.commit().await?;
                return Ok(Done::Committed);
            }
        };
        tx.commit().await?;
        let asked = lease.keep(&self.db, ask(trainer, settings, taken)).await?;
        let mut tx = self.db.begin().await?;
        lease.fence(&mut tx).await?;
        outcomes::count_judge_calls(&mut tx, name, &settings.model, &asked.calls, price).await?;
        outcomes::settle(&mut tx, name, asked.verdicts, asked.calls.calls).await?;
        let mut wait = Duration::ZERO;
        if let Some(error) = &asked.trouble {
            tracing::warn!(%error, pipeline = name, "the judge of outcomes did not answer");
            let why = format!("the judge {} does not answer: {error}; it is asked again", settings.model);
            outcomes::judge_stands_still(&mut tx, name, &why).await?;
            wait = AFTER_TROUBLE;
        }
        lease.reschedule(&mut tx, wait).await?;
        tx.commit().await?;
        Ok(Done::Committed)
    }
}

/// What became of a batch.
struct Asked {
    verdicts: Vec<(Waiting, Verdict)>,
    calls: JudgeCalls,
    /// The first failure of the provider.
    trouble: Option<TrainerError>,
}

/// Asks about each text once; after a failure of the provider no other question is begun, and those under way, which are paid
/// for, are waited for.
async fn ask(trainer: &AnyTrainer, settings: &OutcomeJudgeSettings, taken: Vec<Waiting>) -> Asked {
    let failed = AtomicBool::new(false);
    let questions = taken.into_iter().map(|waiting| {
        let failed = &failed;
        async move {
            if failed.load(Ordering::Relaxed) {
                return (waiting, None);
            }
            let reply = put(trainer, settings, &waiting).await;
            if reply.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            (waiting, Some(reply))
        }
    });
    let replies: Vec<_> = stream::iter(questions).buffer_unordered(AT_ONCE).collect().await;
    let mut asked = Asked { verdicts: Vec::new(), calls: JudgeCalls::default(), trouble: None };
    for (waiting, reply) in replies {
        let verdict = match reply {
            None => Verdict::Untouched,
            Some(Ok(reply)) => {
                count(&mut asked.calls, &reply);
                match evaluation::judgement(&reply) {
                    Ok(judgement) => Verdict::Score(judgement.score),
                    Err(why) => Verdict::Failed { why, retry_after: None },
                }
            }
            Some(Err(error)) => {
                let retry_after = match &error {
                    TrainerError::Retryable { retry_after, .. } => *retry_after,
                    TrainerError::Rejected { .. } => None,
                };
                let why = error.to_string();
                asked.trouble.get_or_insert(error);
                Verdict::Failed { why, retry_after }
            }
        };
        asked.verdicts.push((waiting, verdict));
    }
    asked
}

async fn put(
    trainer: &AnyTrainer,
    settings: &OutcomeJudgeSettings,
    waiting: &Waiting,
) -> Result<Completion, TrainerError> {
    let prompt = ChatMessage { role: "user".into(), content: waiting.prompt.clone() };
    let question = Question { line: 0, messages: vec![prompt], reference: String::new() };
    let request =
        evaluation::question_for_judge(&settings.model, &settings.instructions, &question, &waiting.answer);
    trainer.complete(&request).await
}

fn count(calls: &mut JudgeCalls, reply: &Completion) {
    let tokens = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    let (prompt, completion) = (tokens(reply.prompt_tokens), tokens(reply.completion_tokens));
    calls.calls += 1;
    calls.untold_calls += i64::from(prompt.is_none() || completion.is_none());
    calls.prompt_tokens += prompt.unwrap_or_default();
    calls.completion_tokens += completion.unwrap_or_default();
}
