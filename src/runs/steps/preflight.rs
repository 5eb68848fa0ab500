//! Preflight: what would be trained on, and what would it cost? Nothing has been paid for so far.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{Postgres, Transaction};

use super::super::machine::StepContext;
use super::super::trainings::{self, NewTraining, Training};
use super::super::transition::Transition;
use super::super::{Request, RunStatus, Step};
use super::{broken, seconds, until};
use crate::dataset::Manifest;
use crate::halt;
use crate::jobs::JobError;
use crate::preflight::{self, ExpectedCost, ExpectedTraining, Gate, PreflightReport, Spending};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let collected = context.run.collected.as_ref().ok_or_else(|| broken("its dataset"))?;
    let examples = collected.counts.examples;
    let needed = context.config.dataset.minimum_examples;
    if examples < u64::from(needed) {
        let reason = format!(
            "{examples} examples are fewer than the {needed} that minimum_examples asks for; lower \
             engagement_threshold or minimum_examples, or look further back"
        );
        let tx = context.begin().await?;
        let data = json!({"examples": examples, "minimum_examples": needed});
        return Ok(
            Transition::finish(tx, RunStatus::Skipped, "insufficient_training_data", reason).with(data)
        );
    }
    // Made once: a run that waited for approval goes on with what was approved.
    let report = match &context.run.preflight {
        Some(Json(report)) => report.clone(),
        None => examine(context, collected).await?,
    };
    halt::point("preflight", "examined");

    let mut tx = context.begin_with_pipeline().await?;
    sqlx::query!("UPDATE runs SET preflight = $2 WHERE id = $1", context.run.id, Json(&report) as _)
        .execute(&mut *tx)
        .await?;
    let data = summary(&report);
    if let Some(fault) = report.faults.first() {
        let reason = format!(
            "{} faults by the rules of {}, the first in line {} of the {} file: {} {}; correct the prompts or the \
             posts and start a new run",
            report.fault_count, report.provider, fault.line, fault.part, fault.field, fault.message
        );
        return Ok(Transition::finish(tx, RunStatus::Failed, "invalid_training_file", reason).with(data));
    }
    let due = due(context, &mut tx, &report).await?;
    let note = match judge(context, &mut tx, &report, &due).await? {
        Judged::GoOn(note) => note,
        Judged::Ask(code, reason) => {
            let wait = until(context.now, expiry(context, report.made_at));
            let reason = format!("waiting for approval or rejection. {reason}");
            return Ok(Transition::ask(tx, wait, code, reason).with(data));
        }
        Judged::Stop(status, code, reason) => {
            return Ok(Transition::finish(tx, status, code, reason).with(data));
        }
    };
    intend(context, &mut tx, collected, &report, &due).await?;
    Ok(Transition::next(tx, Step::Upload, note).with(data))
}

/// The places of the trainings that are to be paid for: all, or after a retry those that earlier ones left without a
/// model.
async fn due(
    context: &StepContext<'_>,
    tx: &mut Transaction<'static, Postgres>,
    report: &PreflightReport,
) -> sqlx::Result<Vec<(i32, ExpectedTraining)>> {
    let before = trainings::newest_of_run(&mut **tx, context.run.id).await?;
    let is_due = |trial: &i32| before.get(trial).is_none_or(Training::is_spent);
    Ok((0..).zip(report.trainings.iter().cloned()).filter(|(trial, _)| is_due(trial)).collect())
}

async fn examine(context: &StepContext<'_>, collected: &Manifest) -> Result<PreflightReport, JobError> {
    let services = context.services;
    let training = &context.config.training;
    let examining =
        preflight::examine(&services.datasets, collected, training.into(), &services.prices, context.now);
    Ok(context.lease.keep(&services.db, examining).await??)
}

/// Whether the run goes on.
enum Judged {
    GoOn(String),
    Ask(&'static str, String),
    Stop(RunStatus, &'static str, String),
}

async fn judge(
    context: &StepContext<'_>,
    tx: &mut Transaction<'static, Postgres>,
    report: &PreflightReport,
    due: &[(i32, ExpectedTraining)],
) -> Result<Judged, JobError> {
    let run = context.run;
    let who = run.request_actor.as_deref().unwrap_or("somebody");
    let why = run.request_reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match run.request {
        Some(Request::Approve) => return Ok(Judged::GoOn(format!("{who} approved the training{why}"))),
        Some(Request::Reject) => {
            let reason = format!("{who} rejected the training{why}");
            return Ok(Judged::Stop(RunStatus::Rejected, "rejected_by_operator", reason));
        }
        _ => {}
    }
    let cost = report.cost.of_tokens(due.iter().map(|(_, expected)| expected.billed_tokens).sum());
    let spent = match &cost {
        ExpectedCost::Estimate { currency, .. } => preflight::spending(tx, &run.pipeline, currency).await?,
        ExpectedCost::Unknown { .. } => Spending::default(),
    };
    Ok(match preflight::gate(&context.config.budget, &cost, spent) {
        Gate::Open => Judged::GoOn(words(report)),
        Gate::Skip(reason) => Judged::Stop(RunStatus::Skipped, "budget_exceeded", reason),
        Gate::Ask(_, reason) if context.now >= expiry(context, report.made_at) => {
            let reason = format!("nobody decided in time. {reason}");
            Judged::Stop(RunStatus::Skipped, "approval_expired", reason)
        }
        Gate::Ask(code, reason) => Judged::Ask(code, reason),
    })
}

fn expiry(context: &StepContext<'_>, made_at: DateTime<Utc>) -> DateTime<Utc> {
    let wait = TimeDelta::from_std(seconds(context.config.budget.approval_seconds));
    wait.ok().and_then(|wait| made_at.checked_add_signed(wait)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The intention: from here on each training has a name, by which its file and its job are found again, and its cost is reserved.
async fn intend(
    context: &StepContext<'_>,
    tx: &mut Transaction<'static, Postgres>,
    collected: &Manifest,
    report: &PreflightReport,
    due: &[(i32, ExpectedTraining)],
) -> Result<(), JobError> {
    let digest = context.run.dataset_digest.as_deref().ok_or_else(|| broken("its dataset"))?;
    let validation = collected.parts.as_ref().and_then(|parts| parts.validation.as_ref());
    let price = match &report.cost {
        ExpectedCost::Estimate { price_per_million_tokens, currency, .. } => {
            Some((*price_per_million_tokens, currency.as_str()))
        }
        ExpectedCost::Unknown { .. } => None,
    };
    for (trial, expected) in due {
        let new = NewTraining {
            id: context.services.clock.uuid(),
            run: context.run.id,
            pipeline: &context.run.pipeline,
            provider: &report.provider,
            base_model: &report.base_model,
            dataset_digest: digest,
            validation_digest: validation.map(|part| part.digest.as_str()),
            trial: *trial,
            hyperparameters: expected.hyperparameters,
            expected_tokens: i64::try_from(expected.billed_tokens).ok(),
            price,
        };
        trainings::insert(tx, &new).await?;
    }
    let all = trainings::newest_of_run(&mut **tx, context.run.id).await?;
    let first = all.values().find(|training| training.is_open()).ok_or_else(|| broken("its trainings"))?;
    trainings::set_current(tx, context.run.id, first.id).await?;
    Ok(())
}

fn words(report: &PreflightReport) -> String {
    let cost = match &report.cost {
        ExpectedCost::Estimate { amount, currency, .. } => format!("about {amount:.2} {currency}"),
        ExpectedCost::Unknown { .. } => "an unknown amount".into(),
    };
    let trainings = match report.trainings.len() {
        1 => String::new(),
        count => format!(" in {count} trainings"),
    };
    format!(
        "{} examples to train on; {} tokens will be billed{trainings}, which costs {cost}",
        report.train.examples,
        report.billed_tokens()
    )
}

fn summary(report: &PreflightReport) -> Value {
    json!({
        "examples": report.train.examples, "tokens": report.train.tokens.as_ref().map(|tokens| tokens.total),
        "billed_tokens": report.billed_tokens(), "cost": report.cost, "fault_count": report.fault_count,
        "warnings": report.warnings,
    })
}
