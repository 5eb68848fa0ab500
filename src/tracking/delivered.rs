//! What MLflow has of a run or version, as far as its answers tell: what is left is sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{Input, Point, RunRecord, VersionRecord};

/// What was delivered of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Delivered {
    /// Names of parameters; their values never change.
    pub(super) params: BTreeSet<String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) metrics: BTreeMap<String, Sent>,
    /// Contexts and digests.
    pub(super) inputs: BTreeSet<String>,
    /// SHA-256 by name.
    pub(super) artifacts: BTreeMap<String, String>,
    /// Why artifacts could not be stored.
    pub(super) artifacts_note: Option<String>,
    pub(super) status: Option<(String, Option<i64>)>,
}

/// How many points of a metric were sent, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    count: usize,
    digest: String,
}

impl Sent {
    pub(super) fn of(points: &[Point]) -> Self {
        let mut digest = Sha256::new();
        for point in points {
            digest.update(point.step.to_be_bytes());
            digest.update(point.at.to_be_bytes());
            digest.update(point.value.to_bits().to_be_bytes());
        }
        Self { count: points.len(), digest: hex::encode(digest.finalize()) }
    }

    /// The points that are still to be sent: those at the end, or all where one before was filled in later. MLflow keeps one of
    /// what it is sent twice.
    fn left<'a>(&self, points: &'a [Point]) -> &'a [Point] {
        match points.split_at_checked(self.count) {
            Some((sent, left)) if Self::of(sent) == *self => left,
            _ => points,
        }
    }
}

impl Delivered {
    pub(super) fn params_left<'a>(&self, record: &'a RunRecord) -> Vec<(&'a str, &'a str)> {
        let left = record.params.iter().filter(|(name, _)| !self.params.contains(*name));
        left.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    pub(super) fn inputs_left<'a>(&self, record: &'a RunRecord) -> Vec<&'a Input> {
        record.inputs.iter().filter(|input| !self.inputs.contains(&input.key())).collect()
    }

    pub(super) fn metrics_left<'a>(&self, record: &'a RunRecord) -> Vec<(&'a str, &'a Point)> {
        let left = |(key, points): (&'a String, &'a Vec<Point>)| {
            let left = self.metrics.get(key).map_or(points.as_slice(), |sent| sent.left(points));
            left.iter().map(|point| (key.as_str(), point)).collect::<Vec<_>>()
        };
        record.metrics.iter().flat_map(left).collect()
    }

    pub(super) fn artifacts_left<'a>(&self, record: &'a RunRecord) -> Vec<(&'static str, &'a [u8])> {
        let left = record.artifacts.iter().filter(|(name, content)| {
            self.artifacts.get(**name).is_none_or(|digest| *digest != digest_of(content))
        });
        left.map(|(name, content)| (*name, content.as_slice())).collect()
    }

    /// Tags whose values differ; one that is no longer told becomes empty.
    pub(super) fn tags_left(&self, record: &RunRecord) -> Vec<(String, String)> {
        let mut wanted = record.tags.clone();
        if let Some(note) = &self.artifacts_note {
            wanted.insert("tuneloop.artifacts".to_owned(), note.clone());
        }
        tags_left(&self.tags, &wanted)
    }

    pub(super) fn status_left(&self, record: &RunRecord) -> bool {
        let (status, end_time) = (record.status.to_owned(), record.end_time);
        self.status.as_ref() != Some(&(status, end_time))
    }

    /// Whether MLflow has all of it.
    pub(super) fn is_all_of(&self, record: &RunRecord) -> bool {
        self.params_left(record).is_empty()
            && self.inputs_left(record).is_empty()
            && self.metrics_left(record).is_empty()
            && self.artifacts_left(record).is_empty()
            && self.tags_left(record).is_empty()
            && !self.status_left(record)
    }
}

/// What was delivered of a version.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DeliveredVersion {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) description: String,
}

impl DeliveredVersion {
    pub(super) fn tags_left(&self, record: &VersionRecord) -> Vec<(String, String)> {
        tags_left(&self.tags, &record.tags)
    }
}

fn tags_left(had: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let changed = wanted.iter().filter(|(name, value)| had.get(*name) != Some(*value));
    let changed = changed.map(|(name, value)| (name.clone(), value.clone()));
    let over = had.iter().filter(|(name, value)| !value.is_empty() && !wanted.contains_key(*name));
    changed.chain(over.map(|(name, _)| (name.clone(), String::new()))).collect()
}

pub(super) fn digest_of(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        let point = |(step, value): (i64, &f64)| Point { step, at: 1_000 * step, value: *value };
        (1..).zip(values).map(point).collect()
    }

    #[test]
    fn a_curve_that_grows_is_sent_from_where_it_was() {
        let sent = Sent::of(&points(&[3.0, 2.0]));
        assert_eq!(sent.left(&points(&[3.0, 2.0])), []);
        assert_eq!(sent.left(&points(&[3.0, 2.0, 1.0])), &points(&[3.0, 2.0, 1.0])[2..]);
    }

    #[test]
    fn a_curve_that_was_filled_in_before_its_end_is_sent_whole() {
        let sent = Sent::of(&points(&[3.0, 2.0]));
        let filled = points(&[3.0, 2.5, 2.0]);
        assert_eq!(sent.left(&filled), filled);
        assert_eq!(sent.left(&filled[..1]), &filled[..1]);
    }

    #[test]
    fn a_tag_that_is_no_longer_told_becomes_empty_once() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let had: BTreeMap<_, _> = map(&[("same", "1"), ("old", "1"), ("gone", "1"), ("empty", "")]);
        let wanted: BTreeMap<_, _> = map(&[("same", "1"), ("old", "2"), ("new", "3")]);
        let left: BTreeMap<_, _> = tags_left(&had, &wanted).into_iter().collect();
        assert_eq!(left, map(&[("old", "2"), ("new", "3"), ("gone", "")]));
    }
}
