//! The chain as lines of JSON, oldest first, for keeping it elsewhere.

use chrono::{DateTime, Utc};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use sqlx::PgPool;

use super::canonical::CanonicalEvent;
use super::chain::stored;

/// Events read at once. They are appended only, so that reading in parts sees the same as reading at once.
const BATCH: i64 = 500;

/// Which events; an absent condition matches everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The kind of what it was done to.
    pub subject_kind: Option<String>,
    /// What it was done to.
    pub subject_id: Option<String>,
    /// The pipeline it concerns.
    pub pipeline: Option<String>,
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// From this time on.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// From this place in the chain on.
    pub from_seq: Option<i64>,
}

/// One line.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The place in the chain.
    pub seq: i64,
    /// The hash of the event before it in the chain, whether or not that is exported.
    pub previous: String,
    /// Its own: SHA-256 of `previous` and `event`.
    pub hash: String,
    /// What is hashed.
    pub event: CanonicalEvent,
}

/// The sealed events that match, in the order of the chain.
pub fn lines(db: PgPool, filter: Filter) -> impl Stream<Item = sqlx::Result<Vec<Line>>> + Send {
    let first = filter.from_seq.unwrap_or(1);
    stream::try_unfold(Some(first), move |from| {
        let (db, filter) = (db.clone(), filter.clone());
        async move {
            let Some(from) = from else { return Ok(None) };
            let lines = batch(&db, &filter, from).await?;
            let full = i64::try_from(lines.len()).is_ok_and(|count| count == BATCH);
            let next = lines.last().filter(|_| full).map(|line| line.seq + 1);
            Ok((!lines.is_empty()).then_some((lines, next)))
        }
    })
}

async fn batch(db: &PgPool, filter: &Filter, from: i64) -> sqlx::Result<Vec<Line>> {
    let rows = sqlx::query!(
        r#"SELECT s.seq, s.hash, previous.hash AS "previous?", e.id,
                  to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "at!", actor, action,
                  subject_kind, subject_id, pipeline, before::text, after::text, reason, request_id, trace_id
             FROM audit_seals s
             JOIN audit_events e ON e.id = s.event_id
             LEFT JOIN audit_seals previous ON previous.seq = s.seq - 1
            WHERE s.seq >= $1
              AND ($2::text IS NULL OR subject_kind = $2)
              AND ($3::text IS NULL OR subject_id = $3)
              AND ($4::text IS NULL OR pipeline = $4)
              AND ($5::text IS NULL OR actor = $5)
              AND ($6::text IS NULL OR action = $6)
              AND ($7::timestamptz IS NULL OR e.at >= $7)
              AND ($8::timestamptz IS NULL OR e.at < $8)
            ORDER BY s.seq LIMIT $9"#,
        from,
        filter.subject_kind,
        filter.subject_id,
        filter.pipeline,
        filter.actor,
        filter.action,
        filter.since,
        filter.until,
        BATCH,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Line {
                seq: row.seq,
                previous: row.previous.map_or(Ok(super::Hash::START), stored)?.to_string(),
                hash: stored(row.hash)?.to_string(),
                event: CanonicalEvent {
                    action: row.action,
                    actor: row.actor,
                    after: row.after,
                    at: row.at,
                    before: row.before,
                    id: row.id,
                    pipeline: row.pipeline,
                    reason: row.reason,
                    request_id: row.request_id,
                    subject_id: row.subject_id,
                    subject_kind: row.subject_kind,
                    trace_id: row.trace_id,
                },
            })
        })
        .collect()
}
