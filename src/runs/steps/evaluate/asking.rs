//! Asking models and judges, each question once.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

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
    let mut asked = stream::iter(missing).buffer_unordered(AT_ONCE);
    while let Some((line, answer)) = asked.next().await {
        match answer {
            Ok(said) => {
                let mut tx = context.fenced().await?;
                evaluation::keep_answer(&mut tx, context.run.id, line, model, &said).await?;
                tx.commit().await?;
            }
            Err(TrainerError::Rejected { reason: RejectReason::ModelNotFound, message }) => {
                return Ok(Some(message));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
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
    let kept = kept(context, model).await?;
    let mut missing = Vec::new();
    for question in questions {
        if let Some(answer) = kept.get(&question.line).filter(|answer| answer.score.is_none()) {
            missing.push(score(context, settings, question, &answer.answer));
        }
    }
    let mut judged = stream::iter(missing).buffer_unordered(AT_ONCE);
    while let Some(judgement) = judged.next().await {
        let (line, Some(judgement)) = judgement? else { continue };
        let mut tx = context.fenced().await?;
        evaluation::keep_judgement(&mut tx, context.run.id, line, model, &judgement).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn score(
    context: &StepContext<'_>,
    settings: &JudgeSettings,
    question: &Question,
    answer: &str,
) -> Result<(i64, Option<Judgement>), JobError> {
    let trainer = context.services.trainers.get(&context.config.training.provider)?;
    let request = evaluation::question_for_judge(&settings.model, &settings.criteria, question, answer);
    for _ in 0..MOST_TRIES {
        match evaluation::judgement(&trainer.complete(&request).await?) {
            Ok(judgement) => return Ok((question.line, Some(judgement))),
            Err(why) => tracing::warn!(judge = settings.model, line = question.line, why, "no score"),
        }
    }
    Ok((question.line, None))
}
