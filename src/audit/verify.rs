//! Whether the trail is as it was sealed. Reads everything once, keeps nothing.

use std::fmt;

use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};
use thiserror::Error;

use super::canonical::{CanonicalEvent, Hash, HashError};
use super::chain::{self, Head, stored};

/// An event that has waited this long should have been sealed.
const PATIENCE_SECONDS: f64 = 60.0;

/// What somebody noted of the chain at an earlier time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// The place in the chain.
    pub seq: i64,
    /// The hash that stood there.
    pub hash: Hash,
}

/// What is the matter with the trail: the first thing that is found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A seal is not where it should be.
    #[error("the seal of place {seq} is missing: it was taken away by somebody with access to the database")]
    SealMissing {
        /// The place.
        seq: i64,
    },
    /// A seal stands there without its event.
    #[error("event {event} (place {seq}) is missing: it was taken away after it was sealed")]
    EventMissing {
        /// The place.
        seq: i64,
        /// The event's number.
        event: i64,
    },
    /// An event is not what was sealed.
    #[error("event {event} (place {seq}) is not as it was sealed: it, its seal or their order was altered")]
    Altered {
        /// The place.
        seq: i64,
        /// The event's number.
        event: i64,
    },
    /// The chain is shorter than it was.
    #[error(
        "the chain ends at place {end}, before place {seq} that was noted: what came after was taken away"
    )]
    Shortened {
        /// Where it ends.
        end: i64,
        /// The place that was noted.
        seq: i64,
    },
    /// The chain is shorter than what it is to be read from.
    #[error("the chain ends at place {end}: it cannot be read from place {from}")]
    Beyond {
        /// Where it ends.
        end: i64,
        /// The place it was to be read from.
        from: i64,
    },
    /// The chain is another one.
    #[error("place {seq} has the hash {found}, not the one that was noted: the chain was written anew")]
    Unexpected {
        /// The place.
        seq: i64,
        /// What stands there now.
        found: Hash,
    },
    /// An event that the sealer was never told of.
    #[error(
        "event {event} has no seal and does not wait for one: it was put in, or its seal taken away, by hand"
    )]
    NeverQueued {
        /// The event's number.
        event: i64,
    },
    /// An event that was taken away before it was sealed.
    #[error("event {event} is missing: it was taken away before it was sealed")]
    MissingUnsealed {
        /// The event's number.
        event: i64,
    },
    /// Events wait too long.
    #[error(
        "event {event} has waited for its seal for more than a minute: see that a worker and a scheduler run, and verify again"
    )]
    Waiting {
        /// The oldest one's number.
        event: i64,
    },
}

/// Why the trail was not found sound.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Something is the matter with it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It could not be read.
    #[error("the trail cannot be read")]
    Database(#[from] sqlx::Error),
}

/// What was found to be sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many sealed events were checked.
    pub events: i64,
    /// How many are younger than a minute and not sealed yet.
    pub unsealed: i64,
    /// The end of the chain.
    pub head: Head,
}

/// Not of the form of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a place and its hash as `tuneloop audit verify` prints them, such as 120:9f86d0…")]
pub struct ExpectationError;

impl std::str::FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Self, ExpectationError> {
        let (seq, hash) = text.trim().split_once(':').ok_or(ExpectationError)?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 1).ok_or(ExpectationError)?;
        let hash = hash.parse().map_err(|HashError| ExpectationError)?;
        Ok(Self { seq, hash })
    }
}

/// Prints as `SEQ:HASH`, which is what [`Expectation`] reads.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// Reads the chain from place `from` to its end, as of one moment, and what is not sealed yet. The hash before `from` is
/// taken as it stands. That the end was cut off shows only against a note of what was there (`expected`).
pub async fn verify(
    conn: &mut PgConnection,
    from: i64,
    expected: Option<Expectation>,
) -> Result<Verified, VerifyError> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = 0",
    )
    .execute(&mut *tx)
    .await?;
    let end = chain::head(&mut *tx).await?.seq;
    if let Some(expected) = expected.filter(|expected| expected.seq > end) {
        return Err(Fault::Shortened { end, seq: expected.seq }.into());
    }
    if from > end + 1 {
        return Err(Fault::Beyond { end, from }.into());
    }
    let start = before(&mut tx, from).await?;
    let head = walk(&mut tx, start, expected).await?;
    if let Some(expected) = expected.filter(|expected| expected.seq < from) {
        let found = at(&mut tx, expected.seq).await?.ok_or(Fault::SealMissing { seq: expected.seq })?;
        check(expected, found)?;
    }
    let unsealed = waiting(&mut tx).await?;
    tx.rollback().await?;
    Ok(Verified { events: head.seq - start.seq, unsealed, head })
}

fn check(expected: Expectation, found: Hash) -> Result<(), Fault> {
    if expected.hash == found { Ok(()) } else { Err(Fault::Unexpected { seq: expected.seq, found }) }
}

/// What the chain goes on from.
async fn before(conn: &mut PgConnection, from: i64) -> Result<Head, VerifyError> {
    if from <= 1 {
        return Ok(Head { seq: 0, hash: Hash::START });
    }
    let hash = at(conn, from - 1).await?.ok_or(Fault::SealMissing { seq: from - 1 })?;
    Ok(Head { seq: from - 1, hash })
}

async fn at(conn: &mut PgConnection, seq: i64) -> sqlx::Result<Option<Hash>> {
    let hash = sqlx::query_scalar!("SELECT hash FROM audit_seals WHERE seq = $1", seq);
    hash.fetch_optional(conn).await?.map(stored).transpose()
}

/// Computes each hash anew, and returns where the chain ends.
async fn walk(
    conn: &mut PgConnection,
    start: Head,
    expected: Option<Expectation>,
) -> Result<Head, VerifyError> {
    let Head { mut seq, mut hash } = start;
    let mut rows = sqlx::query!(
        r#"SELECT s.seq, s.event_id, s.hash, e.id AS "id?",
                  to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, actor AS "actor?",
                  action AS "action?", subject_kind AS "subject_kind?", subject_id AS "subject_id?", pipeline,
                  before::text, after::text, reason, request_id, trace_id
             FROM audit_seals s LEFT JOIN audit_events e ON e.id = s.event_id
            WHERE s.seq > $1 ORDER BY s.seq"#,
        seq,
    )
    .fetch(conn);
    while let Some(row) = rows.try_next().await? {
        seq += 1;
        if row.seq != seq {
            return Err(Fault::SealMissing { seq }.into());
        }
        let parts = (row.id, row.at, row.actor, row.action, row.subject_kind, row.subject_id);
        let (Some(id), Some(at), Some(actor), Some(action), Some(subject_kind), Some(subject_id)) = parts
        else {
            return Err(Fault::EventMissing { seq, event: row.event_id }.into());
        };
        let event = CanonicalEvent {
            action,
            actor,
            after: row.after,
            at,
            before: row.before,
            id,
            pipeline: row.pipeline,
            reason: row.reason,
            request_id: row.request_id,
            subject_id,
            subject_kind,
            trace_id: row.trace_id,
        };
        hash = hash.then(&event);
        if hash != stored(row.hash)? {
            return Err(Fault::Altered { seq, event: id }.into());
        }
        if let Some(expected) = expected.filter(|expected| expected.seq == seq) {
            check(expected, hash)?;
        }
    }
    Ok(Head { seq, hash })
}

/// How many events are rightly not sealed yet.
async fn waiting(conn: &mut PgConnection) -> Result<i64, VerifyError> {
    let never_queued = sqlx::query_scalar!(
        "SELECT id FROM audit_events e
          WHERE NOT EXISTS (SELECT 1 FROM audit_seals s WHERE s.event_id = e.id)
            AND NOT EXISTS (SELECT 1 FROM audit_unsealed u WHERE u.event_id = e.id)
          ORDER BY id LIMIT 1"
    );
    if let Some(event) = never_queued.fetch_optional(&mut *conn).await? {
        return Err(Fault::NeverQueued { event }.into());
    }
    let missing = sqlx::query_scalar!(
        "SELECT event_id FROM audit_unsealed u
          WHERE NOT EXISTS (SELECT 1 FROM audit_events e WHERE e.id = u.event_id)
          ORDER BY event_id LIMIT 1"
    );
    if let Some(event) = missing.fetch_optional(&mut *conn).await? {
        return Err(Fault::MissingUnsealed { event }.into());
    }
    let late = sqlx::query_scalar!(
        "SELECT e.id FROM audit_unsealed u JOIN audit_events e ON e.id = u.event_id
          WHERE e.at < clock_timestamp() - make_interval(secs => $1)
          ORDER BY e.id LIMIT 1",
        PATIENCE_SECONDS,
    );
    if let Some(event) = late.fetch_optional(&mut *conn).await? {
        return Err(Fault::Waiting { event }.into());
    }
    Ok(super::chain::unsealed(conn).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_the_head_is_printed() {
        let head = Head { seq: 12, hash: Hash::START };
        assert_eq!(head.to_string().parse(), Ok(Expectation { seq: 12, hash: Hash::START }));
        for bad in ["", "12", "12:", "0:00", ":", "x:00"] {
            assert_eq!(bad.parse::<Expectation>(), Err(ExpectationError), "{bad}");
        }
    }
}
