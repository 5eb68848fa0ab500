//! One training example: a line of the JSONL that a provider trains on.

use serde::Serialize;

use super::Template;

/// What stands in for an empty original input.
const DEFAULT_PROMPT: &str = "Create engaging content";

/// The columns of a post that examples are made of.
#[derive(Debug, Default, Clone)]
pub struct Post {
    /// What the author asked for.
    pub original_input: Option<String>,
    /// The headline.
    pub hook: Option<String>,
    /// The text.
    pub body: Option<String>,
}

/// Two messages, user then assistant, and no other key.
#[derive(Debug, Serialize)]
pub struct Example<'a> {
    messages: [Message<'a>; 2],
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: std::borrow::Cow<'a, str>,
}

impl Template {
    /// The example that a post makes, or `None` where a part it needs is empty.
    #[must_use]
    pub fn example(self, post: &Post) -> Option<Example<'_>> {
        let hook = filled(post.hook.as_deref());
        let (prompt, completion) = match self {
            Self::Hook => (filled(post.original_input.as_deref()).unwrap_or(DEFAULT_PROMPT).into(), hook?),
            Self::Body => {
                (format!("{}\n\nWrite a detailed post:", hook?).into(), filled(post.body.as_deref())?)
            }
        };
        Some(Example {
            messages: [
                Message { role: "user", content: prompt },
                Message { role: "assistant", content: completion.into() },
            ],
        })
    }
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(template: Template, input: &str, hook: &str, body: &str) -> Option<Value> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let post = Post { original_input: some(input), hook: some(hook), body: some(body) };
        template.example(&post).map(|example| serde_json::to_value(example).unwrap())
    }

    #[test]
    fn a_hook_example_has_exactly_two_messages_user_then_assistant() {
        assert_eq!(
            line(Template::Hook, "About cats", "You won't believe this cat", "").unwrap(),
            json!({"messages": [
                {"role": "user", "content": "About cats"},
                {"role": "assistant", "content": "You won't believe this cat"},
            ]})
        );
    }

    #[test]
    fn an_empty_input_asks_for_engaging_content() {
        for empty in ["", "  \n"] {
            let example = line(Template::Hook, empty, "A hook", "").unwrap();
            assert_eq!(example["messages"][0]["content"], "Create engaging content");
        }
    }

    #[test]
    fn a_body_example_asks_for_a_detailed_post_below_the_hook() {
        assert_eq!(
            line(Template::Body, "ignored", "A hook", "The whole story").unwrap(),
            json!({"messages": [
                {"role": "user", "content": "A hook\n\nWrite a detailed post:"},
                {"role": "assistant", "content": "The whole story"},
            ]})
        );
    }

    #[test]
    fn a_post_without_what_the_model_should_write_makes_no_example() {
        assert!(line(Template::Hook, "About cats", " ", "A body").is_none());
        assert!(line(Template::Body, "About cats", "A hook", "").is_none());
        assert!(line(Template::Body, "About cats", "", "A body").is_none());
    }
}
