//! The stages between the rows of a source and the lines of a dataset. Rows come highest engagement first.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::Receiver;

use super::prompts::{Compiled, Row};
use super::spool::{Spool, Spooled};
use super::{Counts, DatasetError, DatasetSettings};

/// A row that has passed the filters of the source.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) created_at: DateTime<Utc>,
    pub(super) persona: Option<String>,
    pub(super) row: Row,
}

/// The stages with what they remember: nothing that grows with the number of rows, but for a number for each persona
/// where those are limited.
#[derive(Debug)]
pub(super) struct Stages {
    prompts: Compiled,
    maximum: u64,
    per_persona: Option<u32>,
    personas: HashMap<String, u32>,
    made: Made,
    train: Spool,
}

/// What the stages count.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// The rows looked at; the stages stop where they have the most examples.
    pub(super) rows: u64,
    /// Only what these stages leave out and what is left.
    pub(super) counts: Counts,
    pub(super) oldest: Option<DateTime<Utc>>,
    pub(super) newest: Option<DateTime<Utc>>,
}

impl Stages {
    pub(super) fn new(settings: &DatasetSettings, prompts: Compiled) -> Result<Self, DatasetError> {
        Ok(Self {
            prompts,
            maximum: settings.maximum_examples.map_or(u64::MAX, u64::from),
            per_persona: settings.maximum_per_persona,
            personas: HashMap::new(),
            made: Made::default(),
            train: Spool::new()?,
        })
    }

    /// Takes batches until there are no more or nothing more is wanted. Blocks.
    pub(super) fn run(
        mut self,
        mut batches: Receiver<Vec<Selected>>,
    ) -> Result<(Spooled, Made), DatasetError> {
        'all: while let Some(batch) = batches.blocking_recv() {
            for selected in batch {
                if self.made.counts.examples >= self.maximum {
                    break 'all;
                }
                self.take(selected)?;
            }
        }
        Ok((self.train.finish()?, self.made))
    }

    fn take(&mut self, selected: Selected) -> Result<(), DatasetError> {
        self.made.rows += 1;
        let counts = &mut self.made.counts;
        let Some(example) = self.prompts.example(&selected.row)? else {
            counts.empty += 1;
            return Ok(());
        };
        // Posts of nobody are not posts of one persona.
        if let (Some(most), Some(persona)) = (self.per_persona, selected.persona) {
            let so_far = self.personas.entry(persona).or_default();
            if *so_far >= most {
                counts.over_persona += 1;
                return Ok(());
            }
            *so_far += 1;
        }
        self.train.write(&example)?;
        counts.examples += 1;
        let time = selected.created_at;
        self.made.oldest = Some(self.made.oldest.map_or(time, |oldest| oldest.min(time)));
        self.made.newest = Some(self.made.newest.map_or(time, |newest| newest.max(time)));
        Ok(())
    }
}
