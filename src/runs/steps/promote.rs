//! Promote: the candidate becomes the live version, in one transaction with its traffic revision.

use serde_json::json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::transition::Transition;
use super::broken;
use crate::audit::By;
use crate::halt;
use crate::jobs::JobError;
use crate::models;
use crate::traffic;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let run = context.run;
    let candidate = run.model_version_id.ok_or_else(|| broken("its model version"))?;

    let mut tx = context.begin_with_pipeline().await?;
    let candidate = models::by_id(&mut *tx, candidate).await?.ok_or_else(|| broken("its model version"))?;
    let reason = format!("run {} earned it", run.id);
    let revision = traffic::promote(
        &mut tx,
        &run.pipeline,
        &candidate,
        run.experiment_id,
        context.config.watch.hold_back_weight,
        &reason,
        &By::worker(),
    )
    .await?;
    halt::point("promote", "promoted");
    Ok(Transition::next(tx, Step::Watch, format!("{} is live", candidate.name()))
        .with(json!({"version": candidate.version, "revision": revision})))
}
