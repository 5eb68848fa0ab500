//! Collect: the posts that people engaged with become a dataset.

use serde_json::json;
use sqlx::types::Json;

use super::super::Step;
use super::super::machine::StepContext;
use super::super::transition::Transition;
use crate::dataset::{self, Manifest};
use crate::halt;
use crate::jobs::JobError;

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let settings = &context.config.dataset;
    let services = context.services;
    // Reading many posts takes longer than a lease.
    let collecting = dataset::collect(&services.sources, &context.run.pipeline, settings, context.now);
    let snapshot = context.lease.keep(&services.db, collecting).await??;
    halt::point("collect", "collected");
    // Named by its content: storing it again after a crash changes nothing.
    context.lease.keep(&services.db, services.datasets.put(&snapshot)).await??;
    halt::point("collect", "stored");

    let mut tx = context.begin().await?;
    dataset::record(&mut tx, &context.run.pipeline, &snapshot).await?;
    sqlx::query!(
        "UPDATE runs SET dataset_digest = $2, collected = $3 WHERE id = $1",
        context.run.id,
        snapshot.train.part.digest,
        Json(&snapshot.manifest) as _,
    )
    .execute(&mut *tx)
    .await?;
    let manifest = &snapshot.manifest;
    let data = json!({
        "digest": snapshot.train.part.digest, "bytes": manifest.bytes, "threshold": manifest.threshold,
        "counts": manifest.counts, "cleaning": manifest.cleaning, "parts": manifest.parts, "warnings": manifest.warnings,
    });
    Ok(Transition::next(tx, Step::Preflight, note(manifest)).with(data))
}

/// What became of the posts, in one sentence.
fn note(manifest: &Manifest) -> String {
    let counts = manifest.counts;
    let left_out: Vec<String> = counts.left_out().map(|(count, why)| format!("{count} {why}")).collect();
    let left_out = if left_out.is_empty() { "nothing".to_owned() } else { left_out.join(", ") };
    let threshold = manifest.threshold.unwrap_or(manifest.settings.engagement_threshold);
    let validation = manifest.parts.as_ref().and_then(|parts| parts.validation.as_ref());
    let aside =
        validation.map_or_else(String::new, |part| format!(", {} set aside to validate with", part.examples));
    format!(
        "{} of {} posts became examples, at or above {threshold} engagement{aside}; left out: {left_out}",
        counts.examples, counts.posts
    )
}
