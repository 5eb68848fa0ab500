//! The stages between the rows of a source and the lines of a dataset. Rows come highest engagement first.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::clean::{Cleaner, Findings, NearDuplicatePolicy, Steps};
use super::divide::{Divided, Draft};
use super::duplicates::Duplicates;
use super::near_duplicates::{NearDuplicates, Nearness, Remember};
use super::pairs::PairDraft;
use super::prompts::{Compiled, Row};
use super::split::Split;
use super::{CleaningCounts, Counts, DatasetError, DatasetSettings, Example};

/// Chooses the hash functions that near duplicates are found with.
const SEED: u64 = 0x7475_6e65_6c6f_6f70;

/// A row that has passed the filters of the source.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) created_at: DateTime<Utc>,
    pub(super) persona: Option<String>,
    pub(super) group: Option<String>,
    pub(super) engagement: f64,
    pub(super) row: Row,
}

/// The stages with what they remember: hashes of the examples, and a number for each persona where those are limited.
#[derive(Debug)]
pub(super) struct Stages {
    cleaner: Cleaner,
    prompts: Compiled,
    duplicates: Option<Duplicates>,
    near: Option<NearDuplicates>,
    drop_near: bool,
    maximum: u64,
    per_persona: Option<u32>,
    personas: HashMap<String, u32>,
    made: Made,
    /// Examples that `near` has looked at.
    compared: u32,
    draft: Draft,
    /// In place of the draft, where pairs are made.
    pairs: Option<PairDraft>,
    split: Split,
    set_aside: bool,
}

/// What the stages count.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// The rows looked at; the stages stop where they have the most examples.
    pub(super) rows: u64,
    /// Only what these stages leave out and what is left.
    pub(super) counts: Counts,
    pub(super) cleaning: CleaningCounts,
    pub(super) oldest: Option<DateTime<Utc>>,
    pub(super) newest: Option<DateTime<Utc>>,
}

impl Stages {
    pub(super) fn new(
        settings: &DatasetSettings,
        prompts: Compiled,
        key: &str,
        threshold: f64,
    ) -> Result<Self, DatasetError> {
        let policy = settings.cleaning.near_duplicates;
        let remember = match policy {
            NearDuplicatePolicy::Off => None,
            NearDuplicatePolicy::Report => Some(Remember::All),
            NearDuplicatePolicy::Drop => Some(Remember::New),
        };
        let maximum = settings.maximum_examples.map_or(u64::MAX, u64::from);
        let pairs =
            settings.pairs.as_ref().map(|pairs| PairDraft::new(pairs, threshold, maximum)).transpose()?;
        let split = Split::new(&settings.split, key);
        let set_aside = settings.split.validation_share > 0.0;
        Ok(Self {
            cleaner: Cleaner::new(&settings.cleaning),
            prompts,
            duplicates: settings.cleaning.exact_duplicates.then(Duplicates::new),
            near: remember.map(|remember| NearDuplicates::new(SEED, remember)),
            drop_near: policy == NearDuplicatePolicy::Drop,
            // Which pairs there are is known only when all posts are.
            maximum: if pairs.is_some() { u64::MAX } else { maximum },
            per_persona: settings.maximum_per_persona,
            personas: HashMap::new(),
            made: Made::default(),
            compared: 0,
            draft: Draft::new(split.clone(), set_aside)?,
            pairs,
            split,
            set_aside,
        })
    }

    /// Takes batches until there are no more or nothing more is wanted, then divides what was made. Blocks.
    pub(super) fn run(
        mut self,
        mut batches: Receiver<Vec<Selected>>,
    ) -> Result<(Divided, Made), DatasetError> {
        'all: while let Some(batch) = batches.blocking_recv() {
            for selected in batch {
                if self.made.counts.examples >= self.maximum {
                    break 'all;
                }
                self.take(selected)?;
            }
        }
        if let Some(pairs) = self.pairs {
            // Pairing needs the room.
            drop(self.duplicates);
            let paired = pairs.divide(self.split, self.set_aside, self.near)?;
            self.made.counts.examples = paired.pairs;
            self.made.counts.unpaired = paired.unpaired;
            return Ok((paired.divided, self.made));
        }
        Ok((self.draft.divide(self.near, self.compared)?, self.made))
    }

    fn take(&mut self, mut selected: Selected) -> Result<(), DatasetError> {
        self.made.rows += 1;
        let drop = self.clean(&mut selected.row);
        let example = self.prompts.example(&selected.row)?;
        let counts = &mut self.made.counts;
        let Some(example) = example else {
            counts.empty += 1;
            return Ok(());
        };
        if drop {
            counts.personal_data += 1;
            return Ok(());
        }
        if self.cleaner.too_short(&example.assistant) {
            counts.too_short += 1;
            return Ok(());
        }
        if let Some(duplicates) = &mut self.duplicates
            && !duplicates.first(&example.user, &example.assistant)
        {
            counts.duplicates += 1;
            return Ok(());
        }
        if self.is_near(&example) {
            self.made.cleaning.near_duplicates += 1;
            if self.drop_near {
                self.made.counts.near_duplicates += 1;
                return Ok(());
            }
        }
        if !self.has_place(selected.persona) {
            self.made.counts.over_persona += 1;
            return Ok(());
        }
        let (group, number) = (selected.group.as_deref(), self.compared.saturating_sub(1));
        match &mut self.pairs {
            Some(pairs) => pairs.add(group, selected.engagement, number, &example)?,
            None => self.draft.add(group, number, &example)?,
        }
        self.made.counts.examples += 1;
        let time = selected.created_at;
        self.made.oldest = Some(self.made.oldest.map_or(time, |oldest| oldest.min(time)));
        self.made.newest = Some(self.made.newest.map_or(time, |newest| newest.max(time)));
        Ok(())
    }

    /// Cleans the texts of a row; whether the row is to be left out for what was found.
    fn clean(&mut self, row: &mut Row) -> bool {
        let (mut changed, mut findings, mut drop) = (Steps::default(), Findings::default(), false);
        for value in row.values_mut() {
            each_text(value, &mut |text| {
                let cleaned = self.cleaner.text(text);
                changed = changed | cleaned.changed;
                findings += cleaned.findings;
                drop |= cleaned.drop;
                if let std::borrow::Cow::Owned(clean) = cleaned.text {
                    *text = clean;
                }
            });
        }
        self.made.cleaning.add(changed, findings);
        drop
    }

    fn is_near(&mut self, example: &Example) -> bool {
        let Some(near) = &mut self.near else { return false };
        self.compared += 1;
        near.insert(&example.assistant) != Nearness::New
    }

    /// Whether the persona has fewer examples than it may have; posts of nobody are not posts of one persona.
    fn has_place(&mut self, persona: Option<String>) -> bool {
        let (Some(most), Some(persona)) = (self.per_persona, persona) else { return true };
        let so_far = self.personas.entry(persona).or_default();
        let place = *so_far < most;
        *so_far += u32::from(place);
        place
    }
}

/// Visits the texts of a value, those within arrays and objects too.
fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::dataset::prompts;
    use crate::dataset::spool::Spooled;

    /// The lines of both parts.
    fn made(settings: &DatasetSettings, rows: &[(String, String)]) -> (Vec<String>, Vec<String>, Counts) {
        let mut stages = Stages::new(settings, prompts::compile(settings).unwrap(), "hook", 0.0).unwrap();
        for (input, hook) in rows {
            let row: Row = [("original_input", input), ("hook", hook)]
                .map(|(name, text)| (name.to_owned(), json!(text)))
                .into();
            let persona = Some(input.chars().take(1).collect());
            let selected = Selected {
                created_at: DateTime::UNIX_EPOCH,
                persona: None,
                group: persona,
                engagement: 1.0,
                row,
            };
            stages.take(selected).unwrap();
        }
        let divided = stages.draft.divide(stages.near, stages.compared).unwrap();
        let validation = divided.validation.as_ref().map(lines).unwrap_or_default();
        (lines(&divided.train), validation, stages.made.counts)
    }

    fn lines(spooled: &Spooled) -> Vec<String> {
        let mut file = spooled.file.try_clone().unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    proptest! {
        #[test]
        fn any_rows_make_valid_lines_and_the_same_rows_the_same_lines(
            rows in prop::collection::vec((".{0,8}", "(?s).{0,30}"), 0..40),
        ) {
            let settings = DatasetSettings::default();
            let (train, validation, counts) = made(&settings, &rows);
            prop_assert_eq!(counts.examples, (train.len() + validation.len()) as u64);
            prop_assert_eq!(counts.examples + counts.empty + counts.too_short + counts.duplicates, rows.len() as u64);
            for line in train.iter().chain(&validation) {
                let value: Value = serde_json::from_str(line).unwrap();
                let messages = value["messages"].as_array().unwrap();
                let roles: Vec<&str> = messages.iter().map(|one| one["role"].as_str().unwrap()).collect();
                prop_assert_eq!(roles, ["user", "assistant"]);
                prop_assert!(messages.iter().all(|one| !one["content"].as_str().unwrap().trim().is_empty()));
            }
            prop_assert_eq!(made(&settings, &rows), (train, validation, counts));
        }
    }
}
