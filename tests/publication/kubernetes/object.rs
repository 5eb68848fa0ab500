//! An object with those who manage its fields.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tuneloop::clock::Clock;

use super::fields::{self, Path};

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Debug, Clone)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) fields: BTreeSet<Path>,
    time: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Without `managedFields`.
    pub(super) value: Value,
    pub(super) managers: Vec<Manager>,
}

impl Object {
    /// With `managedFields`, as answers have it.
    pub(super) fn show(&self) -> Value {
        let mut value = self.value.clone();
        let version = value["apiVersion"].clone();
        let entries = self.managers.iter().map(|manager| {
            json!({
                "manager": manager.name, "operation": format!("{:?}", manager.operation), "apiVersion": version,
                "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": fields::as_v1(&manager.fields),
            })
        });
        value["metadata"]["managedFields"] = entries.collect();
        value
    }

    /// Makes these the fields of a manager; one without fields is none.
    pub(super) fn own(&mut self, name: &str, operation: Operation, fields: BTreeSet<Path>) {
        let same = |manager: &Manager| manager.name == name && manager.operation == operation;
        let time = Clock::system().now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        match self.managers.iter_mut().find(|manager| same(manager)) {
            Some(manager) if manager.fields == fields => {}
            Some(manager) => (manager.fields, manager.time) = (fields, time),
            None => self.managers.push(Manager { name: name.to_owned(), operation, fields, time }),
        }
        self.managers.retain(|manager| !manager.fields.is_empty());
    }

    /// The fields of a manager.
    pub(super) fn owned(&self, name: &str, operation: Operation) -> BTreeSet<Path> {
        let same = |manager: &&Manager| manager.name == name && manager.operation == operation;
        self.managers.iter().find(same).map(|manager| manager.fields.clone()).unwrap_or_default()
    }

    /// Takes a field from all but one manager.
    pub(super) fn take(&mut self, field: &Path, name: &str, operation: Operation) {
        for manager in &mut self.managers {
            if (manager.name.as_str(), manager.operation) != (name, operation) {
                manager.fields.remove(field);
            }
        }
    }
}
