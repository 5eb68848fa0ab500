//! What OpenAI asks of a line of training data, so that a bad one is found before it is uploaded.
//!
//! Source: `ChatCompletion`-shaped examples and preference examples in the fine-tuning guide and in the protocol's specification
//! (`FineTuneChatRequestInput`, `FineTunePreferenceRequestInput`).

use serde_json::{Map, Value};

use crate::trainers::{LineFault, Method};

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// Tokens with a meaning of their own, which no text may contain.
const RESERVED: [&str; 4] = ["<|endoftext|>", "<|endofprompt|>", "<|im_start|>", "<|im_end|>"];

/// Tokens of an example beyond which the rest is cut off in training (fine-tuning guide, "Token limits"). `None` for models that
/// the guide does not name.
pub(in crate::trainers) fn example_limit(base_model: &str) -> Option<u32> {
    let families = [
        ("gpt-4.1", 65_536),
        ("gpt-4o", 65_536),
        ("gpt-4-0613", 8_192),
        ("gpt-3.5-turbo-0613", 4_096),
        ("gpt-3.5-turbo", 16_385),
    ];
    let base = base_model.strip_prefix("ft:").unwrap_or(base_model);
    families.into_iter().find(|(family, _)| base.starts_with(family)).map(|(_, limit)| limit)
}

/// Everything that is wrong with a line.
pub(in crate::trainers) fn check_line(method: Method, line: &[u8]) -> Vec<LineFault> {
    let mut faults = Faults(Vec::new());
    match serde_json::from_slice(line) {
        Err(error) => faults.add("", format!("is not JSON: {error}")),
        Ok(Value::Object(example)) => match method {
            Method::Supervised => supervised(&example, &mut faults),
            Method::Preference => preference(&example, &mut faults),
        },
        Ok(_) => faults.add("", "must be a JSON object"),
    }
    faults.0
}

/// Whether [`check_line`] finds nothing wrong with an example of messages with role and content alone.
pub(in crate::trainers) fn accepts<T: AsRef<str>>(messages: &[(T, T)]) -> bool {
    let good = |(role, text): &(T, T)| ROLES.contains(&role.as_ref()) && text_fault(text.as_ref()).is_none();
    messages.iter().all(good) && messages.last().is_some_and(|(role, _)| role.as_ref() == "assistant")
}

struct Faults(Vec<LineFault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(LineFault { field: field.into(), message: message.into() });
    }

    fn only(&mut self, object: &Map<String, Value>, place: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.add(format!("{place}/{}", pointer(key)), "is no field of the format");
        }
    }
}

fn supervised(example: &Map<String, Value>, faults: &mut Faults) {
    faults.only(example, "", &["messages", "tools", "parallel_tool_calls", "functions"]);
    let roles = messages(example, "", "messages", faults);
    if !roles.is_empty() && roles.last() != Some(&"assistant") {
        faults.add(
            format!("/messages/{}/role", roles.len() - 1),
            "must be assistant: the last message is what is learned",
        );
    }
}

fn preference(example: &Map<String, Value>, faults: &mut Faults) {
    faults.only(example, "", &["input", "preferred_output", "non_preferred_output"]);
    match example.get("input") {
        Some(Value::Object(input)) => {
            faults.only(input, "/input", &["messages", "tools", "parallel_tool_calls"]);
            messages(input, "/input", "messages", faults);
        }
        _ => faults.add("/input", "must be an object with messages"),
    }
    for output in ["preferred_output", "non_preferred_output"] {
        let roles = messages(example, "", output, faults);
        for (index, _) in roles.iter().enumerate().filter(|(_, role)| **role != "assistant") {
            faults.add(format!("/{output}/{index}/role"), "must be assistant");
        }
    }
}

/// Checks the messages under `key` and returns their roles.
fn messages<'a>(object: &'a Map<String, Value>, place: &str, key: &str, faults: &mut Faults) -> Vec<&'a str> {
    let list = object.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
    let Some(list) = list else {
        faults.add(format!("{place}/{key}"), "must be a list with at least one message");
        return Vec::new();
    };
    let check = |(index, message)| check_message(message, &format!("{place}/{key}/{index}"), faults);
    list.iter().enumerate().map(check).collect()
}

fn check_message<'a>(message: &'a Value, place: &str, faults: &mut Faults) -> &'a str {
    let Some(message) = message.as_object() else {
        faults.add(place, "must be an object with role and content");
        return "";
    };
    faults.only(
        message,
        place,
        &["role", "content", "name", "weight", "refusal", "tool_calls", "tool_call_id", "function_call"],
    );
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    if !ROLES.contains(&role) {
        faults.add(format!("{place}/role"), format!("must be one of: {}", ROLES.join(", ")));
    }
    if let Some(weight) = message.get("weight")
        && (role != "assistant" || !matches!(weight.as_u64(), Some(0 | 1)))
    {
        faults.add(format!("{place}/weight"), "must be 0 or 1, and only answers have one");
    }
    let calls = message.contains_key("tool_calls") || message.contains_key("function_call");
    match message.get("content") {
        Some(Value::String(text)) => check_text(text, &format!("{place}/content"), faults),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            for (index, text) in parts.iter().filter_map(|part| part["text"].as_str()).enumerate() {
                check_text(text, &format!("{place}/content/{index}/text"), faults);
            }
        }
        None | Some(Value::Null) if calls && role == "assistant" => {}
        _ => faults.add(format!("{place}/content"), "must be a text"),
    }
    role
}

fn check_text(text: &str, field: &str, faults: &mut Faults) {
    if let Some(fault) = text_fault(text) {
        faults.add(field, fault);
    }
}

fn text_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("must not be empty".into());
    }
    let token = text.find("<|").and_then(|_| RESERVED.into_iter().find(|token| text.contains(token)))?;
    Some(format!("must not contain {token}, which has a meaning of its own"))
}

/// A key as part of a JSON pointer (RFC 6901).
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(method: Method, line: &Value) -> Vec<String> {
        check_line(method, line.to_string().as_bytes()).into_iter().map(|fault| fault.field).collect()
    }

    fn message(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    #[test]
    fn good_lines_have_no_faults() {
        let talk =
            json!({"messages": [message("system", "a"), message("user", "b"), message("assistant", "c")]});
        assert_eq!(fields(Method::Supervised, &talk), [""; 0]);
        let pair = json!({
            "input": {"messages": [message("user", "b")]},
            "preferred_output": [message("assistant", "c")], "non_preferred_output": [message("assistant", "d")],
        });
        assert_eq!(fields(Method::Preference, &pair), [""; 0]);
        let plain = [("system", "a"), ("user", "b"), ("assistant", "c")];
        assert!(accepts(&plain) && !accepts(&plain[..2]) && !accepts::<&str>(&[]));
        assert!(!accepts(&[("bot", "a"), ("assistant", "c")]) && !accepts(&[("assistant", "")]));
        assert!(!accepts(&[("assistant", "a <|im_end|>")]));
        let call = json!({"messages": [message("user", "b"),
            {"role": "assistant", "tool_calls": [{"id": "1"}], "weight": 1}]});
        assert_eq!(fields(Method::Supervised, &call), [""; 0]);
    }

    #[test]
    fn each_fault_is_told_with_its_field() {
        for (line, field) in [
            (json!([]), ""),
            (json!({}), "/messages"),
            (json!({"messages": []}), "/messages"),
            (json!({"messages": [message("user", "b")]}), "/messages/0/role"),
            (json!({"messages": [message("bot", "b"), message("assistant", "c")]}), "/messages/0/role"),
            (json!({"messages": ["b", message("assistant", "c")]}), "/messages/0"),
            (json!({"messages": [message("assistant", "")]}), "/messages/0/content"),
            (json!({"messages": [{"role": "assistant"}]}), "/messages/0/content"),
            (json!({"messages": [message("assistant", "a <|im_end|>")]}), "/messages/0/content"),
            (
                json!({"messages": [{"role": "user", "content": "a", "weight": 1}, message("assistant", "c")]}),
                "/messages/0/weight",
            ),
            (json!({"messages": [{"role": "assistant", "content": "a", "x/y": 1}]}), "/messages/0/x~1y"),
            (json!({"messages": [message("assistant", "c")], "prompt": 1}), "/prompt"),
        ] {
            assert_eq!(fields(Method::Supervised, &line), [field], "{line}");
        }
        assert_eq!(fields(Method::Supervised, &json!("text")), [""]);
        assert_eq!(check_line(Method::Supervised, b"{").len(), 1);
        let pair =
            json!({"input": [], "preferred_output": [message("user", "c")], "non_preferred_output": []});
        assert_eq!(
            fields(Method::Preference, &pair),
            ["/input", "/preferred_output/0/role", "/non_preferred_output"]
        );
    }

    #[test]
    fn limits_are_those_of_the_model_or_unknown() {
        assert_eq!(example_limit("gpt-4o-mini-2024-07-18"), Some(65_536));
        assert_eq!(example_limit("gpt-3.5-turbo-0125"), Some(16_385));
        assert_eq!(example_limit("gpt-3.5-turbo-0613"), Some(4_096));
        assert_eq!(example_limit("ft:gpt-4o-2024-08-06:acme::abc"), Some(65_536));
        assert_eq!(example_limit("llama-3"), None);
    }
}
