//! The sealer's work: committed events are chained by hash, in order, after the fact. Writers of events never wait for it, nor
//! for each other.

use chrono::{DateTime, Utc};
use sqlx::{Acquire, PgConnection, PgExecutor};

use super::canonical::{CanonicalEvent, Hash};

/// Held by whoever seals, until the transaction ends.
const LOCK: i64 = 0x7475_6e65_7365_616c;

/// An event that is part of the chain.
#[derive(Debug, Clone)]
pub struct SealedEvent {
    /// Its place in the chain, from 1.
    pub seq: i64,
    /// The hash before it.
    pub previous: Hash,
    /// Its own.
    pub hash: Hash,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// What is hashed.
    pub event: CanonicalEvent,
}

/// The newest event of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its place; 0 where nothing is sealed yet.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

/// The newest event that is sealed.
pub async fn head(db: impl PgExecutor<'_>) -> sqlx::Result<Head> {
    let newest = sqlx::query!("SELECT seq, hash FROM audit_seals ORDER BY seq DESC LIMIT 1");
    match newest.fetch_optional(db).await? {
        None => Ok(Head { seq: 0, hash: Hash::START }),
        Some(row) => Ok(Head { seq: row.seq, hash: stored(row.hash)? }),
    }
}

/// How many events wait to be sealed.
pub async fn unsealed(db: impl PgExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM audit_unsealed"#).fetch_one(db).await
}

/// Chains up to `limit` events that are committed and not sealed, by their numbers, and returns them. One whose
/// transaction was slow to commit comes after those with higher numbers that were sealed before it.
pub async fn seal(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<SealedEvent>> {
    let mut tx = conn.begin().await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let Head { mut seq, mut hash } = head(&mut *tx).await?;
    let rows = sqlx::query!(
        // An event that was taken away before it was sealed stays in the queue, where `verify` finds it.
        r#"SELECT e.id, e.at, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "at_text!",
                  actor, action, subject_kind, subject_id, pipeline, before::text, after::text, reason, request_id,
                  trace_id
             FROM audit_unsealed u JOIN audit_events e ON e.id = u.event_id
            ORDER BY u.event_id LIMIT $1"#,
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut sealed = Vec::with_capacity(rows.len());
    for row in rows {
        let event = CanonicalEvent {
            action: row.action,
            actor: row.actor,
            after: row.after,
            at: row.at_text,
            before: row.before,
            id: row.id,
            pipeline: row.pipeline,
            reason: row.reason,
            request_id: row.request_id,
            subject_id: row.subject_id,
            subject_kind: row.subject_kind,
            trace_id: row.trace_id,
        };
        let previous = hash;
        hash = previous.then(&event);
        seq += 1;
        sealed.push(SealedEvent { seq, previous, hash, at: row.at, event });
    }
    write(&mut tx, &sealed).await?;
    tx.commit().await?;
    Ok(sealed)
}

async fn write(conn: &mut PgConnection, sealed: &[SealedEvent]) -> sqlx::Result<()> {
    let seqs: Vec<i64> = sealed.iter().map(|sealed| sealed.seq).collect();
    let events: Vec<i64> = sealed.iter().map(|sealed| sealed.event.id).collect();
    let hashes: Vec<Vec<u8>> = sealed.iter().map(|sealed| sealed.hash.as_bytes().to_vec()).collect();
    sqlx::query!(
        "INSERT INTO audit_seals (seq, event_id, hash)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])",
        &seqs,
        &events,
        &hashes,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM audit_unsealed WHERE event_id = ANY ($1)", &events).execute(conn).await?;
    Ok(())
}

/// A hash that the database holds; its length is checked there.
pub(super) fn stored(hash: Vec<u8>) -> sqlx::Result<Hash> {
    hash.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
