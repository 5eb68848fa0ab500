//! What can be done with a row alone, whatever rows came before: cleaning, the example, its line and its hashes. So several
//! batches of rows are prepared at once.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::clean::{Cleaner, Findings, Steps};
use super::duplicates::{Key, normalised};
use super::prompts::{Compiled, Row};
use super::split::{GroupIds, Grouping};
use super::{DatasetSettings, Example, RowFault};

/// A row that has passed the filters of the source.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) context: Context,
    pub(super) row: Row,
}

/// What is known of a row beside what its templates say.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) created_at: DateTime<Utc>,
    pub(super) persona: Option<String>,
    pub(super) group: Option<String>,
    pub(super) engagement: f64,
}

/// Makes rows ready for the stages.
#[derive(Debug)]
pub(super) struct Preparation {
    cleaner: Cleaner,
    prompts: Compiled,
    keys: bool,
    lines: bool,
}

/// What became of a row.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) context: Context,
    pub(super) changed: Steps,
    pub(super) findings: Findings,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Ready(Ready),
    Empty,
    PersonalData,
    TooShort,
}

/// An example, and what the stages ask of it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) example: Example,
    pub(super) ids: GroupIds,
    /// Where duplicates are left out.
    pub(super) key: Option<Key>,
    /// Empty where pairs are made, whose lines have two examples.
    pub(super) line: Vec<u8>,
}

impl Preparation {
    pub(super) fn new(settings: &DatasetSettings, prompts: Compiled) -> Self {
        Self {
            cleaner: Cleaner::new(&settings.cleaning),
            prompts,
            keys: settings.cleaning.exact_duplicates,
            lines: settings.pairs.is_none(),
        }
    }

    pub(super) fn prepare(&self, selected: Selected) -> Result<Prepared, RowFault> {
        let Selected { context, mut row } = selected;
        let (mut changed, mut findings, mut drop) = (Steps::default(), Findings::default(), false);
        for value in row.values_mut() {
            each_text(value, &mut |text| {
                let cleaned = self.cleaner.text(text);
                changed = changed | cleaned.changed;
                findings += cleaned.findings;
                drop |= cleaned.drop;
                if let Cow::Owned(clean) = cleaned.text {
                    *text = clean;
                }
            });
        }
        let mut example = self.prompts.example(row)?;
        if let Some(example) = example.as_mut().filter(|_| self.prompts.puts_together()) {
            for text in example.texts_mut() {
                let cleaned = self.cleaner.personal_data(text);
                changed = changed | cleaned.changed;
                findings += cleaned.findings;
                drop |= cleaned.drop;
                if let Cow::Owned(clean) = cleaned.text {
                    *text = clean;
                }
            }
        }
        let outcome = match example {
            None => Outcome::Empty,
            Some(_) if drop => Outcome::PersonalData,
            Some(example) if self.cleaner.too_short(&example.assistant) => Outcome::TooShort,
            Some(example) => Outcome::Ready(self.ready(example, context.group.as_deref())?),
        };
        Ok(Prepared { context, changed, findings, outcome })
    }

    fn ready(&self, example: Example, group: Option<&str>) -> Result<Ready, RowFault> {
        let prompt = normalised(&example.user);
        let key = self.keys.then(|| Key::of(&prompt, &normalised(&example.assistant)));
        let mut line = Vec::new();
        if self.lines {
            line.reserve(example.user.len() + example.assistant.len() + 100);
            example.write(&mut line)?;
        }
        Ok(Ready { ids: Grouping::ids(group, &prompt), example, key, line })
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
