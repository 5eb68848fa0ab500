//! A model version as a version of a registered model.

use std::collections::BTreeMap;

use super::Tags;
use crate::tracking::facts::VersionFacts;

/// What MLflow is to hold of a version.
#[derive(Debug)]
pub(in crate::tracking) struct VersionRecord {
    /// Where the model is: `openai:/<model id>`.
    pub(in crate::tracking) source: String,
    pub(in crate::tracking) description: String,
    pub(in crate::tracking) tags: BTreeMap<String, String>,
}

impl VersionRecord {
    pub(in crate::tracking) fn of(facts: &VersionFacts) -> Self {
        let name = format!("{}@{}", facts.pipeline, facts.version);
        let mut tags = Tags::default();
        tags.set("tuneloop.version_id", &facts.id);
        tags.set("tuneloop.version", &name);
        tags.set("tuneloop.pipeline", &facts.pipeline);
        tags.set("tuneloop.status", &facts.status);
        tags.set("tuneloop.provider", &facts.provider);
        tags.set("tuneloop.model_id", &facts.provider_model_id);
        tags.set("tuneloop.base_model", &facts.base_model);
        tags.set("tuneloop.created_at", &facts.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        tags.set_known("tuneloop.run_id", facts.run_id);
        tags.set_known("tuneloop.training_id", facts.training_id);
        tags.set_known("tuneloop.dataset_digest", facts.dataset_digest.as_ref());
        tags.set_known("tuneloop.parent", facts.parent.as_ref());
        for figure in ["final_loss", "validation_loss", "quality", "trained_tokens"] {
            tags.set_known(&format!("tuneloop.{figure}"), facts.metrics.get(figure).filter(|v| !v.is_null()));
        }
        Self {
            source: source(&facts.provider, &facts.provider_model_id),
            description: description(facts, &name),
            tags: tags.0,
        }
    }
}

/// MLflow wants an address with a scheme, whose name holds no underscore.
fn source(provider: &str, model: &str) -> String {
    format!("{}:/{model}", provider.replace('_', "-"))
}

fn description(facts: &VersionFacts, name: &str) -> String {
    let VersionFacts { provider, provider_model_id, base_model, .. } = facts;
    match &facts.dataset_digest {
        Some(digest) => {
            let short = digest.get(..12).unwrap_or(digest);
            format!("{name}: {provider_model_id} at {provider}, trained from {base_model} on dataset {short}")
        }
        None => format!("{name}: {provider_model_id} at {provider}, not trained by tuneloop"),
    }
}
