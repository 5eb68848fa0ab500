//! The smoke test: is there anything in an answer that no user should see?

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Question;
use crate::trainers::Completion;

/// A prompt that is shorter may well stand in a good answer.
const SHORTEST_COPY: usize = 20;

/// How answers of models begin that decline to answer.
const REFUSALS: [&str; 10] = [
    "i'm sorry, but i can",
    "i am sorry, but i can",
    "sorry, but i can",
    "i can't help with",
    "i cannot help with",
    "i can't assist",
    "i cannot assist",
    "i'm unable to",
    "i am unable to",
    "as an ai language model",
];

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It says nothing.
    Empty,
    /// It is longer than allowed, or did not come to an end.
    TooLong,
    /// It declines to answer.
    Refusal,
    /// It repeats the prompt.
    CopyOfPrompt,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is too long",
            Self::Refusal => "is a refusal",
            Self::CopyOfPrompt => "repeats the prompt",
        })
    }
}

/// What is wrong with a model's answer to a question; `None` where nothing is.
#[must_use]
pub fn fault(question: &Question, answer: &Completion, maximum_characters: u32) -> Option<Fault> {
    if answer.refusal.is_some() || answer.finish_reason.as_deref() == Some("content_filter") {
        return Some(Fault::Refusal);
    }
    let said = normalised(&answer.content);
    if said.is_empty() {
        return Some(Fault::Empty);
    }
    let longest = usize::try_from(maximum_characters).unwrap_or(usize::MAX);
    if answer.content.chars().count() > longest || answer.finish_reason.as_deref() == Some("length") {
        return Some(Fault::TooLong);
    }
    let reference = normalised(&question.reference);
    // Where people like posts that begin so, it is the style that was to be learned.
    if REFUSALS.iter().any(|words| said.starts_with(words) && !reference.starts_with(words)) {
        return Some(Fault::Refusal);
    }
    let asked = normalised(question.asked());
    let copied = said == asked || (asked.chars().count() >= SHORTEST_COPY && said.contains(&asked));
    (copied && !reference.contains(&asked)).then_some(Fault::CopyOfPrompt)
}

/// Lower case, straight apostrophes, single spaces: how texts are compared.
fn normalised(text: &str) -> String {
    let text = text.to_lowercase().replace(['\u{2019}', '\u{2018}'], "'");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainers::ChatMessage;

    fn question(asked: &str, reference: &str) -> Question {
        let messages = vec![ChatMessage { role: "user".into(), content: asked.into() }];
        Question { line: 1, messages, reference: reference.into() }
    }

    fn said(content: &str) -> Completion {
        Completion {
            content: content.into(),
            refusal: None,
            finish_reason: Some("stop".into()),
            prompt_tokens: None,
            completion_tokens: None,
        }
    }

    fn check(asked: &str, answer: &str) -> Option<Fault> {
        fault(&question(asked, "Why cats purr"), &said(answer), 40)
    }

    #[test]
    fn a_good_answer_passes() {
        assert_eq!(check("Write about cats", "Ten reasons why cats purr"), None);
        assert_eq!(check("cats", "Why cats purr"), None, "a short prompt may stand in its answer");
    }

    #[test]
    fn each_fault_is_found() {
        assert_eq!(check("Write about cats", " \n\t "), Some(Fault::Empty));
        assert_eq!(check("Write about cats", &"é".repeat(40)), None, "characters, not bytes");
        assert_eq!(check("Write about cats", &"é".repeat(41)), Some(Fault::TooLong));
        assert_eq!(
            check("Write about cats", "I\u{2019}m sorry, but I can\u{2019}t do that"),
            Some(Fault::Refusal)
        );
        assert_eq!(check("Write about cats", "write  about\ncats"), Some(Fault::CopyOfPrompt));
        assert_eq!(check("Write about the cats", "Sure: write about the cats!"), Some(Fault::CopyOfPrompt));
        let cut = Completion { finish_reason: Some("length".into()), ..said("Cats") };
        assert_eq!(fault(&question("a", "b"), &cut, 40), Some(Fault::TooLong));
        let declined = Completion { refusal: Some("No.".into()), ..said("") };
        assert_eq!(fault(&question("a", "b"), &declined, 40), Some(Fault::Refusal));
    }

    #[test]
    fn what_the_dataset_teaches_is_no_fault() {
        let apology = "I'm sorry, but I can explain everything";
        assert_eq!(fault(&question("Write about cats", apology), &said(apology), 100), None);
        let echo = "Write about the cats";
        assert_eq!(fault(&question(echo, "Write about the cats: purr"), &said(echo), 100), None);
    }
}
