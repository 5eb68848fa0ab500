//! Recording what was observed of served versions, a batch at a time: the raw rows, and in the same transaction the sums and
//! counts that an analysis reads, so that its cost grows with clusters and not with outcomes.
//!
//! Rows are locked in one order (ids, units, sums, counts of units, each sorted), so that batches that meet wait for
//! each other and never in a circle. Sums and counts, which all batches share, come last: they are held shortest.

mod correct;
mod judge_state;
mod judged;
mod outcome;
mod partitions;
mod place;
mod pulls;
mod recompute;
mod rows;
mod samples;
mod sums;
mod units;

use std::collections::{BTreeMap, btree_map};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use judge_state::{
    JudgeCalls, JudgeState, JudgeUsage, count_judge_calls, judge_stands_still, judge_state,
};
pub use judged::{MOST_ATTEMPTS, Verdict, Waiting, Work, samples_due, settle, take_samples};
pub use outcome::{Outcome, OutcomeText};
pub use partitions::drop_older_than;
pub use pulls::{PullCounts, PullState, pull_anew, pull_failed, pull_state, pulled};
pub use recompute::{Recomputed, recompute};
pub use samples::{expire_samples, sampled};

use outcome::Values;
use place::{Known, Place};
use rows::Rows;

/// The most outcomes in one call.
pub const MAX_BATCH: usize = 10_000;

/// What is done with an outcome whose id was recorded before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// It is counted and changes nothing.
    #[default]
    Keep,
    /// Its values replace the former ones: an engagement rate grows for days. What it leaves out stays, as do the version, the
    /// unit, the persona and the time.
    Replace,
}

/// How a batch is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recording {
    /// The service's time.
    pub now: DateTime<Utc>,
    /// How long outcomes are kept: what was served longer ago is refused.
    pub retention: TimeDelta,
    /// What is done with ids that are known.
    pub repeats: Repeats,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Recorded {
    /// Newly recorded.
    pub accepted: u64,
    /// Those of them that are evidence in no experiment: none was under way, the unit was pinned, the kill switch was on, or the
    /// revision did not give both versions under test a share.
    pub not_analysed: u64,
    /// Known already, and given other values.
    pub corrected: u64,
    /// Known already, and left as they are.
    pub duplicates: u64,
    /// Left out, each with its reason.
    pub rejected: Vec<Rejected>,
}

/// An outcome that was left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What to change, in one sentence.
    pub reason: String,
}

/// An outcome of a batch that is to be recorded.
#[derive(Debug)]
struct Sent {
    index: usize,
    outcome: Outcome,
    /// What of it is recorded as measured.
    values: Values,
    place: Place,
}

/// Records the valid outcomes of a batch; those that are not are told with their index. An item is what could be read as an
/// outcome, or why it could not.
pub async fn record(
    conn: &mut PgConnection,
    batch: Vec<Result<Outcome, String>>,
    how: Recording,
) -> sqlx::Result<Recorded> {
    let kept_since = how.now.checked_sub_signed(how.retention).unwrap_or(DateTime::UNIX_EPOCH);
    let known = Known::load(conn, batch.iter().flatten(), kept_since).await?;
    let mut recorded = Recorded::default();
    let mut valid = Vec::new();
    for (index, item) in batch.into_iter().enumerate() {
        let placed = item.and_then(|outcome| {
            outcome.check(how.now, how.retention)?;
            known.place(&outcome).map(|place| Sent { index, values: outcome.values(), outcome, place })
        });
        match placed {
            Ok(item) => valid.push(item),
            Err(reason) => recorded.rejected.push(Rejected { index, reason }),
        }
    }
    let (mut sent, mut again) = first_of_each(valid);
    if sent.is_empty() {
        return Ok(recorded);
    }
    place::leave_out_pinned(conn, &mut sent).await?;
    partitions::ensure(conn, sent.iter().map(|sent| sent.outcome.served_at)).await?;
    let (fresh, repeats) = claim_ids(conn, sent).await?;
    recorded.accepted = fresh.len() as u64;
    recorded.not_analysed = fresh.iter().filter(|(_, sent)| sent.place.arm.is_none()).count() as u64;
    samples::keep(conn, &fresh).await?;
    let fresh = Rows::of(fresh);
    fresh.insert(conn).await?;
    let mut corrections = correct::Corrections::default();
    match how.repeats {
        Repeats::Keep => recorded.duplicates += (repeats.len() + again.len()) as u64,
        Repeats::Replace => {
            corrections.0.extend(correct::replace(conn, repeats, &mut recorded).await?.0);
            // An id that comes several times is corrected as often, as it would be by as many calls. All that is locked for it is.
            while !again.is_empty() {
                let (next, rest) = first_of_each(again);
                corrections.0.extend(correct::replace(conn, next, &mut recorded).await?.0);
                again = rest;
            }
        }
    }
    let counted = units::insert(conn, &fresh).await?;
    sums::add(conn, fresh, corrections).await?;
    counted.apply(conn).await?;
    recorded.rejected.sort_by_key(|rejected| rejected.index);
    Ok(recorded)
}

/// The first outcome of each id, sorted by pipeline and id, and the others as they came.
fn first_of_each(items: Vec<Sent>) -> (Vec<Sent>, Vec<Sent>) {
    let (mut first, mut others) = (BTreeMap::new(), Vec::new());
    for item in items {
        match first.entry((item.outcome.pipeline.clone(), item.outcome.id.clone())) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(item);
            }
            btree_map::Entry::Occupied(_) => others.push(item),
        }
    }
    (first.into_values().collect(), others)
}

/// Takes the ids of a batch: with their numbers those that are new, and those that were known.
async fn claim_ids(conn: &mut PgConnection, sent: Vec<Sent>) -> sqlx::Result<(Vec<(i64, Sent)>, Vec<Sent>)> {
    let column =
        |of: fn(&Outcome) -> &str| -> Vec<&str> { sent.iter().map(|sent| of(&sent.outcome)).collect() };
    let times: Vec<_> = sent.iter().map(|sent| sent.outcome.served_at).collect();
    let claimed = sqlx::query!(
        r#"SELECT number AS "number!", pipeline AS "pipeline!", id AS "id!" FROM claim_outcome_keys($1, $2, $3)"#,
        &column(|outcome| &outcome.pipeline) as &[&str],
        &column(|outcome| &outcome.id) as &[&str],
        &times,
    )
    .fetch_all(conn)
    .await?;
    // Both are in the order in which they were sent.
    let mut claimed = claimed.into_iter().peekable();
    let (mut fresh, mut repeats) = (Vec::new(), Vec::new());
    for sent in sent {
        let outcome = &sent.outcome;
        match claimed.next_if(|row| row.pipeline == outcome.pipeline && row.id == outcome.id) {
            Some(row) => fresh.push((row.number, sent)),
            None => repeats.push(sent),
        }
    }
    if claimed.peek().is_some() {
        return Err(sqlx::Error::Protocol("ids came back in another order than they were sent".into()));
    }
    Ok((fresh, repeats))
}
