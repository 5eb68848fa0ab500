//! Register: the provider's new model becomes a version of the pipeline.

use serde_json::json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::transition::Transition;
use super::{broken, training_of};
use crate::audit::{self, Actor, AuditEvent};
use crate::jobs::JobError;
use crate::models::{self, NewVersion, Version, VersionStatus};
use crate::traffic;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let training = training_of(context).await?;
    let model = training.fine_tuned_model.as_deref().ok_or_else(|| broken("its trained model"))?;
    let run = context.run;

    let mut tx = context.begin_with_pipeline().await?;
    let live = traffic::current(&mut tx, &run.pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    let newest = models::newest(&mut *tx, &run.pipeline).await?;
    let newest = newest.as_ref().map(|newest| (newest.version, newest.base_model.as_str()));
    let version = NewVersion {
        id: context.services.clock.uuid(),
        pipeline: &run.pipeline,
        version: Version::next(newest, &training.base_model),
        status: VersionStatus::Candidate,
        provider: &training.provider,
        provider_model_id: model,
        base_model: &training.base_model,
        run_id: Some(run.id),
        training_id: Some(training.id),
        dataset_digest: Some(&training.dataset_digest),
        parent_id: Some(live.live_version_id),
        metrics: json!({"final_loss": training.final_loss, "trained_tokens": training.trained_tokens}),
    };
    models::insert(&mut tx, &version).await?;
    sqlx::query!("UPDATE runs SET model_version_id = $2 WHERE id = $1", run.id, version.id)
        .execute(&mut *tx)
        .await?;
    let name = format!("{}@{}", run.pipeline, version.version);
    let event = AuditEvent {
        pipeline: Some(&run.pipeline),
        after: Some(json!({"model_id": model, "run": run.id, "dataset": training.dataset_digest})),
        ..AuditEvent::new(Actor::Worker, "model.register", ("model_version", &name))
    };
    audit::record(&mut tx, event).await?;
    Ok(Transition::next(tx, Step::Evaluate, format!("registered {name}, which is {model}"))
        .with(json!({"version": version.version, "model_id": model})))
}
