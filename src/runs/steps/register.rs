//! Register: the provider's new model becomes a version of the pipeline.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::trainings::Training;
use super::super::transition::Transition;
use super::{broken, training_of, trials};
use crate::audit::By;
use crate::jobs::JobError;
use crate::models::{self, NewVersion, Version, VersionStatus};
use crate::traffic;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let training = training_of(context).await?;
    let model = training.fine_tuned_model.as_deref().ok_or_else(|| broken("its trained model"))?;
    let run = context.run;

    let mut tx = context.begin_with_pipeline().await?;
    let live = traffic::current(&mut tx, &run.pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    // What else a search has made comes first, so that the best has the newest number.
    for other in trials::of_run(&mut tx, run.id).await? {
        if let Some(model) = other.fine_tuned_model.as_deref().filter(|_| other.id != training.id) {
            register(context, &mut tx, &other, model, VersionStatus::Rejected, live.live_version_id).await?;
        }
    }
    let best =
        register(context, &mut tx, &training, model, VersionStatus::Candidate, live.live_version_id).await?;
    sqlx::query!("UPDATE runs SET model_version_id = $2 WHERE id = $1", run.id, best.id)
        .execute(&mut *tx)
        .await?;
    let (name, version) = (best.name, best.version);
    Ok(Transition::next(tx, Step::Evaluate, format!("registered {name}, which is {model}"))
        .with(json!({"version": version, "model_id": model})))
}

struct Registered {
    id: Uuid,
    name: String,
    version: Version,
}

async fn register(
    context: &StepContext<'_>,
    tx: &mut PgConnection,
    training: &Training,
    model: &str,
    status: VersionStatus,
    parent: Uuid,
) -> Result<Registered, JobError> {
    let run = context.run;
    let earlier = models::made(&mut *tx, &run.pipeline).await?;
    let recipe = models::recipe_of(&mut *tx, training.id).await?;
    let version = NewVersion {
        id: context.services.clock.uuid(),
        pipeline: &run.pipeline,
        version: Version::next(&earlier, training.id, &recipe),
        status,
        provider: &training.provider,
        provider_model_id: model,
        base_model: &training.base_model,
        run_id: Some(run.id),
        training_id: Some(training.id),
        checkpoint_id: None,
        dataset_digest: Some(&training.dataset_digest),
        parent_id: Some(parent),
        metrics: json!({
            "final_loss": training.final_loss, "validation_loss": training.validation_loss,
            "trained_tokens": training.trained_tokens, "hyperparameters": training.hyperparameters,
        }),
    };
    models::register(tx, &version, None, &By::worker()).await?;
    let name = format!("{}@{}", run.pipeline, version.version);
    Ok(Registered { id: version.id, name, version: version.version })
}
