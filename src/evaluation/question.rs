//! An example of the dataset as a question to a model.

use serde::Deserialize;
use thiserror::Error;

use crate::trainers::{ChatMessage, CompletionRequest};

/// What a model is asked, and what people liked as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its line in the dataset, from 1.
    pub line: i64,
    /// The conversation up to the answer.
    pub messages: Vec<ChatMessage>,
    /// The answer in the dataset.
    pub reference: String,
}

/// A line that is no example. Lines are checked before they are trained on, so this means that the data was altered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of the dataset is no example: {why}")]
pub struct QuestionError {
    line: i64,
    why: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Supervised { messages: Vec<ChatMessage> },
    Preference { input: Input, preferred_output: Vec<ChatMessage> },
}

#[derive(Deserialize)]
struct Input {
    messages: Vec<ChatMessage>,
}

impl Question {
    /// Reads a line of a dataset, of either method.
    pub fn read(line: i64, bytes: &[u8]) -> Result<Self, QuestionError> {
        let refused = |why: String| QuestionError { line, why };
        let (mut messages, preferred) = match serde_json::from_slice(bytes) {
            Ok(Line::Supervised { messages }) => (messages, None),
            Ok(Line::Preference { input, mut preferred_output }) => (input.messages, preferred_output.pop()),
            Err(error) => return Err(refused(error.to_string())),
        };
        let answer = preferred.or_else(|| messages.pop());
        let answer = answer.filter(|answer| answer.role == "assistant");
        let answer = answer.ok_or_else(|| refused("it does not end with an answer".into()))?;
        if messages.is_empty() {
            return Err(refused("it asks nothing".into()));
        }
        Ok(Self { line, messages, reference: answer.content })
    }

    /// The last thing that was asked.
    #[must_use]
    pub fn asked(&self) -> &str {
        self.messages.last().map_or("", |message| &message.content)
    }

    /// The question as it is put to a model.
    #[must_use]
    pub fn ask(&self, model: &str) -> CompletionRequest {
        CompletionRequest {
            model: model.to_owned(),
            messages: self.messages.clone(),
            maximum_tokens: None,
            json: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_methods_lines_are_questions() {
        let supervised = br#"{"messages":[{"role":"system","content":"Be brief"},{"role":"user","content":"Cats?"},{"role":"assistant","content":"Purr"}]}"#;
        let question = Question::read(3, supervised).unwrap();
        assert_eq!((question.line, question.messages.len()), (3, 2));
        assert_eq!((question.asked(), question.reference.as_str()), ("Cats?", "Purr"));

        let preference = br#"{"input":{"messages":[{"role":"user","content":"Cats?"}]},
            "preferred_output":[{"role":"assistant","content":"Purr"}],"non_preferred_output":[{"role":"assistant","content":"No"}]}"#;
        let question = Question::read(1, preference).unwrap();
        assert_eq!((question.asked(), question.reference.as_str()), ("Cats?", "Purr"));
    }

    #[test]
    fn what_is_no_example_is_named_by_its_line() {
        for line in [
            "{}",
            "not JSON",
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"user","content":"Cats?"}]}"#,
            r#"{"messages":[{"role":"assistant","content":"Purr"}]}"#,
        ] {
            let error = Question::read(7, line.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("line 7 of the dataset is no example"), "{error}");
        }
    }
}
