//! What a run and a model version look like in MLflow: pure, from what the database holds.

mod run;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;

use serde_json::Value;

pub(super) use run::RunRecord;
pub(super) use version::VersionRecord;

/// One point of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) step: i64,
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) value: f64,
}

/// What a run has read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    pub(super) name: String,
    /// SHA-256, whole.
    pub(super) digest: String,
    /// `training` or `validation`.
    pub(super) context: &'static str,
    pub(super) profile: Value,
}

impl Input {
    /// MLflow takes 36 characters; the whole digest stands in the source and in a tag.
    pub(super) fn short_digest(&self) -> &str {
        self.digest.get(..32).unwrap_or(&self.digest)
    }

    /// What tells it from the other inputs of the run.
    pub(super) fn key(&self) -> String {
        format!("{} {}", self.context, self.digest)
    }
}

/// The name of a pipeline's experiment and of its registered model. A model's name holds neither slash nor colon.
pub(super) fn name_of(pipeline: &str) -> String {
    format!("tuneloop-{pipeline}")
}

/// Collects tags; what is absent is not told.
#[derive(Debug, Default)]
struct Tags(BTreeMap<String, String>);

impl Tags {
    fn set(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        self.0.insert(name.to_owned(), super::flatten::tag(&value.to_string()));
    }

    fn set_known(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, &value);
        }
    }
}
