//! Reading a stored snapshot once and reporting on it.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;

use super::Epochs;
use super::lines::{Findings, Rules, TOLD_FAULTS};
use super::prices::PriceTable;
use super::report::{ExpectedCost, ExpectedTraining, OverLimit, PartReport, PreflightReport};
use super::tokens::{Counter, Tokens};
use crate::dataset::{DatasetError, DatasetStore, Manifest, Part};
use crate::pipelines::config::TrainingSettings;
use crate::trainers::{DataRules, Hyperparameters, Method};

/// Lines are examined in pieces of about this many bytes.
const CHUNK: usize = 1 << 20;
/// Pieces under way at once.
const AT_ONCE: usize = 3;

/// What a run would train with.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The trainer's name.
    pub provider: &'a str,
    /// The model that is trained.
    pub base_model: &'a str,
    /// How.
    pub method: Method,
    /// The hyperparameters of each training.
    pub trials: Vec<Hyperparameters>,
}

impl<'a> From<&'a TrainingSettings> for Plan<'a> {
    fn from(settings: &'a TrainingSettings) -> Self {
        Self {
            provider: &settings.provider,
            base_model: &settings.base_model,
            method: settings.method,
            trials: settings.trials(),
        }
    }
}

/// Examines what `manifest` tells of, which the store keeps.
pub async fn examine(
    datasets: &DatasetStore,
    manifest: &Manifest,
    plan: Plan<'_>,
    prices: &PriceTable,
    now: DateTime<Utc>,
) -> Result<PreflightReport, DatasetError> {
    // The first in a process takes its vocabulary apart, which is work for a thread that may be held up: whoever awaits this has
    // a lease to renew meanwhile.
    let model = plan.base_model.to_owned();
    let tokens = tokio::task::spawn_blocking(move || Tokens::of(&model)).await?;
    let data = DataRules::of(plan.provider);
    let limit = data.and_then(|data| data.example_limit(plan.base_model)).map(u64::from);
    let rules = |part| Rules { data, method: plan.method, tokens, limit, part };
    let parts = manifest.parts.as_ref().ok_or_else(|| DatasetError::Altered("without parts".into()))?;
    let mut train = read(datasets, &parts.train, rules("train")).await?;
    let validation = match &parts.validation {
        Some(part) => Some((part, read(datasets, part, rules("validation")).await?)),
        None => None,
    };
    let per_pass = train.tokens.sum(limit.unwrap_or(u64::MAX));
    let trainings: Vec<_> =
        plan.trials.iter().map(|trial| expected(*trial, parts.train.examples, per_pass)).collect();
    let cost = cost(prices, plan.base_model, trainings.iter().map(|training| training.billed_tokens).sum());

    let mut warnings = manifest.warnings.clone();
    let train_report = part_report(&parts.train, &train, limit);
    let validation_report = validation.as_ref().map(|(part, found)| part_report(part, found, limit));
    warn(&mut warnings, &plan, tokens, &train_report, validation_report.as_ref(), &trainings);
    if let Some((_, found)) = validation {
        train.merge_faults(found);
    }
    Ok(PreflightReport {
        made_at: now,
        provider: plan.provider.to_owned(),
        base_model: plan.base_model.to_owned(),
        method: plan.method,
        tokeniser: tokens.name.to_owned(),
        counts: manifest.counts,
        cleaning: manifest.cleaning,
        train: train_report,
        validation: validation_report,
        fault_count: train.fault_count,
        faults: train.faults,
        trainings,
        cost,
        warnings,
    })
}

impl Findings {
    fn merge_faults(&mut self, other: Self) {
        self.fault_count += other.fault_count;
        self.faults.extend(other.faults);
        self.faults.truncate(TOLD_FAULTS);
    }
}

/// Reads a part piece by piece, each of whole lines, and examines several at once. What is found is put together in the order of
/// the lines, so that it does not depend on which piece was examined first.
async fn read(datasets: &DatasetStore, part: &Part, rules: Rules) -> Result<Findings, DatasetError> {
    let (_, mut bytes) = datasets.stream(&part.digest).await?;
    let (mut piece, mut number) = (Vec::new(), 1_u64);
    let (mut under_way, mut all) = (VecDeque::new(), Findings::default());
    let mut counters: Vec<Counter> = Vec::new();
    loop {
        let chunk = bytes.next().await.transpose()?;
        let rest = match &chunk {
            Some(chunk) => {
                piece.extend_from_slice(chunk);
                let Some(rest) = split(&mut piece) else { continue };
                rest
            }
            None => Vec::new(),
        };
        if !piece.is_empty() {
            let lines = std::mem::replace(&mut piece, rest);
            let (first, count) = (number, lines.split_inclusive(|byte| *byte == b'\n').count() as u64);
            let mut counter = counters.pop().unwrap_or_else(|| Counter::new(rules.tokens));
            under_way.push_back(tokio::task::spawn_blocking(move || {
                let found = Findings::of(&lines, first, &rules, &mut counter);
                (found, counter)
            }));
            number += count;
        }
        let keep = if chunk.is_some() { AT_ONCE } else { 0 };
        while under_way.len() > keep {
            let Some(oldest) = under_way.pop_front() else { break };
            let (found, counter) = oldest.await?;
            all.merge(found);
            counters.push(counter);
        }
        if chunk.is_none() {
            return Ok(all);
        }
    }
}

/// Once a piece is long enough, takes the incomplete line from its end.
fn split(piece: &mut Vec<u8>) -> Option<Vec<u8>> {
    if piece.len() < CHUNK {
        return None;
    }
    let end = piece.iter().rposition(|byte| *byte == b'\n')?;
    Some(piece.split_off(end + 1))
}

fn part_report(part: &Part, found: &Findings, limit: Option<u64>) -> PartReport {
    PartReport {
        digest: part.digest.clone(),
        examples: part.examples,
        bytes: part.bytes,
        characters: found.characters.distribution(),
        tokens: found.tokens.distribution(),
        over_limit: limit.map(|limit| OverLimit {
            limit,
            count: found.tokens.above(limit),
            lines: found.over_limit.clone(),
        }),
    }
}

fn expected(hyperparameters: Hyperparameters, examples: u64, per_pass: u64) -> ExpectedTraining {
    let epochs = Epochs::of(hyperparameters.n_epochs, examples);
    ExpectedTraining { hyperparameters, epochs, billed_tokens: per_pass.saturating_mul(epochs.count) }
}

fn cost(prices: &PriceTable, model: &str, billed_tokens: u64) -> ExpectedCost {
    match prices.training(model) {
        Some((price, currency)) => ExpectedCost::Estimate {
            amount: billed_tokens as f64 * price / 1e6,
            currency: currency.to_owned(),
            price_per_million_tokens: price,
        },
        None => ExpectedCost::Unknown {
            reason: format!("the price table has no {model}; add it to the file that TUNELOOP_PRICES names"),
        },
    }
}

fn warn(
    warnings: &mut Vec<String>,
    plan: &Plan<'_>,
    tokens: Tokens,
    train: &PartReport,
    validation: Option<&PartReport>,
    trainings: &[ExpectedTraining],
) {
    let model = plan.base_model;
    if !tokens.known {
        warnings
            .push(format!("the tokeniser of {model} is not known; tokens are counted with {}", tokens.name));
    }
    for (name, part) in [("training", Some(train)), ("validation", validation)] {
        match part.and_then(|part| part.over_limit.as_ref()) {
            Some(over) if over.count > 0 => warnings.push(format!(
                "{} {name} examples have more than the {} tokens that {model} takes; the rest of each is cut off",
                over.count, over.limit
            )),
            None if part.is_some() => {
                warnings.push(format!("the longest {name} example that {model} takes is not known"));
            }
            _ => {}
        }
    }
    if trainings.iter().any(|training| training.epochs.estimated) {
        warnings.push("the provider chooses the number of epochs; tokens and cost are an estimate".into());
    }
}
