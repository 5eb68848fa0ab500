//! The end of a step: its outcome, committed with everything that follows from it.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use super::{Place, Run, RunStatus, Step, finish};
use crate::audit::{self, Actor, AuditEvent, By};
use crate::halt;
use crate::jobs::{JobError, Lease};

/// What a step makes of its run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// On to another step, at once.
    Next(Step),
    /// The same step again, later.
    Wait {
        /// How much later.
        after: Duration,
        /// Running, or waiting for approval.
        status: RunStatus,
        /// Why, for machines.
        code: &'static str,
        /// The same in one sentence.
        reason: String,
    },
    /// The end of the run.
    Finish(Verdict),
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) status: RunStatus,
    /// Why, for machines.
    pub(super) code: String,
    /// The same in one sentence.
    pub(super) reason: String,
}

/// An outcome with the transaction it is committed in, in which the step has written its results. The
/// run's row is locked and at the version that the step saw.
pub(super) struct Transition {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) outcome: Outcome,
    /// What the step did, in one sentence.
    pub(super) note: String,
    /// The same in figures.
    pub(super) data: Value,
}

impl Transition {
    pub(super) fn next(tx: Transaction<'static, Postgres>, step: Step, note: impl Into<String>) -> Self {
        Self { tx, outcome: Outcome::Next(step), note: note.into(), data: json!({}) }
    }

    pub(super) fn wait(
        tx: Transaction<'static, Postgres>,
        after: Duration,
        code: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self::waiting(tx, after, RunStatus::Running, code, reason.into())
    }

    /// As [`Self::wait`], for a person who approves or rejects.
    pub(super) fn ask(
        tx: Transaction<'static, Postgres>,
        after: Duration,
        code: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self::waiting(tx, after, RunStatus::WaitingApproval, code, reason.into())
    }

    fn waiting(
        tx: Transaction<'static, Postgres>,
        after: Duration,
        status: RunStatus,
        code: &'static str,
        reason: String,
    ) -> Self {
        let note = reason.clone();
        Self { tx, outcome: Outcome::Wait { after, status, code, reason }, note, data: json!({}) }
    }

    pub(super) fn finish(
        tx: Transaction<'static, Postgres>,
        status: RunStatus,
        code: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let reason = reason.into();
        let note = reason.clone();
        let outcome = Outcome::Finish(Verdict { status, code: code.into(), reason });
        Self { tx, outcome, note, data: json!({}) }
    }

    pub(super) fn with(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// Writes the run's new state, its event, its audit event and its next job, and commits them together.
    pub(super) async fn commit(mut self, run: &Run, lease: &Lease) -> Result<Outcome, JobError> {
        let conn = &mut *self.tx;
        match &self.outcome {
            Outcome::Next(step) => {
                enter(conn, run, *step).await?;
                event(conn, run, run.step, "progress", &self.note, &self.data).await?;
                event(conn, run, *step, "entered", &format!("{step} began"), &json!({})).await?;
                record_step(conn, run, *step, &self.note).await?;
                lease.reschedule(conn, Duration::ZERO).await?;
            }
            Outcome::Wait { after, status, code, reason } => {
                let changed = run.reason.as_deref() != Some(reason.as_str());
                wait(conn, run, *status, code, reason).await?;
                if changed {
                    event(conn, run, run.step, "waiting", &self.note, &self.data).await?;
                }
                if run.status != *status {
                    record_status(conn, run, *status, reason).await?;
                }
                lease.reschedule(conn, *after).await?;
            }
            Outcome::Finish(verdict) => {
                finish::finish(conn, run, verdict, &self.data, &By::worker()).await?;
                lease.finish(conn).await?;
            }
        }
        halt::point(run.step.as_str(), "committing");
        self.tx.commit().await?;
        halt::point(run.step.as_str(), "committed");
        Ok(self.outcome)
    }
}

async fn enter(conn: &mut PgConnection, run: &Run, step: Step) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE runs SET status = 'running', step = $2, version = version + 1, reason_code = NULL,
                reason = NULL, started_at = coalesce(started_at, now()),
                request = CASE WHEN request IN ('approve', 'reject') THEN NULL ELSE request END,
                request_actor = CASE WHEN request IN ('approve', 'reject') THEN NULL ELSE request_actor END,
                request_reason = CASE WHEN request IN ('approve', 'reject') THEN NULL ELSE request_reason END
          WHERE id = $1",
        run.id,
        step as Step,
    )
    .execute(&mut *conn)
    .await?;
    leave_step(conn, run).await?;
    enter_step(conn, run, step).await
}

/// Notes that the run is in a step from now on.
pub(super) async fn enter_step(conn: &mut PgConnection, run: &Run, step: Step) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO run_steps (run_id, step) VALUES ($1, $2)
         ON CONFLICT (run_id, step) DO UPDATE SET started_at = now(), finished_at = NULL",
        run.id,
        step as Step,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the run has left the step it was in.
pub(super) async fn leave_step(conn: &mut PgConnection, run: &Run) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO run_steps (run_id, step, started_at, finished_at) VALUES ($1, $2, $3, now())
         ON CONFLICT (run_id, step) DO UPDATE SET finished_at = now()",
        run.id,
        run.step as Step,
        run.started_at.unwrap_or(run.created_at),
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn wait(
    conn: &mut PgConnection,
    run: &Run,
    status: RunStatus,
    code: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE runs SET status = $2, reason_code = $3, reason = $4, version = version + 1,
                started_at = coalesce(started_at, now())
          WHERE id = $1",
        run.id,
        status as RunStatus,
        code,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a run one of its pipeline's places.
pub(super) async fn set_place(conn: &mut PgConnection, run: &Run, place: Place) -> sqlx::Result<()> {
    sqlx::query!("UPDATE runs SET place = $2 WHERE id = $1", run.id, place as Place).execute(conn).await?;
    Ok(())
}

/// Adds to a run's history.
pub(super) async fn event(
    conn: &mut PgConnection,
    run: &Run,
    step: Step,
    kind: &str,
    message: &str,
    data: &Value,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO run_events (run_id, step, kind, message, data) VALUES ($1, $2, $3, $4, $5)",
        run.id,
        step as Step,
        kind,
        message,
        data,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn record_step(conn: &mut PgConnection, run: &Run, step: Step, note: &str) -> sqlx::Result<()> {
    let event = AuditEvent {
        pipeline: Some(&run.pipeline),
        before: Some(json!({"status": run.status, "step": run.step})),
        after: Some(json!({"status": RunStatus::Running, "step": step})),
        reason: Some(note),
        ..AuditEvent::new(Actor::Worker, "run.step", ("run", run.id))
    };
    audit::record(conn, event).await
}

async fn record_status(
    conn: &mut PgConnection,
    run: &Run,
    status: RunStatus,
    reason: &str,
) -> sqlx::Result<()> {
    let event = AuditEvent {
        pipeline: Some(&run.pipeline),
        before: Some(json!({"status": run.status})),
        after: Some(json!({"status": status})),
        reason: Some(reason),
        ..AuditEvent::new(Actor::Worker, "run.status", ("run", run.id))
    };
    audit::record(conn, event).await
}
