//! A decision that can be checked later: its inputs, rules and figures, under one digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Decision, ENGINE_VERSION, Evidence, Metric, Rules, decide};

/// What is stored of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Record {
    /// The engine that decided.
    pub engine_version: u32,
    /// The rules it went by.
    pub rules: Rules,
    /// What was known.
    pub evidence: Evidence,
    /// What was decided, with every figure on the way.
    pub decision: Decision,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    engine_version: u32,
    rules: Rules,
    evidence: Evidence,
    decision: Decision,
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        let Stored { engine_version, mut rules, mut evidence, decision } = stored;
        if engine_version < 2 {
            // Its one metric was the primary, whichever that was, and there were no guardrails.
            rules.guardrails = Vec::new();
            if let Some(observed) = evidence.metrics.remove(&Metric::default()) {
                evidence.metrics.insert(rules.primary, observed);
            }
        }
        Self { engine_version, rules, evidence, decision }
    }
}

impl Record {
    /// Decides and keeps everything. The evidence is put into one order first, so that the same evidence has
    /// the same digest in whatever order a database returned it.
    #[must_use]
    pub fn decide(rules: Rules, evidence: Evidence) -> Self {
        let evidence = evidence.canonical();
        let decision = decide(&evidence, &rules);
        Self { engine_version: ENGINE_VERSION, rules, evidence, decision }
    }

    /// Decides again from what is stored.
    #[must_use]
    pub fn redecide(&self) -> Decision {
        decide(&self.evidence, &self.rules)
    }

    /// SHA-256, in lower-case hex, of the record as canonical JSON: keys in the order of their bytes, no white
    /// space, numbers in the shortest form that reads back the same, no negative zero. The same after a way
    /// through a database's JSON type.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        Ok(hex::encode(Sha256::digest(canonical_json(serde_json::to_value(self)?)?)))
    }
}

fn canonical_json(value: Value) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Canonical::of(value))
}

/// JSON whose objects are sorted, whatever the features of `serde_json` are.
#[derive(Serialize)]
#[serde(untagged)]
enum Canonical {
    Object(BTreeMap<String, Self>),
    Array(Vec<Self>),
    Float(f64),
    Other(Value),
}

impl Canonical {
    fn of(value: Value) -> Self {
        match value {
            Value::Object(fields) => {
                Self::Object(fields.into_iter().map(|(key, value)| (key, Self::of(value))).collect())
            }
            Value::Array(items) => Self::Array(items.into_iter().map(Self::of).collect()),
            // Adding zero turns a negative zero into a positive one.
            Value::Number(number) if number.is_f64() => {
                number.as_f64().map_or(Self::Other(Value::Null), |float| Self::Float(float + 0.0))
            }
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_has_sorted_keys_no_white_space_and_no_negative_zero() {
        let value = serde_json::json!({"b": {"d": 1.0, "c": -0.0}, "a": [2, 1e-7, 0.1, null, true, "x y"]});
        let expected = r#"{"a":[2,1e-7,0.1,null,true,"x y"],"b":{"c":0.0,"d":1.0}}"#;
        assert_eq!(canonical_json(value).unwrap(), expected);
    }
}
