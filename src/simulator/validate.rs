//! The checks of a training file, as the real service makes them while a job is `validating_files`.

use serde_json::{Map, Value};

use super::method::MethodKind;

/// Fewer examples make a job fail.
const MINIMUM_EXAMPLES: usize = 10;
/// How many faults a message lists before it only counts the rest.
const LISTED_FAULTS: usize = 5;

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
const MESSAGE_KEYS: [&str; 8] =
    ["role", "content", "name", "weight", "refusal", "tool_calls", "tool_call_id", "function_call"];
/// Tokens with a meaning of their own; training text must not contain them.
const RESERVED_TOKENS: [&str; 7] = [
    "<|endoftext|>",
    "<|endofprompt|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|im_start|>",
    "<|im_end|>",
];

/// What a valid file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) examples: u64,
    /// Estimated, see [`tokens`].
    pub(super) tokens: u64,
}

/// Why a file cannot be trained on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Fewer than ten examples; the count.
    TooFew(usize),
    /// Lines that do not have the format; the faults, with their line numbers.
    Format(String),
}

/// Checks a JSONL file for the method of its job.
pub(super) fn check(content: &[u8], method: MethodKind) -> Result<Summary, Invalid> {
    let mut faults = Vec::new();
    let (mut examples, mut tokens) = (0, 0);
    for (index, line) in
        content.strip_suffix(b"\n").unwrap_or(content).split(|&byte| byte == b'\n').enumerate()
    {
        if content.is_empty() {
            break;
        }
        examples += 1;
        match example(line, method) {
            Ok(count) => tokens += count,
            Err(fault) => faults.push(format!("Line {}{fault}", index + 1)),
        }
    }
    if !faults.is_empty() {
        let rest = faults.len().saturating_sub(LISTED_FAULTS);
        faults.truncate(LISTED_FAULTS);
        if rest > 0 {
            faults.push(format!("and {rest} more"));
        }
        return Err(Invalid::Format(faults.join("; ")));
    }
    if examples < MINIMUM_EXAMPLES {
        return Err(Invalid::TooFew(examples));
    }
    Ok(Summary { examples: examples as u64, tokens })
}

/// A rough count of a text's tokens: four characters each, the rule of thumb of OpenAI's documentation.
pub(super) fn tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(4) as u64
}

/// Checks one line and counts its tokens. A fault starts with what follows the line's number.
fn example(line: &[u8], method: MethodKind) -> Result<u64, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!(": invalid JSON: {error}"))?;
    let Value::Object(example) = value else { return Err(": expected a JSON object".into()) };
    let messages = match method {
        MethodKind::Supervised => supervised(&example)?,
        MethodKind::Dpo => preference(&example)?,
    };
    // Three tokens frame an example and four each message, as in OpenAI's counting recipe.
    Ok(3 + messages.iter().map(|text| 4 + tokens(text)).sum::<u64>())
}

fn supervised(example: &Map<String, Value>) -> Result<Vec<&str>, String> {
    only_keys(example, &["messages", "tools", "parallel_tool_calls", "functions"])?;
    let (roles, texts) = messages(example, "messages", ", message")?;
    if !roles.contains(&"assistant") {
        return Err(", key \"messages\": expected at least one message with the role 'assistant'".into());
    }
    if roles.last() != Some(&"assistant") {
        return Err(", key \"messages\": the last message must be from the assistant".into());
    }
    Ok(texts)
}

fn preference(example: &Map<String, Value>) -> Result<Vec<&str>, String> {
    only_keys(example, &["input", "preferred_output", "non_preferred_output"])?;
    let input =
        example.get("input").and_then(Value::as_object).ok_or(", key \"input\": expected an object")?;
    only_keys(input, &["messages", "tools", "parallel_tool_calls"])?;
    let (_, mut texts) = messages(input, "messages", ", input message")?;
    for key in ["preferred_output", "non_preferred_output"] {
        let (roles, output) = messages(example, key, &format!(", {key} message"))?;
        if roles.iter().any(|role| *role != "assistant") {
            return Err(format!(", key \"{key}\": every message must be from the assistant"));
        }
        texts.extend(output);
    }
    Ok(texts)
}

fn only_keys(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!(" contains an extra key \"{key}\"")),
        None => Ok(()),
    }
}

/// The roles and the texts of the messages under `key`; `label` introduces a message's number in faults.
fn messages<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    label: &str,
) -> Result<(Vec<&'a str>, Vec<&'a str>), String> {
    let list = object
        .get(key)
        .ok_or_else(|| format!(", key \"{key}\": field required"))?
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(|| format!(", key \"{key}\": expected a list with at least one message"))?;
    let checked = list
        .iter()
        .enumerate()
        .map(|(index, value)| message(value).map_err(|fault| format!("{label} {}{fault}", index + 1)));
    checked.collect::<Result<Vec<_>, _>>().map(|pairs| pairs.into_iter().unzip())
}

fn message(value: &Value) -> Result<(&str, &str), String> {
    let message = value.as_object().ok_or(": expected a JSON object")?;
    only_keys(message, &MESSAGE_KEYS)?;
    let role = message.get("role").ok_or(", key \"role\": field required")?;
    let role = role
        .as_str()
        .filter(|role| ROLES.contains(role))
        .ok_or_else(|| format!(", key \"role\": {role} is not one of '{}'", ROLES.join("', '")))?;
    if let Some(weight) = message.get("weight")
        && (role != "assistant" || !matches!(weight.as_u64(), Some(0 | 1)))
    {
        return Err(", key \"weight\": only assistant messages have one, and it is 0 or 1".into());
    }
    let calls =
        role == "assistant" && ["tool_calls", "function_call"].iter().any(|key| message.contains_key(*key));
    let text = match message.get("content") {
        None | Some(Value::Null) if calls => "",
        None => return Err(", key \"content\": field required".into()),
        Some(Value::String(text)) => text,
        Some(_) => return Err(", key \"content\": expected a string".into()),
    };
    match RESERVED_TOKENS.iter().find(|token| text.contains(*token)) {
        Some(token) => Err(format!(", key \"content\": contains an invalid token: {token}")),
        None => Ok((role, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"messages":[{"role":"user","content":"ab"},{"role":"assistant","content":"abcde"}]}"#;

    /// Ten good lines, the third replaced.
    fn with_third(line: &str) -> String {
        let mut lines = [GOOD; 10];
        lines[2] = line;
        lines.join("\n")
    }

    fn fault(line: &str, method: MethodKind) -> String {
        match check(with_third(line).as_bytes(), method) {
            Err(Invalid::Format(message)) => message,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn counts_examples_and_tokens() {
        let content = format!("{}\n", [GOOD; 10].join("\n"));
        // Per example: 3 + (4 + 1) + (4 + 2).
        assert_eq!(
            check(content.as_bytes(), MethodKind::Supervised),
            Ok(Summary { examples: 10, tokens: 140 })
        );
    }

    #[test]
    fn nine_examples_are_too_few_and_so_is_an_empty_file() {
        let content = [GOOD; 9].join("\n");
        assert_eq!(check(content.as_bytes(), MethodKind::Supervised), Err(Invalid::TooFew(9)));
        assert_eq!(check(b"", MethodKind::Supervised), Err(Invalid::TooFew(0)));
    }

    #[test]
    fn faults_name_line_message_and_key() {
        let cases = [
            ("", "Line 3: invalid JSON"),
            ("{", "Line 3: invalid JSON"),
            ("[]", "Line 3: expected a JSON object"),
            ("{}", r#"Line 3, key "messages": field required"#),
            (r#"{"messages":[]}"#, r#"Line 3, key "messages": expected a list"#),
            (r#"{"messages":[],"weight":1}"#, r#"Line 3 contains an extra key "weight""#),
            (r#"{"messages":[{"content":"a"}]}"#, r#"Line 3, message 1, key "role": field required"#),
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"bot","content":"a"}]}"#,
                r#"Line 3, message 2, key "role": "bot" is not one of"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null}]}"#,
                r#"Line 3, message 2, key "content": expected a string"#,
            ),
            (
                r#"{"messages":[{"role":"user"},{"role":"assistant","content":"a"}]}"#,
                r#"Line 3, message 1, key "content": field required"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"a","score":1}]}"#,
                r#"Line 3, message 1 contains an extra key "score""#,
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                "expected at least one message with the role",
            ),
            (
                r#"{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"a"}]}"#,
                "the last message must be from the assistant",
            ),
            (
                r#"{"messages":[{"role":"user","content":"<|im_start|>"},{"role":"assistant","content":"a"}]}"#,
                r#"Line 3, message 1, key "content": contains an invalid token: <|im_start|>"#,
            ),
        ];
        for (line, expected) in cases {
            let message = fault(line, MethodKind::Supervised);
            assert!(message.contains(expected), "{line}: {message}");
            assert!(message.starts_with("Line 3"), "{line}: {message}");
        }
    }

    #[test]
    fn lists_five_faults_and_counts_the_rest() {
        let Err(Invalid::Format(message)) = check("[]\n".repeat(12).as_bytes(), MethodKind::Supervised)
        else {
            panic!("twelve bad lines were accepted");
        };
        assert_eq!(message.matches("Line ").count(), 5, "{message}");
        assert!(message.ends_with("; and 7 more"), "{message}");
    }

    #[test]
    fn a_tool_call_needs_no_content() {
        let line = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[]}]}"#;
        assert!(check(with_third(line).as_bytes(), MethodKind::Supervised).is_ok());
    }

    #[test]
    fn preferences_have_their_own_shape() {
        let good = r#"{"input":{"messages":[{"role":"user","content":"a"}]},
            "preferred_output":[{"role":"assistant","content":"b"}],
            "non_preferred_output":[{"role":"assistant","content":"c"}]}"#
            .replace('\n', " ");
        let content = [good.as_str(); 10].join("\n");
        assert!(check(content.as_bytes(), MethodKind::Dpo).is_ok());
        assert!(check(content.as_bytes(), MethodKind::Supervised).is_err());

        let from_user =
            good.replace(r#"[{"role":"assistant","content":"b"}]"#, r#"[{"role":"user","content":"b"}]"#);
        let content = [from_user.as_str(); 10].join("\n");
        let Err(Invalid::Format(message)) = check(content.as_bytes(), MethodKind::Dpo) else {
            panic!("a preferred output of the user was accepted");
        };
        assert!(
            message.contains(r#"key "preferred_output": every message must be from the assistant"#),
            "{message}"
        );
        assert!(fault("{}", MethodKind::Dpo).starts_with("Line 1 contains an extra key \"messages\""));
    }
}
