//! Examining lines of a part, in chunks that do not depend on one another.

use serde::Deserialize;

use super::distribution::Tally;
use super::report::FoundFault;
use super::tokens::Tokens;
use crate::trainers::{ChatMessage, DataRules, Method};

/// Faults that are told; the rest is counted.
pub(super) const TOLD_FAULTS: usize = 100;
/// Lines over the limit that are told.
const TOLD_LINES: usize = 10;

/// What lines are examined by.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// `None` where nobody here knows the provider's.
    pub(super) data: Option<DataRules>,
    pub(super) method: Method,
    pub(super) tokens: Tokens,
    /// The most tokens of an example, where known.
    pub(super) limit: Option<u64>,
    pub(super) part: &'static str,
}

/// What was found in some lines.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) characters: Tally,
    pub(super) tokens: Tally,
    pub(super) over_limit: Vec<u64>,
    pub(super) fault_count: u64,
    pub(super) faults: Vec<FoundFault>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Supervised { messages: Vec<ChatMessage> },
    Preference { input: Input, preferred_output: Vec<ChatMessage>, non_preferred_output: Vec<ChatMessage> },
}

#[derive(Deserialize)]
struct Input {
    messages: Vec<ChatMessage>,
}

impl Findings {
    /// Examines whole lines, of which the first is line `number` of its part. A pair has the tokens of its prompt and of both answers:
    /// all of them are read in training.
    pub(super) fn of(chunk: &[u8], mut number: u64, rules: &Rules) -> Self {
        let mut found = Self::default();
        for line in chunk.strip_suffix(b"\n").unwrap_or(chunk).split(|byte| *byte == b'\n') {
            found.examine(line, number, rules);
            number += 1;
        }
        found
    }

    fn examine(&mut self, line: &[u8], number: u64, rules: &Rules) {
        let faults = rules.data.map(|data| data.check_line(rules.method, line));
        for fault in faults.into_iter().flatten() {
            self.fault_count += 1;
            if self.faults.len() < TOLD_FAULTS {
                self.faults.push(FoundFault {
                    part: rules.part.to_owned(),
                    line: number,
                    field: fault.field,
                    message: fault.message,
                });
            }
        }
        // What cannot be read as an example is among the faults.
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return };
        let messages = match line {
            Line::Supervised { messages } => messages,
            Line::Preference { input, preferred_output, non_preferred_output } => {
                [input.messages, preferred_output, non_preferred_output].concat()
            }
        };
        let texts = || messages.iter().map(|message| message.content.as_str());
        self.characters.add(texts().map(|text| text.chars().count() as u64).sum());
        let pairs = messages.iter().map(|message| (message.role.as_str(), message.content.as_str()));
        let tokens = rules.tokens.of_messages(pairs) as u64;
        self.tokens.add(tokens);
        if rules.limit.is_some_and(|limit| tokens > limit) && self.over_limit.len() < TOLD_LINES {
            self.over_limit.push(number);
        }
    }

    /// Adds what was found in the lines behind.
    pub(super) fn merge(&mut self, behind: Self) {
        self.characters.merge(behind.characters);
        self.tokens.merge(behind.tokens);
        self.over_limit.extend(behind.over_limit);
        self.over_limit.truncate(TOLD_LINES);
        self.fault_count += behind.fault_count;
        self.faults.extend(behind.faults);
        self.faults.truncate(TOLD_FAULTS);
    }
}
