//! The trainings of a search, one after the other: providers let few jobs train at once, and a budget is easier to keep.

use std::cmp::Ordering;

use serde_json::json;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::super::machine::StepContext;
use super::super::trainings::{self, Training};
use super::super::transition::Transition;
use super::super::{RunStatus, Step};
use crate::jobs::JobError;

/// The run's trainings by their place in the search; of one that was renewed, the newest.
pub(super) async fn of_run(conn: &mut PgConnection, run: Uuid) -> sqlx::Result<Vec<Training>> {
    Ok(trainings::newest_of_run(conn, run).await?.into_values().collect())
}

/// After a training that made a model: on to the next one, or to the registration of the best.
pub(super) async fn ended(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    note: String,
) -> Result<Transition, JobError> {
    let trials = of_run(&mut tx, context.run.id).await?;
    if let Some(next) = trials.iter().find(|trial| trial.is_open()) {
        return on_to(context, tx, next, trials.len(), &note).await;
    }
    let best = trials.iter().filter(|trial| trial.fine_tuned_model.is_some()).min_by(|a, b| by_loss(a, b));
    let note = match best.filter(|_| trials.len() > 1) {
        Some(best) => {
            trainings::set_current(&mut tx, context.run.id, best.id).await?;
            format!("{note}; training {} of {} is the best", best.trial + 1, trials.len())
        }
        None => note,
    };
    Ok(Transition::next(tx, Step::Register, note))
}

/// After a training that made no model: in a search the others still may, else the run has failed.
pub(super) async fn failed(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    code: String,
    reason: String,
) -> Result<Transition, JobError> {
    let trials = of_run(&mut tx, context.run.id).await?;
    let others = trials.iter().any(|trial| trial.is_open() || trial.fine_tuned_model.is_some());
    if others {
        return ended(context, tx, reason).await;
    }
    Ok(Transition::finish(tx, RunStatus::Failed, code, reason))
}

async fn on_to(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    next: &Training,
    trials: usize,
    note: &str,
) -> Result<Transition, JobError> {
    trainings::set_current(&mut tx, context.run.id, next.id).await?;
    let note = format!("{note}; training {} of {trials} follows", next.trial + 1);
    let tried = json!({"trial": next.trial, "hyperparameters": next.hyperparameters});
    Ok(Transition::next(tx, Step::Upload, note).with(tried))
}

/// Smaller first: on what was set aside where that was measured, else on what was trained on.
fn by_loss(a: &Training, b: &Training) -> Ordering {
    let key = |trial: &Training| {
        let loss = trial.validation_loss.or(trial.final_loss);
        (trial.validation_loss.is_none(), loss.unwrap_or(f64::INFINITY), trial.trial)
    };
    let ((a_unmeasured, a_loss, a_trial), (b_unmeasured, b_loss, b_trial)) = (key(a), key(b));
    a_unmeasured.cmp(&b_unmeasured).then(a_loss.total_cmp(&b_loss)).then(a_trial.cmp(&b_trial))
}
