//! The sums of an experiment from its raw outcomes, should anybody doubt them.

use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::audit::{self, Actor, AuditEvent};

/// What became of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recomputed {
    /// Sums and units are what the outcomes say, and were so before.
    Unchanged,
    /// They are now.
    Changed,
    /// Some of its outcomes have been deleted since: left as it is.
    TooOld,
}

/// Brings the sums and units of one experiment to what its outcomes say. Recording waits meanwhile; the tables are locked in
/// the order in which recording writes them.
pub async fn recompute(db: &PgPool, experiment: Uuid) -> sqlx::Result<Recomputed> {
    let mut tx = db.begin().await?;
    sqlx::query!(
        "LOCK TABLE experiment_units, experiment_sums, experiment_unit_counts IN SHARE ROW EXCLUSIVE MODE"
    )
    .execute(&mut *tx)
    .await?;
    let complete = sqlx::query_scalar!(
        // Five minutes: how far behind the beginning of its revision an outcome's time may be.
        r#"SELECT NOT EXISTS (SELECT 1 FROM experiments e, outcomes_kept_from k
                               WHERE e.id = $1 AND e.started_at - interval '5 minutes' < k.at) AS "complete!""#,
        experiment,
    )
    .fetch_one(&mut *tx)
    .await?;
    if !complete {
        return Ok(Recomputed::TooOld);
    }
    let before = digest(&mut tx, experiment).await?;
    sqlx::query!("SELECT recompute_experiment($1)", experiment).execute(&mut *tx).await?;
    let after = digest(&mut tx, experiment).await?;
    if before == after {
        return Ok(Recomputed::Unchanged);
    }
    let event = AuditEvent {
        before: Some(json!({ "digest": before })),
        after: Some(json!({ "digest": after })),
        ..AuditEvent::new(Actor::System, "experiment.recompute", ("experiment", experiment))
    };
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(Recomputed::Changed)
}

async fn digest(conn: &mut PgConnection, experiment: Uuid) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"SELECT experiment_digest($1) AS "digest!""#, experiment).fetch_one(conn).await
}
