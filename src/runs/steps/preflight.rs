//! Preflight: is the dataset worth its training? Nothing has been paid for so far.

use serde_json::json;

use super::super::machine::StepContext;
use super::super::trainings::{self, NewTraining};
use super::super::transition::Transition;
use super::super::{RunStatus, Step};
use super::broken;
use crate::jobs::JobError;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let digest = context.run.dataset_digest.as_deref().ok_or_else(|| broken("its dataset"))?;
    let collected = context.run.collected.as_ref().ok_or_else(|| broken("its dataset"))?;
    let examples = collected.counts.examples;
    let needed = context.config.dataset.minimum_examples;
    let data = json!({"examples": examples, "minimum_examples": needed});

    let mut tx = context.begin().await?;
    if examples < u64::from(needed) {
        let reason = format!(
            "{examples} examples are fewer than the {needed} that minimum_examples asks for; lower \
             engagement_threshold or minimum_examples, or look further back"
        );
        let code = "insufficient_training_data";
        return Ok(Transition::finish(tx, RunStatus::Skipped, code, reason).with(data));
    }
    let validation = collected.parts.as_ref().and_then(|parts| parts.validation.as_ref());
    let validation = validation.map(|part| part.digest.as_str());
    // The intention: from here on each training has a name, by which its file and its job are found again.
    let training = &context.config.training;
    for (trial, hyperparameters) in (0..).zip(training.trials()) {
        let id = context.services.clock.uuid();
        let new = NewTraining {
            id,
            run: context.run.id,
            provider: &training.provider,
            base_model: &training.base_model,
            dataset_digest: digest,
            validation_digest: validation,
            trial,
            hyperparameters,
            expected_tokens: None,
            price: None,
        };
        trainings::insert(&mut tx, &new).await?;
        if trial == 0 {
            trainings::set_current(&mut tx, context.run.id, id).await?;
        }
    }
    let note = format!("{examples} examples are enough (at least {needed})");
    Ok(Transition::next(tx, Step::Upload, note).with(data))
}
