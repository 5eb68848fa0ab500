//! The end of a run, whoever brings it about.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::transition::{Verdict, event, leave_step};
use super::{Run, RunStatus, cleanup, places};
use crate::audit::{self, AuditEvent, By};

/// Ends a run within the caller's transaction: its state, its event, its audit event; a run that waits for its
/// place is woken. The run's job is the caller's to end.
pub(super) async fn finish(
    conn: &mut PgConnection,
    run: &Run,
    verdict: &Verdict,
    data: &Value,
    by: &By,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE runs SET status = $2, reason_code = $3, reason = $4, place = NULL, version = version + 1,
                request = NULL, request_actor = NULL, request_reason = NULL,
                started_at = coalesce(started_at, now()), finished_at = now()
          WHERE id = $1",
        run.id,
        verdict.status as RunStatus,
        verdict.code,
        verdict.reason,
    )
    .execute(&mut *conn)
    .await?;
    leave_step(conn, run).await?;
    event(conn, run, run.step, "finished", &verdict.reason, data).await?;
    let audit_event = AuditEvent {
        pipeline: Some(&run.pipeline),
        before: Some(json!({"status": run.status, "step": run.step})),
        after: Some(json!({"status": verdict.status, "reason_code": verdict.code})),
        reason: Some(&verdict.reason),
        ..by.event("run.finish", ("run", run.id))
    };
    audit::record(conn, audit_event).await?;
    cleanup::enqueue(conn, run).await?;
    places::wake_waiting(conn, run).await
}
