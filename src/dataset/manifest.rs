//! What is known of a dataset beside its bytes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;

use super::clean::{Findings, Step, Steps};
use super::split::Grouping;
use super::{DatasetSettings, Snapshot};
use crate::audit::{self, Actor, AuditEvent};

/// The form of manifests that this build writes. 1 had neither query, time range, cleaning nor parts.
pub(super) const SCHEMA_VERSION: u32 = 2;

/// How many posts there were and why some were left out. A post is counted once, at the first stage that leaves it out,
/// in the order of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = DatasetCounts)]
pub struct Counts {
    /// Posts in the source.
    pub posts: u64,
    /// Older than the look-back, or without a time.
    pub too_old: u64,
    /// Younger than the maturity.
    pub too_young: u64,
    /// Seen fewer times than asked for, or without that number.
    pub few_impressions: u64,
    /// Below the engagement threshold or without a rate.
    pub below_threshold: u64,
    /// Without the text the model should learn to write.
    pub empty: u64,
    /// With personal data or secrets, where such examples are dropped.
    pub personal_data: u64,
    /// With fewer characters to learn than asked for.
    pub too_short: u64,
    /// With the prompt and completion of an example with a higher engagement.
    pub duplicates: u64,
    /// Nearly the same as an example with a higher engagement, where such are dropped.
    pub near_duplicates: u64,
    /// Beyond the most examples of one persona.
    pub over_persona: u64,
    /// Beyond the most examples.
    pub over_maximum: u64,
    /// In no pair, where pairs are made: without another answer to the same prompt, or without one that has enough less
    /// engagement. Each pair has two posts.
    pub unpaired: u64,
    /// What is left: the examples, or the pairs.
    pub examples: u64,
}

impl Counts {
    /// The stages that left posts out, with their counts, in words that follow "left out:".
    pub fn left_out(&self) -> impl Iterator<Item = (u64, &'static str)> {
        [
            (self.too_old, "older than the look-back"),
            (self.too_young, "younger than the maturity"),
            (self.few_impressions, "seen too rarely"),
            (self.below_threshold, "below the engagement threshold"),
            (self.empty, "without the text to learn"),
            (self.personal_data, "with personal data"),
            (self.too_short, "too short"),
            (self.duplicates, "said before"),
            (self.near_duplicates, "nearly said before"),
            (self.over_persona, "beyond the most of one persona"),
            (self.over_maximum, "beyond the most examples"),
            (self.unpaired, "in no pair"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
    }
}

/// What cleaning did to the examples that were looked at: in how many of them each step changed something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CleaningCounts {
    /// HTML became text.
    pub html: u64,
    /// Unicode was composed.
    pub unicode: u64,
    /// Control characters were removed.
    pub control_characters: u64,
    /// White space was collapsed.
    pub white_space: u64,
    /// Personal data or secrets were found.
    pub personal_data: u64,
    /// How many of each kind.
    pub findings: Findings,
    /// Nearly the same as an example with a higher engagement, kept or not.
    pub near_duplicates: u64,
}

impl CleaningCounts {
    pub(super) fn add(&mut self, changed: Steps, findings: Findings) {
        for step in changed.iter() {
            let count = match step {
                Step::Html => &mut self.html,
                Step::Unicode => &mut self.unicode,
                Step::ControlCharacters => &mut self.control_characters,
                Step::WhiteSpace => &mut self.white_space,
                Step::PersonalData => &mut self.personal_data,
            };
            *count += 1;
        }
        self.findings += findings;
    }
}

/// The two files of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Parts {
    /// What made examples a group; a group is on one side.
    pub grouping: Grouping,
    /// What the model learns from; names the dataset.
    pub train: Part,
    /// What it is measured on; a dataset of its own, with this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Part>,
}

/// One of a dataset's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// SHA-256 of its bytes: its name.
    pub digest: String,
    /// Its lines.
    pub examples: u64,
    /// Its length.
    pub bytes: u64,
}

/// What is kept of a dataset beside its bytes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// The form of this manifest.
    #[serde(default = "first_version")]
    pub schema_version: u32,
    /// The settings it was made with.
    pub settings: DatasetSettings,
    /// Posts from this time on were looked at.
    pub since: DateTime<Utc>,
    /// Posts up to this time were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// The engagement that posts needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The statement that read the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The values in it, in the order of `$1`, `$2`, …, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<BTreeMap<String, Value>>,
    /// The oldest post that became an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_post: Option<DateTime<Utc>>,
    /// The newest post that became an example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_post: Option<DateTime<Utc>>,
    /// How many posts there were and why some were left out.
    pub counts: Counts,
    /// What cleaning did.
    #[serde(default)]
    pub cleaning: CleaningCounts,
    /// The files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Length of the training examples' JSONL in bytes.
    pub bytes: u64,
}

fn first_version() -> u32 {
    1
}

/// Records a snapshot in the caller's transaction; one that is known already stays as it is.
pub async fn record(conn: &mut PgConnection, pipeline: &str, snapshot: &Snapshot) -> sqlx::Result<()> {
    let manifest =
        serde_json::to_value(&snapshot.manifest).map_err(|error| sqlx::Error::Encode(error.into()))?;
    for part in snapshot.files().map(|file| &file.part) {
        record_part(conn, pipeline, part, &manifest).await?;
    }
    Ok(())
}

async fn record_part(
    conn: &mut PgConnection,
    pipeline: &str,
    part: &Part,
    manifest: &Value,
) -> sqlx::Result<()> {
    let size = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let new = sqlx::query!(
        "INSERT INTO datasets (digest, pipeline, examples, bytes, manifest) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (digest) DO NOTHING",
        part.digest,
        pipeline,
        size(part.examples),
        size(part.bytes),
        manifest,
    )
    .execute(&mut *conn)
    .await?;
    if new.rows_affected() == 0 {
        return Ok(());
    }
    let event = AuditEvent {
        pipeline: Some(pipeline),
        after: Some(json!({"examples": part.examples, "bytes": part.bytes})),
        ..AuditEvent::new(Actor::Worker, "dataset.create", ("dataset", &part.digest))
    };
    audit::record(conn, event).await
}

/// A dataset as it was recorded first.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The pipeline it was made for first.
    pub pipeline: String,
    /// Its lines.
    pub examples: i64,
    /// Its length.
    pub bytes: i64,
    /// What it was made of.
    pub manifest: Manifest,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The dataset of this name.
pub async fn by_digest(db: impl PgExecutor<'_>, digest: &str) -> sqlx::Result<Option<Recorded>> {
    let row = sqlx::query!(
        r#"SELECT pipeline, examples, bytes, manifest AS "manifest: Json<Manifest>", created_at
             FROM datasets WHERE digest = $1"#,
        digest,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Recorded {
        pipeline: row.pipeline,
        examples: row.examples,
        bytes: row.bytes,
        manifest: row.manifest.0,
        created_at: row.created_at,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_of_the_first_form_is_read() {
        let manifest: Manifest = serde_json::from_value(json!({
            "settings": {"template": "hook", "engagement_threshold": 0.06, "lookback_seconds": 1.0, "minimum_examples": 10},
            "since": "2026-01-02T03:04:05Z", "bytes": 7,
            "counts": {"posts": 3, "too_old": 1, "below_threshold": 1, "empty": 0, "examples": 1},
        }))
        .unwrap();
        assert_eq!((manifest.schema_version, manifest.counts.examples, manifest.counts.too_young), (1, 1, 0));
        let said: Vec<_> = manifest.counts.left_out().collect();
        assert_eq!(said, [(1, "older than the look-back"), (1, "below the engagement threshold")]);
    }
}
