//! One training example: a line of the JSONL that a provider trains on.

use serde::Serialize;

/// A conversation of two or three messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The instruction before the conversation.
    pub system: Option<String>,
    /// What is asked.
    pub user: String,
    /// What the model should answer.
    pub assistant: String,
}

#[derive(Serialize)]
struct Line<'a> {
    messages: &'a [Message<'a>],
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl Example {
    /// The texts of its messages.
    pub(super) fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.system.iter_mut().chain([&mut self.user, &mut self.assistant])
    }

    /// What is asked, `{"messages":[…]}`, and the answer, `{"role":…,"content":…}`, apart.
    pub(super) fn halves(&self) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let user = Message { role: "user", content: &self.user };
        let asked = match &self.system {
            Some(system) => {
                let system = Message { role: "system", content: system };
                serde_json::to_vec(&Line { messages: &[system, user] })?
            }
            None => serde_json::to_vec(&Line { messages: &[user] })?,
        };
        let answer = Message { role: "assistant", content: &self.assistant };
        Ok((asked, serde_json::to_vec(&answer)?))
    }

    /// Writes the example as one line with its end: `{"messages":[…]}`, each message with role and content and
    /// nothing else.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let user = Message { role: "user", content: &self.user };
        let assistant = Message { role: "assistant", content: &self.assistant };
        match &self.system {
            Some(system) => {
                let system = Message { role: "system", content: system };
                serde_json::to_writer(&mut *out, &Line { messages: &[system, user, assistant] })?;
            }
            None => serde_json::to_writer(&mut *out, &Line { messages: &[user, assistant] })?,
        }
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(system: Option<&str>) -> String {
        let example = Example {
            system: system.map(str::to_owned),
            user: "About \"cats\"".into(),
            assistant: "Line one\nLine two".into(),
        };
        let mut bytes = Vec::new();
        example.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_example_is_one_line_with_two_messages_user_then_assistant() {
        assert_eq!(
            line(None),
            "{\"messages\":[{\"role\":\"user\",\"content\":\"About \\\"cats\\\"\"},\
             {\"role\":\"assistant\",\"content\":\"Line one\\nLine two\"}]}\n"
        );
    }

    #[test]
    fn a_system_message_stands_first() {
        assert!(line(Some("Be brief")).starts_with(
            "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief\"},{\"role\":\"user\","
        ));
    }
}
