//! What is published of a traffic revision: the live model's id, and the document from which assignments are computed.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::PublishError;
use crate::traffic::{Revision, Share};

/// A revision in the form in which applications read it. The same revision always has the same bytes, so that what
/// stands at a place can be compared with what should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) pipeline: String,
    pub(super) revision: i64,
    /// What applications call at the provider when nothing is under test.
    pub(super) model_id: String,
    /// The traffic as JSON.
    pub(super) document: String,
}

/// The members have the names and meanings of `GET /v1/pipelines/{pipeline}/traffic`, as far as both have them.
#[derive(Serialize)]
struct Document<'a> {
    pipeline: &'a str,
    revision: i64,
    live: String,
    model_id: &'a str,
    weights: Vec<Part<'a>>,
    kill_switch: bool,
    salt: &'a str,
    experiment_id: Option<Uuid>,
    decision_id: Option<Uuid>,
    created_at: String,
}

#[derive(Serialize)]
struct Part<'a> {
    version: String,
    model_id: &'a str,
    weight: i32,
}

impl Payload {
    pub(super) fn new(revision: &Revision) -> Result<Self, PublishError> {
        let live = revision.live().ok_or_else(|| {
            PublishError::failed("the traffic has no live version; promote one, and it is published")
        })?;
        let document = Document {
            pipeline: &revision.pipeline,
            revision: revision.revision,
            live: live.version.to_string(),
            model_id: &live.provider_model_id,
            weights: revision.shares.iter().map(Part::from).collect(),
            kill_switch: revision.kill_switch,
            salt: &revision.salt,
            experiment_id: revision.experiment_id,
            decision_id: revision.decision_id,
            created_at: rfc3339(revision.created_at),
        };
        let mut text = serde_json::to_string_pretty(&document).map_err(|error| {
            PublishError::failed(format!("the traffic cannot be written as JSON: {error}"))
        })?;
        text.push('\n');
        Ok(Self {
            pipeline: revision.pipeline.clone(),
            revision: revision.revision,
            model_id: live.provider_model_id.clone(),
            document: text,
        })
    }

    /// Where the document stands alone.
    pub(super) fn alone(&self) -> Content {
        Content::alone(self.document.clone())
    }
}

impl<'a> From<&'a Share> for Part<'a> {
    fn from(share: &'a Share) -> Self {
        Self { version: share.version.to_string(), model_id: &share.provider_model_id, weight: share.weight }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What stands at a place: the keys of a ConfigMap that are ours, or one document without a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content(pub(super) BTreeMap<String, String>);

/// As much of a document as says whose it is.
#[derive(Deserialize)]
struct Label {
    pipeline: String,
    revision: i64,
}

impl Content {
    pub(super) fn alone(document: String) -> Self {
        Self(BTreeMap::from([(String::new(), document)]))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The document, if it stands here alone.
    pub(super) fn document(&self) -> Option<&str> {
        self.0.get("").map(String::as_str)
    }

    /// SHA-256 in hexadecimal.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (key, value) in &self.0 {
            for part in [key, value] {
                // With its length, so that nothing can move from one part to the next.
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex::encode(hash.finalize())
    }

    /// The pipeline and the revision of the document, where there is one that can be read.
    pub(super) fn label(&self) -> Option<(String, i64)> {
        let label = |text: &String| serde_json::from_str::<Label>(text).ok();
        self.0.values().find_map(label).map(|label| (label.pipeline, label.revision))
    }

    /// In words, how this differs from what was wanted.
    pub(super) fn difference(&self, wanted: &Self) -> String {
        if self.is_empty() {
            return "it was deleted".into();
        }
        let differs = wanted.0.iter().filter_map(|(key, value)| match (key.as_str(), self.0.get(key)) {
            (_, Some(found)) if found == value => None,
            ("", _) => Some(match self.label() {
                Some((pipeline, revision)) => {
                    format!(
                        "its content is not that of the revision published: it says {pipeline} {revision}"
                    )
                }
                None => "its content is no traffic document of tuneloop".into(),
            }),
            (key, None) => Some(format!("the key {key} is missing")),
            (key, Some(found)) if found.len() <= 100 && !found.contains('\n') => {
                Some(format!("{key} is {found:?} and should be {value:?}"))
            }
            (key, Some(_)) => Some(format!("{key} was changed")),
        });
        differs.collect::<Vec<_>>().join(", and ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Version, VersionStatus};
    use crate::traffic::RevisionKind;
    use crate::traffic::assignment::{bucket, share_of};

    fn revision() -> Revision {
        let share = |minor: i32, weight| Share {
            model_version_id: Uuid::from_u128(u128::from(minor.unsigned_abs())),
            version: Version { major: 1, minor, patch: 0 },
            status: VersionStatus::Live,
            provider_model_id: format!("ft:model-{minor}"),
            weight,
        };
        Revision {
            pipeline: "hook".into(),
            revision: 12,
            live_version_id: Uuid::from_u128(3),
            salt: "salt".into(),
            experiment_id: Some(Uuid::from_u128(9)),
            decision_id: None,
            forced: false,
            kind: RevisionKind::Ramp,
            reason: String::new(),
            actor: String::new(),
            created_at: DateTime::UNIX_EPOCH,
            shares: vec![share(4, 1_000), share(3, 9_000)],
            kill_switch: false,
            withheld: Vec::new(),
        }
    }

    #[test]
    fn an_application_computes_assignments_from_the_document_alone() {
        let payload = Payload::new(&revision()).unwrap();
        assert_eq!((payload.model_id.as_str(), payload.revision), ("ft:model-3", 12));
        let document: serde_json::Value = serde_json::from_str(&payload.document).unwrap();
        assert_eq!((&document["live"], &document["model_id"]), (&"1.3.0".into(), &"ft:model-3".into()));
        let weights = document["weights"].as_array().unwrap();
        for unit in ["a", "b", "persona-17"] {
            let ours = share_of(bucket("salt", unit), [1_000, 9_000]).unwrap();
            let read = weights.iter().map(|share| i32::try_from(share["weight"].as_i64().unwrap()).unwrap());
            let theirs = share_of(bucket(document["salt"].as_str().unwrap(), unit), read).unwrap();
            assert_eq!(weights[theirs]["version"], format!("1.{}.0", [4, 3][ours]));
        }
        assert_eq!(payload, Payload::new(&revision()).unwrap());
    }

    #[test]
    fn a_revision_without_a_live_version_is_not_published() {
        let revision = Revision { live_version_id: Uuid::nil(), ..revision() };
        assert!(Payload::new(&revision).unwrap_err().to_string().contains("no live version"));
    }

    #[test]
    fn digests_tell_contents_apart_and_differences_are_told_in_words() {
        let content = |pairs: &[(&str, &str)]| {
            Content(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_ne!(content(&[("ab", "c")]).digest(), content(&[("a", "bc")]).digest());
        let wanted = content(&[("HOOK_MODEL", "new"), ("hook.traffic.json", "{}")]);
        let said = content(&[("HOOK_MODEL", "old")]).difference(&wanted);
        assert_eq!(
            said,
            "HOOK_MODEL is \"old\" and should be \"new\", and the key hook.traffic.json is missing"
        );
        assert_eq!(Content::default().difference(&wanted), "it was deleted");
        let alone = Payload::new(&revision()).unwrap().alone();
        assert_eq!(alone.label(), Some(("hook".to_owned(), 12)));
    }
}
