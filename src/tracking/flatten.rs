//! Nested settings as MLflow's flat parameters, within its limits.

use std::collections::BTreeMap;

use serde_json::Value;

/// The longest name MLflow takes, in bytes.
const LONGEST_NAME: usize = 250;
/// The longest value of a parameter that every MLflow takes, in characters.
const LONGEST_PARAMETER: usize = 500;
/// The longest value of a tag that every MLflow takes, in characters.
const LONGEST_TAG: usize = 5_000;

/// Every leaf of `value` under its path, such as `training.base_model` or `dataset.filters.0.column`. What is null is left out.
pub(super) fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                flatten(&below(name), field, into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, item) in items.iter().enumerate() {
                flatten(&below(&place.to_string()), item, into);
            }
        }
        Value::String(text) => {
            into.insert(name(prefix), parameter(text));
        }
        leaf => {
            into.insert(name(prefix), parameter(&leaf.to_string()));
        }
    }
}

/// A value that is cut where it is too long for a parameter; the whole is among the artifacts.
fn parameter(value: &str) -> String {
    shortened(value, LONGEST_PARAMETER)
}

/// A value that is cut where it is too long for a tag.
pub(super) fn tag(value: &str) -> String {
    shortened(value, LONGEST_TAG)
}

fn shortened(value: &str, longest: usize) -> String {
    if value.chars().count() <= longest {
        return value.to_owned();
    }
    value.chars().take(longest - 1).chain(['…']).collect()
}

/// MLflow's names hold letters, digits and `_-. :/`; anything else becomes an underscore.
fn name(path: &str) -> String {
    let kept = |letter: char| letter.is_ascii_alphanumeric() || "_-. :/".contains(letter);
    let name: String = path.chars().map(|letter| if kept(letter) { letter } else { '_' }).collect();
    name.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flat(value: &Value) -> Vec<(String, String)> {
        let mut found = BTreeMap::new();
        flatten("", value, &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn leaves_stand_under_their_paths() {
        let value = json!({"a": {"b": 0.5, "none": null}, "l": [true, {"x y[0]": "t"}], "e": [], "o": {}});
        let expected = [("a.b", "0.5"), ("e", "[]"), ("l.0", "true"), ("l.1.x y_0_", "t"), ("o", "{}")];
        assert_eq!(flat(&value), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_too_long_is_cut_by_characters() {
        let long = flat(&json!({"p": "ü".repeat(501)}));
        assert_eq!(long[0].1.chars().count(), 500);
        assert!(long[0].1.ends_with('…'));
        assert_eq!(flat(&json!({"p": "ü".repeat(500)}))[0].1, "ü".repeat(500));
        assert_eq!(tag(&"x".repeat(9_000)).chars().count(), 5_000);
        assert_eq!(flat(&json!({"n".repeat(300): 1}))[0].0.len(), 250);
    }
}
