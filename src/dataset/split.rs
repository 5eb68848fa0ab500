//! Divides examples into those to train on and those to validate with, by group.
//!
//! The side of a group is a matter of its name and the key alone, so it stays from run to run, whatever the
//! order and whatever rows come or go:
//!
//! ```text
//! id       = first 16 bytes of SHA-256(kind, 0, name)            kind: "group" or "prompt"
//! fraction = first 53 bits of SHA-256(length of key as u64, key, id) / 2^53
//! side     = validation where fraction < validation share
//! ```

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::duplicates::{normalised, prefix};
use super::union_find::UnionFind;

/// With fewer groups one of them would make too much of a difference, so examples are grouped by their prompt.
pub const MINIMUM_GROUPS: usize = 20;

/// How the validation set is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSettings {
    /// The share of groups that validate, from 0 (none) to 0.5.
    #[schema(minimum = 0, maximum = 0.5)]
    pub validation_share: f64,
}

impl Default for SplitSettings {
    fn default() -> Self {
        Self { validation_share: 0.1 }
    }
}

impl SplitSettings {
    /// Whether the share is one that can be used.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (0.0..=0.5).contains(&self.validation_share)
    }
}

/// The two parts of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What the model learns from.
    Train,
    /// What it is measured on.
    Validation,
}

/// A group's name as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub(super) [u8; 16]);

impl GroupId {
    fn new(kind: &str, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind);
        hash.update([0]);
        hash.update(name);
        Self(prefix(&hash.finalize()))
    }
}

/// What an example may be grouped by.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupIds {
    /// By the group it has, if any.
    pub(super) group: Option<GroupId>,
    /// By its prompt.
    pub(super) prompt: GroupId,
}

/// What makes examples a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// The value of the group column, or the persona.
    Group,
    /// The normalised prompt.
    Prompt,
}

impl Grouping {
    /// The groups of an example, one for each way to group, where its prompt is [`normalised`].
    pub(super) fn ids(group: Option<&str>, prompt: &str) -> GroupIds {
        let group = group.filter(|group| !group.is_empty()).map(|group| GroupId::new("group", group));
        GroupIds { group, prompt: GroupId::new("prompt", prompt) }
    }

    /// The group of an example. One without a value for its group is grouped by its prompt.
    #[must_use]
    pub fn id(self, group: Option<&str>, prompt: &str) -> GroupId {
        match (self, group.filter(|group| !group.is_empty())) {
            (Self::Group, Some(group)) => GroupId::new("group", group),
            _ => GroupId::new("prompt", &normalised(prompt)),
        }
    }
}

/// Counts groups, as far as the choice of a grouping needs.
#[derive(Debug, Default)]
pub struct GroupCount {
    ids: HashSet<GroupId>,
}

impl GroupCount {
    /// Counts an example's group.
    pub fn add(&mut self, group: Option<&str>) {
        if let Some(group) = group.filter(|group| !group.is_empty())
            && self.ids.len() < MINIMUM_GROUPS
        {
            self.ids.insert(GroupId::new("group", group));
        }
    }

    /// Counts a group whose id is known.
    pub(super) fn add_id(&mut self, group: GroupId) {
        if self.ids.len() < MINIMUM_GROUPS {
            self.ids.insert(group);
        }
    }

    /// By group where there are enough of them, else by prompt.
    #[must_use]
    pub fn grouping(&self) -> Grouping {
        if self.ids.len() < MINIMUM_GROUPS { Grouping::Prompt } else { Grouping::Group }
    }

    /// The sentence for the report where the grouping is not the one that was asked for.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let groups = self.ids.len();
        (self.grouping() == Grouping::Prompt).then(|| {
            format!(
                "there are {groups} groups, fewer than {MINIMUM_GROUPS}: the validation set is chosen by prompt \
                 instead"
            )
        })
    }
}

/// Chooses sides.
#[derive(Debug, Clone)]
pub struct Split {
    key: String,
    validation_share: f64,
}

impl Split {
    /// A split with a key, such as the pipeline's name: another key chooses other groups.
    #[must_use]
    pub fn new(settings: &SplitSettings, key: &str) -> Self {
        Self { key: key.to_owned(), validation_share: settings.validation_share }
    }

    /// The share of the groups that is set aside.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.validation_share
    }

    /// The side of a group.
    #[must_use]
    pub fn side(&self, group: GroupId) -> Side {
        let mut hash = Sha256::new();
        hash.update((self.key.len() as u64).to_be_bytes());
        hash.update(&self.key);
        hash.update(group.0);
        let digest = hash.finalize();
        let bits = digest.iter().take(8).fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte)) >> 11;
        let fraction = bits as f64 / (1_u64 << 53) as f64;
        if fraction < self.validation_share { Side::Validation } else { Side::Train }
    }
}

/// Groups that near duplicates tie together, so that none of their clusters stands on both sides. Takes 4 bytes
/// for each example and about 50 for each group.
///
/// Tied groups are named by the smallest of their ids: an untied group keeps its side, and tied ones have that
/// of one of them.
#[derive(Debug, Default)]
pub struct TiedGroups {
    examples: Vec<u32>,
    numbers: HashMap<GroupId, u32>,
    /// The smallest id of each set, at the place of its root.
    smallest: Vec<GroupId>,
    sets: UnionFind,
}

impl TiedGroups {
    /// Adds the next example. They are numbered from 0 in the order of these calls.
    pub fn add(&mut self, group: GroupId) {
        let number = *self.numbers.entry(group).or_insert_with(|| {
            self.smallest.push(group);
            self.sets.add()
        });
        self.examples.push(number);
    }

    /// Ties the groups of two examples.
    pub fn tie(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(child) = self.sets.join(one, other) {
            let root = self.sets.root(child) as usize;
            self.smallest[root] = self.smallest[root].min(self.smallest[child as usize]);
        }
    }

    /// The id that decides the side of an example.
    pub fn id(&mut self, example: u32) -> GroupId {
        let root = self.root(example);
        self.smallest[root as usize]
    }

    fn root(&mut self, example: u32) -> u32 {
        self.sets.root(self.examples[example as usize])
    }
}

#[cfg(test)]
mod tests;
