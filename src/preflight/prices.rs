//! What providers charge, as the operator writes it down. None is built in: prices change, and a wrong one is worse than none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

/// Prices by model, in one currency. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PriceTable(Option<Arc<Table>>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    currency: String,
    models: BTreeMap<String, ModelPrice>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelPrice {
    #[serde(default, rename = "training_per_million_tokens")]
    training: Option<f64>,
    #[serde(default, rename = "input_per_million_tokens")]
    input: Option<f64>,
    #[serde(default, rename = "output_per_million_tokens")]
    output: Option<f64>,
}

/// What a model's answers cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferencePrice<'a> {
    /// A million tokens read.
    pub input_per_million: f64,
    /// A million tokens written.
    pub output_per_million: f64,
    /// Of what.
    pub currency: &'a str,
}

/// A price table that cannot be used.
#[derive(Debug, Error)]
pub enum PriceTableError {
    /// It cannot be read.
    #[error("the price table {0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// It has another form.
    #[error(
        "the price table cannot be used: {0}; write \
         {{\"currency\": \"USD\", \"models\": {{\"MODEL\": {{\"training_per_million_tokens\": 25}}}}}}"
    )]
    Form(String),
}

impl PriceTable {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, PriceTableError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| PriceTableError::File(path.display().to_string(), error))?;
        Self::parse(&text)
    }

    /// Reads JSON.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        let table: Table =
            serde_json::from_str(text).map_err(|error| PriceTableError::Form(error.to_string()))?;
        let currency =
            table.currency.len() == 3 && table.currency.bytes().all(|byte| byte.is_ascii_uppercase());
        if !currency {
            return Err(PriceTableError::Form("currency must be a code of three capitals (ISO 4217)".into()));
        }
        for (model, price) in &table.models {
            price.check().map_err(|why| PriceTableError::Form(format!("models.{model}.{why}")))?;
        }
        Ok(Self(Some(Arc::new(table))))
    }

    /// What a million trained tokens cost, and the currency. A fine-tuned model is trained further at its base's price.
    pub(super) fn training(&self, model: &str) -> Option<(f64, &str)> {
        let table = self.0.as_deref()?;
        let base = model.strip_prefix("ft:").and_then(|rest| rest.split(':').next());
        let price = table.models.get(model).or_else(|| table.models.get(base?))?;
        Some((price.training?, &table.currency))
    }

    /// What answers of a model cost. That of a tuned model has a price of its own or that of `ft:` and its `base`: providers
    /// charge more for it than for the base.
    #[must_use]
    pub fn inference(&self, model: &str, base: Option<&str>) -> Option<InferencePrice<'_>> {
        let table = self.0.as_deref()?;
        let own = model.strip_prefix("ft:").and_then(|rest| rest.split(':').next());
        let tuned = || table.models.get(&format!("ft:{}", base.or(own)?));
        let price = table.models.get(model).or_else(tuned)?;
        Some(InferencePrice {
            input_per_million: price.input?,
            output_per_million: price.output?,
            currency: &table.currency,
        })
    }
}

impl ModelPrice {
    fn check(&self) -> Result<(), String> {
        let fields = [
            ("training_per_million_tokens", self.training),
            ("input_per_million_tokens", self.input),
            ("output_per_million_tokens", self.output),
        ];
        let bad = |price: Option<f64>| price.is_some_and(|price| !(price.is_finite() && price >= 0.0));
        if let Some((field, _)) = fields.into_iter().find(|(_, price)| bad(*price)) {
            return Err(format!("{field} must be a number of at least 0"));
        }
        match (fields[1].1, fields[2].1) {
            (Some(_), None) => return Err("output_per_million_tokens is missing beside the input's".into()),
            (None, Some(_)) => return Err("input_per_million_tokens is missing beside the output's".into()),
            _ => {}
        }
        if fields.iter().all(|(_, price)| price.is_none()) {
            return Err("training_per_million_tokens or the prices of input and output are missing".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_price_or_its_bases_or_none() {
        let table = r#"{"currency": "USD", "models": {"a": {"training_per_million_tokens": 2.5}}}"#;
        let table = PriceTable::parse(table).unwrap();
        assert_eq!(table.training("a"), Some((2.5, "USD")));
        assert_eq!(table.training("ft:a:acme::x"), Some((2.5, "USD")));
        assert_eq!((table.training("b"), PriceTable::default().training("a")), (None, None));
    }

    #[test]
    fn answers_have_the_price_of_the_model_and_a_tuned_one_never_that_of_its_base() {
        let table = r#"{"currency": "USD", "models": {
            "a": {"input_per_million_tokens": 1, "output_per_million_tokens": 2},
            "ft:a": {"input_per_million_tokens": 3, "output_per_million_tokens": 4}, "b": {"training_per_million_tokens": 5}}}"#;
        let table = PriceTable::parse(table).unwrap();
        let prices = |model, base| {
            table.inference(model, base).map(|price| (price.input_per_million, price.output_per_million))
        };
        assert_eq!(prices("a", None), Some((1.0, 2.0)));
        assert_eq!(prices("ft:a:acme::x", None), Some((3.0, 4.0)));
        assert_eq!(prices("a.ft-0e20", Some("a")), Some((3.0, 4.0)));
        assert_eq!((prices("b", None), prices("ft:b:acme::x", None), prices("c", None)), (None, None, None));
        assert_eq!(table.training("a"), None);
    }

    #[test]
    fn a_bad_table_names_the_field() {
        for (text, field) in [
            ("", "EOF"),
            (r#"{"models": {}}"#, "currency"),
            (r#"{"currency": "dollars", "models": {}}"#, "currency"),
            (
                r#"{"currency": "USD", "models": {"a": {"training_per_million_tokens": -1}}}"#,
                "models.a.training_per",
            ),
            (r#"{"currency": "USD", "models": {"a": {"price": 1}}}"#, "price"),
            (r#"{"currency": "USD", "models": {"a": {}}}"#, "models.a.training_per"),
            (
                r#"{"currency": "USD", "models": {"a": {"input_per_million_tokens": 1}}}"#,
                "models.a.output_per",
            ),
        ] {
            let error = PriceTable::parse(text).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("training_per_million_tokens"), "{error}");
        }
    }
}
