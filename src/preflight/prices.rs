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
    training_per_million_tokens: f64,
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
            if !(price.training_per_million_tokens.is_finite() && price.training_per_million_tokens >= 0.0) {
                let fault =
                    format!("models.{model}.training_per_million_tokens must be a number of at least 0");
                return Err(PriceTableError::Form(fault));
            }
        }
        Ok(Self(Some(Arc::new(table))))
    }

    /// What a million trained tokens cost, and the currency. A fine-tuned model is trained further at its base's price.
    pub(super) fn training(&self, model: &str) -> Option<(f64, &str)> {
        let table = self.0.as_deref()?;
        let base = model.strip_prefix("ft:").and_then(|rest| rest.split(':').next());
        let price = table.models.get(model).or_else(|| table.models.get(base?))?;
        Some((price.training_per_million_tokens, &table.currency))
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
        ] {
            let error = PriceTable::parse(text).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("training_per_million_tokens"), "{error}");
        }
    }
}
