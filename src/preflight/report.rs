//! What is known before anything is uploaded.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Distribution, Epochs};
use crate::dataset::{CleaningCounts, Counts};
use crate::trainers::{Hyperparameters, Method};

/// What a run would train on, what is wrong with it, and what it would cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreflightReport {
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// The trainer.
    #[schema(example = "openai")]
    pub provider: String,
    /// The model that is trained.
    #[schema(example = "gpt-4o-2024-08-06")]
    pub base_model: String,
    /// How it is trained.
    pub method: Method,
    /// The tokeniser that tokens are counted with.
    #[schema(example = "o200k_base")]
    pub tokeniser: String,
    /// Posts by the stage that left them out.
    pub counts: Counts,
    /// What cleaning did.
    pub cleaning: CleaningCounts,
    /// What is trained on.
    pub train: PartReport,
    /// What is set aside to validate with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PartReport>,
    /// Faults by the provider's rules, in both parts; with any, the run fails before it uploads.
    pub fault_count: u64,
    /// The first of them.
    #[schema(max_items = 100)]
    pub faults: Vec<FoundFault>,
    /// The trainings of the run: one, or as many as the search tries.
    #[schema(max_items = 16)]
    pub trainings: Vec<ExpectedTraining>,
    /// What they cost together.
    pub cost: ExpectedCost,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One of a dataset's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartReport {
    /// SHA-256 of its bytes: its name.
    pub digest: String,
    /// Its lines.
    pub examples: u64,
    /// Its length.
    pub bytes: u64,
    /// Characters of text per example; absent without examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters: Option<Distribution>,
    /// Tokens per example, with what frames the messages; absent without examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Distribution>,
    /// Examples with more tokens than the model takes; absent where its limit is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<OverLimit>,
}

/// Examples with more tokens than the model takes. The provider cuts off the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverLimit {
    /// The most tokens.
    pub limit: u64,
    /// How many examples have more.
    pub count: u64,
    /// The first lines of them, from 1.
    #[schema(max_items = 10)]
    pub lines: Vec<u64>,
}

/// Something in a file that the provider would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundFault {
    /// `train` or `validation`.
    #[schema(example = "train")]
    pub part: String,
    /// The line, from 1.
    pub line: u64,
    /// The field, as a JSON pointer; empty for the line itself.
    #[schema(example = "/messages/0/content")]
    pub field: String,
    /// What is wrong, to be read after the field.
    pub message: String,
}

/// A training that the run would pay for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedTraining {
    /// What it is asked to train with.
    pub hyperparameters: Hyperparameters,
    /// Passes over the examples.
    pub epochs: Epochs,
    /// Tokens that are billed: those of the training file, each example up to the limit, in every pass.
    pub billed_tokens: u64,
}

/// What a run is expected to cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ExpectedCost {
    /// The price table has the model.
    Estimate {
        /// How much.
        amount: f64,
        /// Of what.
        #[schema(example = "USD")]
        currency: String,
        /// The price that it is figured with.
        price_per_million_tokens: f64,
    },
    /// It does not: nobody knows.
    Unknown {
        /// What to change.
        reason: String,
    },
}

impl ExpectedCost {
    /// The cost of another number of tokens at the same price.
    #[must_use]
    pub fn of_tokens(&self, tokens: u64) -> Self {
        match self {
            Self::Estimate { currency, price_per_million_tokens, .. } => Self::Estimate {
                amount: tokens as f64 * price_per_million_tokens / 1e6,
                currency: currency.clone(),
                price_per_million_tokens: *price_per_million_tokens,
            },
            Self::Unknown { reason } => Self::Unknown { reason: reason.clone() },
        }
    }
}

impl PreflightReport {
    /// Tokens that all trainings are billed for.
    #[must_use]
    pub fn billed_tokens(&self) -> u64 {
        self.trainings.iter().map(|training| training.billed_tokens).sum()
    }
}
