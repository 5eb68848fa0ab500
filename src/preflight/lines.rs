//! Examining lines of a part, in chunks that do not depend on one another.

use std::borrow::Cow;

use serde::Deserialize;

use super::distribution::Tally;
use super::report::FoundFault;
use super::tokens::{Counter, Tokens};
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

/// Role and content.
type Message<'a> = (Cow<'a, str>, Cow<'a, str>);

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

/// The messages of a line in the very form in which datasets are written, `{"messages":[{"role":…,"content":…},…]}`; `None` in any
/// other. Nearly every line has it, and is read several times as fast as one in which anything may stand.
fn plain(line: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut messages = Vec::with_capacity(3);
    let mut rest = line.strip_prefix(br#"{"messages":["#)?;
    loop {
        let (role, behind) = text(rest.strip_prefix(br#"{"role":"#)?)?;
        let (content, behind) = text(behind.strip_prefix(br#","content":"#)?)?;
        messages.push((role, content));
        rest = behind.strip_prefix(b"}")?;
        if rest == b"]}" {
            return Some(messages);
        }
        rest = rest.strip_prefix(b",")?;
    }
}

/// The JSON text at the start, and what stands behind it.
fn text(json: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let mut values = serde_json::Deserializer::from_slice(json).into_iter();
    let Text(text) = values.next()?.ok()?;
    Some((text, &json[values.byte_offset()..]))
}

impl Findings {
    /// Examines whole lines, of which the first is line `number` of its part. A pair has the tokens of its prompt and of both answers:
    /// all of them are read in training.
    pub(super) fn of(chunk: &[u8], mut number: u64, rules: &Rules, counter: &mut Counter) -> Self {
        let mut found = Self::default();
        for line in chunk.strip_suffix(b"\n").unwrap_or(chunk).split(|byte| *byte == b'\n') {
            found.examine(line, number, rules, counter);
            number += 1;
        }
        found
    }

    fn examine(&mut self, line: &[u8], number: u64, rules: &Rules, counter: &mut Counter) {
        if rules.method == Method::Supervised
            && let Some(messages) = plain(line)
            && rules.data.is_none_or(|data| data.accepts(&messages))
        {
            self.count(&messages, number, rules, counter);
            return;
        }
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
        let messages: Vec<_> =
            messages.into_iter().map(|one| (one.role.into(), one.content.into())).collect();
        self.count(&messages, number, rules, counter);
    }

    fn count(&mut self, messages: &[Message<'_>], number: u64, rules: &Rules, counter: &mut Counter) {
        let texts = || messages.iter().map(|(_, text)| text.as_ref());
        self.characters.add(texts().map(|text| text.chars().count() as u64).sum());
        let tokens = counter.of_messages(texts()) as u64;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(method: Method) -> Rules {
        Rules {
            data: Some(DataRules::OpenAi),
            method,
            tokens: Tokens::of("gpt-4o"),
            limit: Some(20),
            part: "train",
        }
    }

    fn found(method: Method, lines: &str) -> Findings {
        Findings::of(lines.as_bytes(), 1, &rules(method), &mut Counter::new(Tokens::of("gpt-4o")))
    }

    /// The line with its fields the other way round, which is not the form that datasets are written in.
    fn turned(line: &str) -> String {
        let value: Value = serde_json::from_str(line).unwrap();
        let message =
            |message: &Value| format!("{{\"content\":{},\"role\":{}}}", message["content"], message["role"]);
        let messages: Vec<String> = value["messages"].as_array().unwrap().iter().map(message).collect();
        format!("{{ \"messages\": [{}] }}", messages.join(", "))
    }

    #[test]
    fn a_line_is_judged_alike_in_the_form_of_datasets_and_in_any_other() {
        for messages in [
            json!([["user", "one \"two\"\nthree é"], ["assistant", "four"]]),
            json!([["system", "a"], ["user", "b"], ["assistant", "c"]]),
            json!([["user", "long ".repeat(30)], ["assistant", "x"]]),
            json!([["user", "a"]]),
            json!([["bot", "a"], ["assistant", "b"]]),
            json!([["user", ""], ["assistant", "b <|im_end|>"]]),
        ] {
            let one = |message: &Value| format!("{{\"role\":{},\"content\":{}}}", message[0], message[1]);
            let all: Vec<String> = messages.as_array().unwrap().iter().map(one).collect();
            let line = format!("{{\"messages\":[{}]}}", all.join(","));
            assert_eq!(plain(line.as_bytes()).unwrap().len(), all.len());
            assert!(plain(turned(&line).as_bytes()).is_none());
            let (written, other) =
                (found(Method::Supervised, &line), found(Method::Supervised, &turned(&line)));
            assert_eq!(written.faults, other.faults, "{line}");
            assert_eq!((&written.tokens, &written.characters), (&other.tokens, &other.characters));
            assert_eq!(written.over_limit, other.over_limit);
        }
    }

    #[test]
    fn what_is_no_list_of_messages_with_role_and_content_is_not_taken_for_one() {
        for line in [
            r#"{"messages":[]}"#,
            r#"{"messages":[["user","a"],["assistant","b"]]}"#,
            r#"{"messages":[{"role":"assistant","content":"a"}]} "#,
            r#"{"messages":[{"role":"assistant","content":"a"}],"tools":[]}"#,
            r#"{"messages":[{"role":"assistant","content":"a","weight":1}]}"#,
            r#"{"messages":[{"role":"assistant","content":null}]}"#,
            r#"{"messages":[{"role":"assistant","content":"a}"#,
            "",
        ] {
            assert_eq!(plain(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_pair_has_the_tokens_of_its_prompt_and_of_both_answers() {
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let pair = json!({
            "input": {"messages": [message("user", "hello world")]},
            "preferred_output": [message("assistant", "hello")], "non_preferred_output": [message("assistant", "world")],
        });
        let found = found(Method::Preference, &pair.to_string());
        assert_eq!(found.tokens.sum(u64::MAX), 3 + (4 + 2) + (4 + 1) + (4 + 1));
        assert_eq!(found.fault_count, 0);
    }
}
