//! Collect: the posts that people engaged with become a dataset.

use serde_json::json;
use sqlx::types::Json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::transition::Transition;
use crate::dataset;
use crate::halt;
use crate::jobs::JobError;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let settings = &context.config.dataset;
    let snapshot = dataset::collect(&context.services.db, settings, context.now).await?;
    halt::point("collect", "collected");
    // Named by its content: storing it again after a crash changes nothing.
    context.services.datasets.put(&snapshot).await?;
    halt::point("collect", "stored");

    let mut tx = context.begin().await?;
    dataset::record(&mut tx, &context.run.pipeline, &snapshot).await?;
    sqlx::query!(
        "UPDATE runs SET dataset_digest = $2, collected = $3 WHERE id = $1",
        context.run.id,
        snapshot.digest,
        Json(&snapshot.manifest) as _,
    )
    .execute(&mut *tx)
    .await?;
    let counts = snapshot.manifest.counts;
    let note = format!(
        "{} of {} posts became examples; left out: {} older than the look-back, {} below {} engagement, {} without \
         the text to learn",
        counts.examples,
        counts.posts,
        counts.too_old,
        counts.below_threshold,
        settings.engagement_threshold,
        counts.empty
    );
    Ok(Transition::next(tx, Step::Preflight, note)
        .with(json!({"digest": snapshot.digest, "bytes": snapshot.manifest.bytes, "counts": counts})))
}
