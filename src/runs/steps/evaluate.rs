//! Evaluate: the new model answers a few prompts and is compared with the live one, before it meets traffic.

mod asking;
mod comparing;

use serde_json::json;

use super::super::machine::StepContext;
use super::super::trainings::Training;
use super::super::transition::Transition;
use super::super::{RunStatus, Step};
use super::{broken, seconds, training_of};
use crate::audit::By;
use crate::evaluation::{self, Evaluation, Question, SmokeFault, SmokeTest};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, ModelVersion, VersionStatus};
use crate::pipelines::config::ComparisonSettings;
use asking::{Asked, ask};

/// The model has not been served by its provider for as long as the settings allow.
const NOT_SERVING: &str = "model_not_serving";

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let id = context.run.model_version_id.ok_or_else(|| broken("its model version"))?;
    let candidate = models::by_id(&context.services.db, id).await?;
    let candidate = candidate.ok_or_else(|| broken("its model version"))?;
    let training = training_of(context).await?;
    let mut found = Evaluation::default();

    let prompts = context.config.evaluation.smoke.prompts;
    if prompts > 0 {
        let questions = questions(context, &training, prompts).await?;
        let answers = match ask(context, &candidate, &questions).await? {
            Asked::Answered(answers) => answers,
            Asked::NotServed(why) => return not_served(context, &candidate, &why).await,
        };
        halt::point("evaluate", "answered");
        let longest = context.config.evaluation.smoke.maximum_characters;
        let faults = questions.iter().zip(&answers).filter_map(|(question, answer)| {
            let fault = evaluation::fault(question, &answer.completion(), longest)?;
            Some(SmokeFault { line: question.line, fault })
        });
        found.smoke = Some(SmokeTest { prompts, faults: faults.collect() });
    }
    if let Some(reason) = smoke_refusal(&found) {
        return reject(context, &candidate, &found, "smoke_test_failed", reason).await;
    }
    let refused = match &context.config.evaluation.comparison {
        None => None,
        Some(ComparisonSettings::Loss { maximum_increase, no_data }) => {
            comparing::by_loss(context, &candidate, *maximum_increase, *no_data, &mut found).await?
        }
        Some(ComparisonSettings::Judge(judge)) => {
            let questions = questions(context, &training, judge.examples).await?;
            match ask(context, &candidate, &questions).await? {
                Asked::NotServed(why) => return not_served(context, &candidate, &why).await,
                Asked::Answered(_) => {}
            }
            comparing::by_judge(context, &candidate, judge, &questions, &mut found).await?
        }
    };
    if let Some((code, reason)) = refused {
        return reject(context, &candidate, &found, code, reason).await;
    }
    let mut tx = context.begin().await?;
    evaluation::keep_evaluation(&mut tx, context.run.id, candidate.id, &found).await?;
    let note = summary(&candidate, &found);
    Ok(Transition::next(tx, Step::Test, note).with(json!({"evaluation": found})))
}

/// Examples that the model was not trained on, where some were set aside.
async fn questions(
    context: &StepContext<'_>,
    training: &Training,
    wanted: u32,
) -> Result<Vec<Question>, JobError> {
    let collected = context.run.collected.as_ref().ok_or_else(|| broken("its dataset"))?;
    let validation = collected.parts.as_ref().and_then(|parts| parts.validation.as_ref());
    let (digest, examples) = match validation {
        Some(part) => (part.digest.as_str(), part.examples),
        None => (training.dataset_digest.as_str(), collected.counts.examples),
    };
    let services = context.services;
    let sample = evaluation::sample(&services.datasets, digest, examples, wanted);
    Ok(context.lease.keep(&services.db, sample).await??)
}

fn smoke_refusal(found: &Evaluation) -> Option<String> {
    let smoke = found.smoke.as_ref().filter(|smoke| !smoke.faults.is_empty())?;
    let first = smoke.faults.first()?;
    Some(format!(
        "{} of {} answers failed the smoke test: the one to line {} of the dataset {}; look at the answers and at what was \
         trained on",
        smoke.faults.len(),
        smoke.prompts,
        first.line,
        first.fault
    ))
}

/// Ends the run before its model meets traffic.
async fn reject(
    context: &StepContext<'_>,
    candidate: &ModelVersion,
    found: &Evaluation,
    code: &str,
    reason: String,
) -> Result<Transition, JobError> {
    let mut tx = context.begin_with_pipeline().await?;
    evaluation::keep_evaluation(&mut tx, context.run.id, candidate.id, found).await?;
    // An operator may have promoted it meanwhile: that stays.
    let now = models::by_id(&mut *tx, candidate.id).await?;
    if now.is_some_and(|now| now.status == VersionStatus::Candidate) {
        models::set_status(&mut tx, candidate.id, VersionStatus::Rejected, &reason, &By::worker()).await?;
    }
    Ok(Transition::finish(tx, RunStatus::Rejected, code, reason).with(json!({"evaluation": found})))
}

/// Waits for the provider to serve the model: it may take a moment, or a person who deploys it.
async fn not_served(
    context: &StepContext<'_>,
    candidate: &ModelVersion,
    why: &str,
) -> Result<Transition, JobError> {
    let limit = seconds(context.config.evaluation.serving_seconds);
    let waited = (context.now - candidate.created_at).to_std().unwrap_or_default();
    let model = &candidate.provider_model_id;
    if waited >= limit {
        return Err(JobError::Fatal {
            code: NOT_SERVING.into(),
            message: format!(
                "{model} did not answer within {} s of its training: {why} Deploy it at the provider, then retry the run",
                limit.as_secs()
            ),
        });
    }
    let wait = seconds(context.config.training.poll_seconds).min(limit.saturating_sub(waited));
    let reason = format!("{model} does not answer yet: {why}");
    Ok(Transition::wait(context.begin().await?, wait, NOT_SERVING, reason))
}

fn summary(candidate: &ModelVersion, found: &Evaluation) -> String {
    let mut said = vec![candidate.name()];
    match &found.smoke {
        Some(smoke) => said.push(format!("passed the smoke test with {} prompts", smoke.prompts)),
        None => said.push("was not smoke-tested".into()),
    }
    if let Some(judge) = &found.judge {
        said.push(format!(
            "and has a quality of {:.3}, the live one {:.3}, by {} examples",
            judge.candidate, judge.live, judge.examples
        ));
    }
    if let Some(loss) = &found.loss {
        said.push(match (loss.candidate, loss.live) {
            (Some(candidate), Some(live)) => {
                format!("and a validation loss of {candidate:.4}, the live one {live:.4}")
            }
            (Some(candidate), None) => {
                format!(
                    "and a validation loss of {candidate:.4}; no_data to compare it by: the live one has none"
                )
            }
            (None, _) => "and no_data to compare it by: the provider told no validation loss".into(),
        });
    }
    said.join(" ")
}
