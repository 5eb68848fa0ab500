//! Traffic revisions in the database: append and read, nothing else.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Revision, RevisionKind, Share, WHOLE, wake_publications};
use crate::audit::{self, AuditEvent, By};
use crate::models::{Version, VersionStatus};

/// A revision to be written.
#[derive(Debug)]
pub struct NewRevision<'a> {
    /// The live version.
    pub live: Uuid,
    /// Hashed with a unit to assign it.
    pub salt: &'a str,
    /// The experiment that this traffic belongs to.
    pub experiment_id: Option<Uuid>,
    /// The decision that it carries out.
    pub decision_id: Option<Uuid>,
    /// Whether somebody overrode a safety check that had failed.
    pub forced: bool,
    /// Why it is written.
    pub kind: RevisionKind,
    /// The same in one sentence.
    pub reason: &'a str,
    /// Versions and weights in the order in which weights are accumulated. Under the kill switch they are withheld.
    pub shares: &'a [(Uuid, i32)],
}

/// Locks the pipeline until the transaction ends: changes of its traffic and of the places of its runs come
/// one after the other. Returns `false` for an unknown pipeline.
pub async fn lock(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!("SELECT true FROM pipelines WHERE name = $1 FOR NO KEY UPDATE", pipeline)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// Writes the next revision of a pipeline, with its audit event, and returns its number. Where it is published is told.
///
/// While the kill switch is on, what would serve is kept as withheld and the live version serves everything, whatever the
/// change: so each change says what is restored, and none has to know of the switch.
pub async fn append(
    conn: &mut PgConnection,
    pipeline: &str,
    new: &NewRevision<'_>,
    by: &By,
) -> sqlx::Result<i64> {
    let before = current(&mut *conn, pipeline).await?;
    let kill_switch = match new.kind {
        RevisionKind::KillSwitchOn => true,
        RevisionKind::KillSwitchOff => false,
        _ => before.as_ref().is_some_and(|revision| revision.kill_switch),
    };
    let revision = sqlx::query_scalar!(
        "UPDATE pipelines SET traffic_revision = traffic_revision + 1 WHERE name = $1
         RETURNING traffic_revision",
        pipeline,
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO traffic_revisions
                (pipeline, revision, live_version_id, salt, experiment_id, kind, reason, actor, kill_switch,
                 decision_id, forced)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        pipeline,
        revision,
        new.live,
        new.salt,
        new.experiment_id,
        new.kind as RevisionKind,
        new.reason,
        by.actor.to_string(),
        kill_switch,
        new.decision_id,
        new.forced,
    )
    .execute(&mut *conn)
    .await?;
    let all_to_live = [(new.live, WHOLE)];
    let serving = if kill_switch { &all_to_live } else { new.shares };
    let (versions, weights): (Vec<Uuid>, Vec<i32>) = serving.iter().copied().unzip();
    sqlx::query!(
        "INSERT INTO traffic_weights (pipeline, revision, position, model_version_id, weight)
         SELECT $1, $2, ordinality - 1, version, weight
           FROM unnest($3::uuid[], $4::integer[]) WITH ORDINALITY AS share (version, weight)",
        pipeline,
        revision,
        &versions,
        &weights,
    )
    .execute(&mut *conn)
    .await?;
    if kill_switch {
        withhold(conn, pipeline, revision, new.shares).await?;
    }
    let after = current(&mut *conn, pipeline).await?;
    let event = AuditEvent {
        pipeline: Some(pipeline),
        before: before.as_ref().map(summary),
        after: after.as_ref().map(summary),
        reason: Some(new.reason),
        ..by.event(new.kind.action(), ("pipeline", pipeline))
    };
    audit::record(&mut *conn, event).await?;
    wake_publications(conn, pipeline).await?;
    Ok(revision)
}

async fn withhold(
    conn: &mut PgConnection,
    pipeline: &str,
    revision: i64,
    shares: &[(Uuid, i32)],
) -> sqlx::Result<()> {
    let (versions, weights): (Vec<Uuid>, Vec<i32>) = shares.iter().copied().unzip();
    sqlx::query!(
        "INSERT INTO traffic_withheld (pipeline, revision, position, model_version_id, weight)
         SELECT $1, $2, ordinality - 1, version, weight
           FROM unnest($3::uuid[], $4::integer[]) WITH ORDINALITY AS share (version, weight)",
        pipeline,
        revision,
        &versions,
        &weights,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn summary(revision: &Revision) -> Value {
    let weights = |shares: &[Share]| -> serde_json::Map<String, Value> {
        shares.iter().map(|share| (share.version.to_string(), share.weight.into())).collect()
    };
    let mut summary = json!({
        "revision": revision.revision,
        "live": revision.live().map(|share| share.version),
        "weights": weights(&revision.shares),
    });
    if let Some(decision) = revision.decision_id {
        summary["decision_id"] = decision.to_string().into();
    }
    if revision.forced {
        summary["forced"] = true.into();
    }
    if revision.kill_switch {
        summary["kill_switch"] = true.into();
        summary["withheld"] = weights(&revision.withheld).into();
    }
    summary
}

/// The revision in force; `None` for an unknown pipeline.
pub async fn current(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<Option<Revision>> {
    Ok(select(conn, pipeline, None, None, 1).await?.pop())
}

/// Why the split of an experiment's traffic was last changed, other than by the kill switch.
pub async fn last_change(
    conn: &mut PgConnection,
    pipeline: &str,
    experiment: Uuid,
) -> sqlx::Result<Option<RevisionKind>> {
    sqlx::query_scalar!(
        r#"SELECT kind AS "kind: RevisionKind" FROM traffic_revisions
            WHERE pipeline = $1 AND experiment_id = $2 AND kind NOT IN ('kill_switch_on', 'kill_switch_off')
            ORDER BY revision DESC LIMIT 1"#,
        pipeline,
        experiment,
    )
    .fetch_optional(conn)
    .await
}

/// The revision that was in force at `time`; `None` before the first.
pub async fn at(
    conn: &mut PgConnection,
    pipeline: &str,
    time: DateTime<Utc>,
) -> sqlx::Result<Option<Revision>> {
    Ok(select(conn, pipeline, Some(time), None, 1).await?.pop())
}

/// The revision of this number.
pub async fn by_number(
    conn: &mut PgConnection,
    pipeline: &str,
    number: i64,
) -> sqlx::Result<Option<Revision>> {
    let below = number.saturating_add(1);
    let found = select(conn, pipeline, None, Some(below), 1).await?.pop();
    Ok(found.filter(|revision| revision.revision == number))
}

/// Revisions older than `below`, newest first.
pub async fn history(
    conn: &mut PgConnection,
    pipeline: &str,
    below: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Revision>> {
    select(conn, pipeline, None, below, limit).await
}

async fn select(
    conn: &mut PgConnection,
    pipeline: &str,
    until: Option<DateTime<Utc>>,
    below: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Revision>> {
    let rows = sqlx::query!(
        r#"SELECT revision, live_version_id, salt, experiment_id, kind AS "kind: RevisionKind", reason, actor,
                  created_at, kill_switch, decision_id, forced
             FROM traffic_revisions
            WHERE pipeline = $1 AND ($2::timestamptz IS NULL OR created_at <= $2)
              AND ($3::bigint IS NULL OR revision < $3)
            ORDER BY revision DESC LIMIT $4"#,
        pipeline,
        until,
        below,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    let numbers: Vec<i64> = rows.iter().map(|row| row.revision).collect();
    let mut shares = shares_of(conn, pipeline, &numbers).await?;
    let mut take = |of: i64, held_back: bool| {
        let wanted =
            |&mut (number, withheld, _): &mut (i64, bool, Share)| (number, withheld) == (of, held_back);
        shares.extract_if(.., wanted).map(|(_, _, share)| share).collect()
    };
    Ok(rows
        .into_iter()
        .map(|row| Revision {
            pipeline: pipeline.to_owned(),
            revision: row.revision,
            live_version_id: row.live_version_id,
            salt: row.salt,
            experiment_id: row.experiment_id,
            decision_id: row.decision_id,
            forced: row.forced,
            kind: row.kind,
            reason: row.reason,
            actor: row.actor,
            created_at: row.created_at,
            shares: take(row.revision, false),
            kill_switch: row.kill_switch,
            withheld: take(row.revision, true),
        })
        .collect())
}

/// The shares of these revisions and those that they withhold, by revision and whether it is withheld, in the order of
/// accumulation.
async fn shares_of(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    revisions: &[i64],
) -> sqlx::Result<Vec<(i64, bool, Share)>> {
    let rows = sqlx::query!(
        r#"SELECT w.revision AS "revision!", w.withheld AS "withheld!", w.weight AS "weight!", v.id, v.major,
                  v.minor, v.patch, v.provider_model_id, v.status AS "status: VersionStatus"
             FROM (SELECT pipeline, revision, position, model_version_id, weight, false AS withheld
                     FROM traffic_weights
                    UNION ALL
                   SELECT pipeline, revision, position, model_version_id, weight, true FROM traffic_withheld) w
             JOIN model_versions v ON v.id = w.model_version_id
            WHERE w.pipeline = $1 AND w.revision = ANY($2)
            ORDER BY w.revision, w.withheld, w.position"#,
        pipeline,
        revisions,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let share = Share {
                model_version_id: row.id,
                version: Version { major: row.major, minor: row.minor, patch: row.patch },
                status: row.status,
                provider_model_id: row.provider_model_id,
                weight: row.weight,
            };
            (row.revision, row.withheld, share)
        })
        .collect())
}
