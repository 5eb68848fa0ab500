//! How a job trains: its method and its hyperparameters, asked for and resolved.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

use super::errors::ApiError;

/// The methods that the simulator trains with. The protocol also knows `reinforcement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MethodKind {
    Supervised,
    Dpo,
}

/// A hyperparameter: a number, or `"auto"` for the provider's choice.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) enum Setting<T> {
    #[default]
    Auto,
    Value(T),
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "auto" => Ok(Self::Auto),
            value => serde_json::from_value(value).map(Self::Value).map_err(de::Error::custom),
        }
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<T: Copy> Setting<T> {
    fn or(self, choice: T) -> T {
        match self {
            Self::Auto => choice,
            Self::Value(value) => value,
        }
    }

    fn allows(self, test: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Auto => true,
            Self::Value(value) => test(value),
        }
    }
}

/// The hyperparameters of both methods; `beta` is for preferences only.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hyperparameters {
    n_epochs: Setting<u64>,
    batch_size: Setting<u64>,
    learning_rate_multiplier: Setting<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta: Option<Setting<f64>>,
}

impl Hyperparameters {
    /// Checks the ranges of the specification.
    pub(super) fn check(&self, method: MethodKind) -> Result<(), ApiError> {
        let fail = |name: &str, range: &str| {
            let message = format!("Invalid '{name}': expected 'auto' or {range}.");
            Err(ApiError::bad(message).param(format!("hyperparameters.{name}")))
        };
        if !self.n_epochs.allows(|value| (1..=50).contains(&value)) {
            return fail("n_epochs", "a whole number from 1 to 50");
        }
        if !self.batch_size.allows(|value| (1..=256).contains(&value)) {
            return fail("batch_size", "a whole number from 1 to 256");
        }
        if !self.learning_rate_multiplier.allows(|value| value > 0.0) {
            return fail("learning_rate_multiplier", "a number above 0");
        }
        match (method, self.beta) {
            (MethodKind::Supervised, Some(_)) => fail("beta", "no value: only the method dpo has it"),
            (_, Some(beta)) if !beta.allows(|value| value > 0.0 && value <= 2.0) => {
                fail("beta", "a number above 0 and at most 2")
            }
            _ => Ok(()),
        }
    }

    /// Replaces each `"auto"` by the provider's choice for a file of `examples`.
    ///
    /// The epochs follow the rule that OpenAI publishes with its data preparation recipe: three, more for
    /// files below 100 examples and fewer for files above 25,000. A batch is 0.2 % of the examples.
    pub(super) fn resolve(&self, method: MethodKind, examples: u64) -> Resolved {
        let n_epochs = match examples.max(1) {
            few if few * 3 < 100 => (100 / few).min(25),
            many if many * 3 > 25_000 => (25_000 / many).max(1),
            _ => 3,
        };
        let n_epochs = self.n_epochs.or(n_epochs);
        let batch_size = self.batch_size.or((examples / 500).clamp(1, 256));
        let beta = (method == MethodKind::Dpo).then(|| Setting::Value(self.beta.unwrap_or_default().or(0.1)));
        let hyperparameters = Self {
            n_epochs: Setting::Value(n_epochs),
            batch_size: Setting::Value(batch_size),
            learning_rate_multiplier: Setting::Value(self.learning_rate_multiplier.or(2.0)),
            beta,
        };
        let steps_per_epoch = examples.div_ceil(batch_size).max(1);
        Resolved { hyperparameters, n_epochs, steps_per_epoch }
    }

    /// The `method` of a job.
    pub(super) fn method_json(&self, method: MethodKind) -> Value {
        match method {
            MethodKind::Supervised => json!({"type": method, "supervised": {"hyperparameters": self}}),
            MethodKind::Dpo => json!({"type": method, "dpo": {"hyperparameters": self}}),
        }
    }
}

/// Hyperparameters without `"auto"`, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    pub(super) hyperparameters: Hyperparameters,
    pub(super) n_epochs: u64,
    pub(super) steps_per_epoch: u64,
}

impl Resolved {
    /// How far the hyperparameters are from the best ones, which are three epochs at the multiplier 1: what that
    /// adds to the validation loss.
    pub(super) fn penalty(&self) -> f64 {
        let multiplier = self.hyperparameters.learning_rate_multiplier.or(1.0);
        0.1 * (self.n_epochs as f64 / 3.0).log2().abs() + 0.1 * multiplier.log2().abs()
    }

    pub(super) fn steps(&self) -> u64 {
        self.n_epochs * self.steps_per_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: Value) -> Hyperparameters {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn auto_depends_on_the_number_of_examples() {
        let epochs = |examples| Hyperparameters::default().resolve(MethodKind::Supervised, examples).n_epochs;
        assert_eq!([3, 10, 33, 34, 100, 8_333, 12_500, 30_000].map(epochs), [25, 10, 3, 3, 3, 3, 2, 1]);
        let resolved = Hyperparameters::default().resolve(MethodKind::Supervised, 2_001);
        assert_eq!(
            serde_json::to_value(resolved.hyperparameters).unwrap(),
            json!({"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 2.0})
        );
        assert_eq!(resolved.steps(), 3 * 501);
    }

    #[test]
    fn given_values_stay() {
        let asked = parse(json!({"n_epochs": 7, "batch_size": "auto", "learning_rate_multiplier": 0.5}));
        let resolved = asked.resolve(MethodKind::Dpo, 100);
        assert_eq!(
            resolved.hyperparameters.method_json(MethodKind::Dpo),
            json!({"type": "dpo", "dpo": {"hyperparameters":
                {"n_epochs": 7, "batch_size": 1, "learning_rate_multiplier": 0.5, "beta": 0.1}}})
        );
    }

    #[test]
    fn ranges_are_checked() {
        let check = |json, method| parse(json).check(method).is_ok();
        assert!(check(json!({"n_epochs": 50, "batch_size": 256}), MethodKind::Supervised));
        assert!(!check(json!({"n_epochs": 51}), MethodKind::Supervised));
        assert!(!check(json!({"n_epochs": 0}), MethodKind::Supervised));
        assert!(!check(json!({"batch_size": 257}), MethodKind::Supervised));
        assert!(!check(json!({"learning_rate_multiplier": 0}), MethodKind::Supervised));
        assert!(!check(json!({"beta": 0.1}), MethodKind::Supervised));
        assert!(check(json!({"beta": 2}), MethodKind::Dpo));
        assert!(!check(json!({"beta": 2.5}), MethodKind::Dpo));
        assert!(serde_json::from_value::<Hyperparameters>(json!({"n_epochs": "three"})).is_err());
        assert!(serde_json::from_value::<Hyperparameters>(json!({"epochs": 3})).is_err());
    }
}
