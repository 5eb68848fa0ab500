//! Decide: what the test says, written down with its evidence, and what follows from it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use super::super::machine::StepContext;
use super::super::transition::Transition;
use super::super::{Request, Run, RunStatus, Step};
use super::{broken, seconds, until};
use crate::audit::By;
use crate::experiments::decision::{Decision, Record, Verdict};
use crate::experiments::{self, Experiment, StoredDecision};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, VersionStatus};
use crate::traffic::{self, TestArms};

/// The code of a run whose test asks for a person.
const WAITING: &str = "waiting_approval";

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let id = context.run.experiment_id.ok_or_else(|| broken("its experiment"))?;
    let db = &context.services.db;
    let experiment = experiments::by_id(db, id).await?.ok_or_else(|| broken("its experiment"))?;
    match experiments::decision_of(db, id).await? {
        None => decide(context, &experiment).await,
        Some(decision) => await_approval(context, &decision).await,
    }
}

async fn decide(context: &StepContext<'_>, experiment: &Experiment) -> Result<Transition, JobError> {
    let mut tx = context.begin_with_pipeline().await?;
    experiments::hold_still(&mut tx).await?;
    let evidence = experiments::evidence(&mut tx, experiment, context.now).await?;
    let record = Record::decide(experiment.rules.clone(), evidence);
    let decision = record.decision.clone();
    if decision.verdict == Verdict::Collecting {
        // What the last look saw has vanished with a late outcome: the test goes on, and a look is spent.
        if let Some(look) = decision.early_look {
            experiments::spend_look(&mut tx, experiment.id, look).await?;
        }
        return Ok(Transition::next(tx, Step::Test, "the test goes on"));
    }
    if let (Verdict::Extend, Some(extension)) = (decision.verdict, experiment.rules.extension) {
        return extend(tx, experiment, extension.hours, decision).await;
    }
    let decision_id = context.services.clock.uuid();
    experiments::conclude(&mut tx, experiment.id, decision_id, &record, &By::worker()).await?;
    halt::point("decide", "recorded");
    let data = figures(&decision);
    let transition = match decision.verdict {
        Verdict::Promote => Transition::next(tx, Step::Promote, decision.reason),
        Verdict::Inconclusive => ask(context, tx, experiment, decision).await?,
        verdict => reject(context, tx, experiment, verdict, decision).await?,
    };
    Ok(transition.with(data))
}

/// The test goes on, with the same split. What was found is told and not stored as the decision, which falls
/// at the new horizon.
async fn extend(
    mut tx: Transaction<'static, Postgres>,
    experiment: &Experiment,
    hours: f64,
    decision: Decision,
) -> Result<Transition, JobError> {
    experiments::extend(&mut tx, experiment, hours, &decision.reason, &By::worker()).await?;
    let data = figures(&decision);
    Ok(Transition::next(tx, Step::Test, decision.reason).with(data))
}

/// The candidate lost, or the test was worth nothing: the baseline serves everything again.
async fn reject(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    experiment: &Experiment,
    verdict: Verdict,
    decision: Decision,
) -> Result<Transition, JobError> {
    let (run_status, version_status) = match verdict {
        Verdict::Invalid => (RunStatus::Failed, VersionStatus::Candidate),
        _ => (RunStatus::Rejected, VersionStatus::Rejected),
    };
    end_test(context, &mut tx, experiment, version_status, &decision.reason).await?;
    Ok(Transition::finish(tx, run_status, word(&decision.reason_code), decision.reason))
}

/// A person decides. Meanwhile the baseline serves everything: nothing speaks for the candidate.
async fn ask(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    experiment: &Experiment,
    decision: Decision,
) -> Result<Transition, JobError> {
    end_test(context, &mut tx, experiment, VersionStatus::Candidate, &decision.reason).await?;
    let after = seconds(context.config.experiment.approval_seconds);
    let reason = format!("waiting for approval or rejection. {}", decision.reason);
    Ok(Transition::ask(tx, after, WAITING, reason))
}

async fn await_approval(
    context: &StepContext<'_>,
    decision: &StoredDecision,
) -> Result<Transition, JobError> {
    let run = context.run;
    let who = run.request_actor.as_deref().unwrap_or("somebody");
    let why = run.request_reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let expires_at = expiry(context, decision.created_at);
    let mut tx = context.begin_with_pipeline().await?;
    match run.request {
        Some(Request::Approve) => {
            keep_approval(&mut tx, run).await?;
            Ok(Transition::next(tx, Step::Promote, format!("{who} approved the promotion{why}")))
        }
        Some(Request::Reject) => {
            let candidate = run.model_version_id.ok_or_else(|| broken("its model version"))?;
            let reason = format!("{who} rejected the candidate{why}");
            models::set_status(&mut tx, candidate, VersionStatus::Rejected, &reason, &By::worker()).await?;
            Ok(Transition::finish(tx, RunStatus::Rejected, "rejected_by_operator", reason))
        }
        _ if context.now >= expires_at => {
            let reason = format!("nobody decided in time. {}", decision.record.decision.reason);
            Ok(Transition::finish(tx, RunStatus::Inconclusive, "approval_expired", reason))
        }
        _ => {
            let reason = run.reason.clone().unwrap_or_else(|| decision.record.decision.reason.clone());
            Ok(Transition::ask(tx, until(context.now, expires_at), WAITING, reason))
        }
    }
}

/// For the promotion, which says who approved it and why.
async fn keep_approval(conn: &mut PgConnection, run: &Run) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE runs SET approved_by = request_actor, approval_reason = coalesce(request_reason, 'no reason was given') WHERE id = $1",
        run.id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn expiry(context: &StepContext<'_>, decided_at: DateTime<Utc>) -> DateTime<Utc> {
    let wait = TimeDelta::from_std(seconds(context.config.experiment.approval_seconds));
    wait.ok().and_then(|wait| decided_at.checked_add_signed(wait)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

async fn end_test(
    context: &StepContext<'_>,
    tx: &mut Transaction<'static, Postgres>,
    experiment: &Experiment,
    status: VersionStatus,
    reason: &str,
) -> Result<(), JobError> {
    let arms = TestArms {
        experiment_id: experiment.id,
        baseline: experiment.baseline_id,
        candidate: experiment.candidate_id,
    };
    let decision = experiments::decision_of(&mut **tx, experiment.id).await?.map(|decision| decision.id);
    traffic::end_test(tx, &context.run.pipeline, arms, status, decision, reason, &By::worker()).await?;
    Ok(())
}

fn figures(decision: &Decision) -> Value {
    json!({
        "verdict": decision.verdict, "reason_code": decision.reason_code, "estimate": decision.estimate,
        "sample_ratio": decision.sample_ratio,
    })
}

/// A reason code as it is written in JSON.
fn word(code: &impl serde::Serialize) -> String {
    match serde_json::to_value(code) {
        Ok(Value::String(word)) => word,
        _ => "decided".into(),
    }
}
