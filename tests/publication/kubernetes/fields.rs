//! Which fields an object has, and sets of them in the form of `managedFields`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The way to a field, from the outside in.
pub(super) type Path = Vec<String>;

/// What is never owned: identity and bookkeeping.
const UNOWNED: [&[&str]; 9] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "managedFields"],
];

/// The leaves of an object with their values. Lists are one value.
pub(super) fn leaves(object: &Value) -> BTreeMap<Path, Value> {
    fn walk(value: &Value, path: &mut Path, leaves: &mut BTreeMap<Path, Value>) {
        if UNOWNED.iter().any(|unowned| path.iter().eq(unowned.iter())) {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    path.push(name.clone());
                    walk(value, path, leaves);
                    path.pop();
                }
            }
            Value::Null => {}
            leaf => {
                leaves.insert(path.clone(), leaf.clone());
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk(object, &mut Vec::new(), &mut leaves);
    leaves
}

pub(super) fn set(object: &mut Value, path: &[String], value: Value) {
    let mut at = object;
    for name in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name.as_str()];
    }
    *at = value;
}

/// Removes a field, and what is empty without it.
pub(super) fn remove(object: &mut Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    let Some(members) = object.as_object_mut() else { return };
    if rest.is_empty() {
        members.remove(name);
        return;
    }
    if let Some(member) = members.get_mut(name) {
        remove(member, rest);
        if member.as_object().is_some_and(Map::is_empty) {
            members.remove(name);
        }
    }
}

/// The set as `fieldsV1`.
pub(super) fn as_v1(fields: &BTreeSet<Path>) -> Value {
    let mut v1 = json!({});
    for path in fields {
        let path: Path = path.iter().map(|name| format!("f:{name}")).collect();
        set(&mut v1, &path, json!({}));
    }
    v1
}

/// As conflicts name it: `.data.HOOK_MODEL`. Names with dots are not quoted by the real one either.
pub(super) fn written(path: &[String]) -> String {
    format!(".{}", path.join("."))
}
