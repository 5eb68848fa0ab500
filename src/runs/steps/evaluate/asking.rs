//! Asking models and judges, each question once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use sqlx::PgConnection;

use super::super::super::machine::StepContext;
use super::super::broken;
use crate::evaluation::{self, Answer, Judgement, Question};
use crate::jobs::JobError;
use crate::models::ModelVersion;
use crate::pipelines::config::JudgeSettings;
use crate::trainers::{self, AnyTrainer, Completion, RejectReason, Trainer, TrainerError};

/// Questions under way at once.
const AT_ONCE: usize = 4;
/// How often a judge is asked about an answer before it stays without a score.
const MOST_TRIES: u32 = 3;

/// What became of questions to a model.
pub(super) enum Asked {
    /// The answers, in the order of the questions.
    Answered(Vec<Answer>),
    /// The provider does not serve the model, in its words.
    NotServed(String),
}

/// The model's answers: those that are kept, and for the others the model is asked.
pub(super) async fn ask(
    context: &StepContext<'_>,
    version: &ModelVersion,
    questions: &[Question],
) -> Result<Asked, JobError> {
    let asking = ask_missing(context, version, questions);
    if let Some(why) = context.lease.keep(&context.services.db, asking).await?? {
        return Ok(Asked::NotServed(why));
    }
    let mut kept = kept(context, &version.provider_model_id).await?;
    let answers = questions.iter().map(|question| kept.remove(&question.line));
    let answers: Option<Vec<_>> = answers.collect();
    Ok(Asked::Answered(answers.ok_or_else(|| broken("an answer"))?))
}

/// The answers of a model by line.
async fn kept(context: &StepContext<'_>, model: &str) -> Result<HashMap<i64, Answer>, JobError> {
    let answers = evaluation::answers(&context.services.db, context.run.id).await?;
    let of_model = answers.into_iter().filter(|answer| answer.model_id == model);
    Ok(of_model.map(|answer| (answer.line, answer)).collect())
}

/// Keeps each answer as it comes. Returns the provider's words where it does not serve the model.
async fn ask_missing(
    context: &StepContext<'_>,
    version: &ModelVersion,
    questions: &[Question],
) -> Result<Option<String>, JobError> {
    let model = version.provider_model_id.as_str();
    let trainer = context.services.trainers.get(&version.provider)?;
    let kept = kept(context, model).await?;
    let mut missing = Vec::new();
    for question in questions {
        if !kept.contains_key(&question.line) {
            missing.push(put(trainer, model, question));
        }
    }
    let failed = AtomicBool::new(false);
    let mut asked = stream::iter(unless(&failed, missing)).buffer_unordered(AT_ONCE);
    let (mut not_served, mut trouble) = (None, None);
    while let Some((line, answer)) = asked.next().await {
        match answer {
            Ok(said) => {
                let mut tx = context.fenced().await?;
                evaluation::keep_answer(&mut tx, context.run.id, line, model, &said).await?;
                count(context, &mut tx, model, tuned_from(version), &said).await?;
                tx.commit().await?;
                continue;
            }
            Err(TrainerError::Rejected { reason: RejectReason::ModelNotFound, message }) => {
                not_served.get_or_insert(message);
            }
            Err(error) => {
                trouble.get_or_insert(error);
            }
        }
        failed.store(true, Ordering::Relaxed);
    }
    match trouble {
        Some(error) => Err(error.into()),
        None => Ok(not_served),
    }
}

/// Questions until one has failed: no other is begun then, and those under way, which are paid for, are waited for.
fn unless<T>(failed: &AtomicBool, questions: Vec<T>) -> impl Iterator<Item = T> {
    questions.into_iter().take_while(|_| !failed.load(Ordering::Relaxed))
}

/// What a model was tuned from, where it was.
fn tuned_from(version: &ModelVersion) -> Option<&str> {
    version.run_id.map(|_| version.base_model.as_str())
}

/// Counts what an answer cost.
async fn count(
    context: &StepContext<'_>,
    tx: &mut PgConnection,
    model: &str,
    base: Option<&str>,
    said: &Completion,
) -> sqlx::Result<()> {
    let price = context.services.prices.inference(model, base);
    let price = price.map(|price| (price.input_per_million, price.output_per_million, price.currency));
    evaluation::count_call(tx, context.run.id, model, said, price).await
}

async fn put(trainer: &AnyTrainer, model: &str, question: &Question) -> (i64, trainers::Result<Completion>) {
    (question.line, trainer.complete(&question.ask(model)).await)
}

/// The judge's scores of a model's answers by line. An answer that it would not score is left out.
pub(super) async fn judge(
    context: &StepContext<'_>,
    version: &ModelVersion,
    settings: &JudgeSettings,
    questions: &[Question],
) -> Result<HashMap<i64, f64>, JobError> {
    let judging = judge_missing(context, version, settings, questions);
    context.lease.keep(&context.services.db, judging).await??;
    let kept = kept(context, &version.provider_model_id).await?;
    let wanted = questions.iter().filter_map(|question| kept.get(&question.line));
    Ok(wanted.filter_map(|answer| Some((answer.line, answer.score?))).collect())
}

async fn judge_missing(
    context: &StepContext<'_>,
    version: &ModelVersion,
    settings: &JudgeSettings,
    questions: &[Question],
) -> Result<(), JobError> {
    let model = version.provider_model_id.as_str();
    let trainer = context.services.trainers.get(&context.config.training.provider)?;
    let kept = kept(context, model).await?;
    let mut missing = Vec::new();
    for question in questions {
        if let Some(answer) = kept.get(&question.line).filter(|answer| answer.score.is_none()) {
            missing.push(score(trainer, settings, question, &answer.answer));
        }
    }
    let failed = AtomicBool::new(false);
    let mut judged = stream::iter(unless(&failed, missing)).buffer_unordered(AT_ONCE);
    let mut trouble = None;
    while let Some(scored) = judged.next().await {
        let mut tx = context.fenced().await?;
        for reply in &scored.replies {
            count(context, &mut tx, &settings.model, None, reply).await?;
        }
        match scored.found {
            Ok(Some(judgement)) => {
                evaluation::keep_judgement(&mut tx, context.run.id, scored.line, model, &judgement).await?;
            }
            Ok(None) => {}
            Err(error) => {
                failed.store(true, Ordering::Relaxed);
                trouble.get_or_insert(error);
            }
        }
        tx.commit().await?;
    }
    trouble.map_or(Ok(()), |error| Err(error.into()))
}

/// What became of asking a judge about an answer.
struct Scored {
    line: i64,
    /// What it replied, of use or not: all is paid for.
    replies: Vec<Completion>,
    found: trainers::Result<Option<Judgement>>,
}

/// Asks the judge. Nothing is written here: while this stands still, whoever writes must not wait for it.
async fn score(trainer: &AnyTrainer, settings: &JudgeSettings, question: &Question, answer: &str) -> Scored {
    let request = evaluation::question_for_judge(&settings.model, &settings.criteria, question, answer);
    let mut scored = Scored { line: question.line, replies: Vec::new(), found: Ok(None) };
    for _ in 0..MOST_TRIES {
        let reply = match trainer.complete(&request).await {
            Ok(reply) => reply,
            Err(error) => return Scored { found: Err(error), ..scored },
        };
        let judgement = evaluation::judgement(&reply);
        scored.replies.push(reply);
        match judgement {
            Ok(judgement) => return Scored { found: Ok(Some(judgement)), ..scored },
            Err(why) => tracing::warn!(judge = settings.model, line = question.line, why, "no score"),
        }
    }
    scored
}
