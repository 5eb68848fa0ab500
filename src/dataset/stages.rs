//! The stages between prepared rows and the lines of a dataset, each of which depends on the rows before. Rows come highest
//! engagement first.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::Receiver;

use super::clean::NearDuplicatePolicy;
use super::divide::{Divided, Draft};
use super::duplicates::Duplicates;
use super::near_duplicates::{NearDuplicates, Nearness, Remember};
use super::pairs::PairDraft;
use super::prepare::{Context, Outcome, Prepared, Ready};
use super::split::Split;
use super::{CleaningCounts, Counts, DatasetError, DatasetSettings, Example};

/// Chooses the hash functions that near duplicates are found with.
const SEED: u64 = 0x7475_6e65_6c6f_6f70;

/// The stages with what they remember: hashes of the examples, and a number for each persona where those are limited.
#[derive(Debug)]
pub(super) struct Stages {
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
    pub(super) fn new(settings: &DatasetSettings, key: &str, threshold: f64) -> Result<Self, DatasetError> {
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
        mut batches: Receiver<Vec<Result<Prepared, DatasetError>>>,
    ) -> Result<(Divided, Made), DatasetError> {
        'all: while let Some(batch) = batches.blocking_recv() {
            for prepared in batch {
                if self.made.counts.examples >= self.maximum {
                    break 'all;
                }
                self.take(prepared?)?;
            }
        }
        // Whoever reads need not wait until the examples are divided.
        drop(batches);
        if let Some(pairs) = self.pairs {
            // Pairing needs the room.
            drop(self.duplicates);
            let paired = pairs.divide(self.split, self.set_aside, self.near)?;
            self.made.counts.examples = paired.pairs;
            self.made.counts.unpaired = paired.unpaired;
            self.made.counts.over_maximum = paired.over_maximum;
            return Ok((paired.divided, self.made));
        }
        Ok((self.draft.divide(self.near, self.compared)?, self.made))
    }

    fn take(&mut self, prepared: Prepared) -> Result<(), DatasetError> {
        self.made.rows += 1;
        self.made.cleaning.add(prepared.changed, prepared.findings);
        let counts = &mut self.made.counts;
        let left_out = match prepared.outcome {
            Outcome::Ready(ready) => return self.add(ready, prepared.context),
            Outcome::Empty => &mut counts.empty,
            Outcome::PersonalData => &mut counts.personal_data,
            Outcome::TooShort => &mut counts.too_short,
        };
        *left_out += 1;
        Ok(())
    }

    fn add(&mut self, ready: Ready, row: Context) -> Result<(), DatasetError> {
        let Ready { example, ids, key, line } = ready;
        // Before duplicates are looked for: what is left out here must not be the reason for which an equal one is.
        if !self.has_place(row.persona.as_deref()) {
            self.made.counts.over_persona += 1;
            return Ok(());
        }
        if let (Some(duplicates), Some(key)) = (&mut self.duplicates, key)
            && !duplicates.is_first(key)
        {
            self.made.counts.duplicates += 1;
            return Ok(());
        }
        if self.is_near(&example) {
            self.made.cleaning.near_duplicates += 1;
            if self.drop_near {
                self.made.counts.near_duplicates += 1;
                return Ok(());
            }
        }
        let number = self.compared.saturating_sub(1);
        match &mut self.pairs {
            Some(pairs) => pairs.add(row.group.as_deref(), row.engagement, number, &example)?,
            None => self.draft.add(ids, number, &line)?,
        }
        self.made.counts.examples += 1;
        let time = row.created_at;
        self.made.oldest = Some(self.made.oldest.map_or(time, |oldest| oldest.min(time)));
        self.made.newest = Some(self.made.newest.map_or(time, |newest| newest.max(time)));
        self.takes_place(row.persona);
        Ok(())
    }

    fn is_near(&mut self, example: &Example) -> bool {
        let Some(near) = &mut self.near else { return false };
        self.compared += 1;
        near.insert(&example.assistant) != Nearness::New
    }

    /// Whether the persona has fewer examples than it may have; posts of nobody are not posts of one persona.
    fn has_place(&self, persona: Option<&str>) -> bool {
        let (Some(most), Some(persona)) = (self.per_persona, persona) else { return true };
        self.personas.get(persona).is_none_or(|so_far| *so_far < most)
    }

    fn takes_place(&mut self, persona: Option<String>) {
        if let (Some(_), Some(persona)) = (self.per_persona, persona) {
            *self.personas.entry(persona).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::dataset::prepare::{Preparation, Selected};
    use crate::dataset::prompts::{self, Row};
    use crate::dataset::spool::Spooled;

    /// The stages after these rows: input, hook and persona.
    fn staged(settings: &DatasetSettings, rows: &[(&str, &str, Option<&str>)]) -> Stages {
        let preparation = Preparation::new(settings, prompts::compile(settings).unwrap());
        let mut stages = Stages::new(settings, "hook", 0.0).unwrap();
        for (input, hook, persona) in rows {
            let row: Row = [("original_input", input), ("hook", hook)]
                .map(|(name, text)| (name.to_owned(), json!(text)))
                .into();
            let context = Context {
                created_at: DateTime::UNIX_EPOCH,
                persona: persona.map(str::to_owned),
                group: Some(input.chars().take(1).collect()),
                engagement: 1.0,
            };
            stages.take(preparation.prepare(Selected { context, row }).unwrap()).unwrap();
        }
        stages
    }

    /// The lines of both parts.
    fn made(settings: &DatasetSettings, rows: &[(String, String)]) -> (Vec<String>, Vec<String>, Counts) {
        let rows: Vec<_> = rows.iter().map(|(input, hook)| (input.as_str(), hook.as_str(), None)).collect();
        let stages = staged(settings, &rows);
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

    #[test]
    fn a_post_beyond_its_personas_places_does_not_take_the_place_of_anothers() {
        let settings = DatasetSettings { maximum_per_persona: Some(1), ..DatasetSettings::default() };
        let rows = [("a", "one", Some("Ann")), ("b", "two", Some("Ann")), ("b", "two", Some("Bob"))];
        let counts = staged(&settings, &rows).made.counts;
        assert_eq!((counts.examples, counts.over_persona, counts.duplicates), (2, 1, 0));
        // And a duplicate takes none.
        let rows = [("a", "one", Some("Ann")), ("a", "one", Some("Bob")), ("b", "two", Some("Bob"))];
        let counts = staged(&settings, &rows).made.counts;
        assert_eq!((counts.examples, counts.over_persona, counts.duplicates), (2, 0, 1));
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
