//! How far the outcomes of pipelines have been read from their own databases.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;

use super::Recorded;

/// Rows that were left out and are shown.
const SHOWN: usize = 20;

/// What became of the rows of one pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullCounts {
    /// Newly recorded.
    pub accepted: u64,
    /// Read before, and other values now.
    pub corrected: u64,
    /// Read before, and as they were.
    pub duplicates: u64,
    /// Left out.
    pub rejected: u64,
    /// Some of those that were left out.
    pub rejections: Vec<PullRejection>,
}

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullRejection {
    /// Its id, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What to change, in one sentence.
    pub reason: String,
}

impl PullCounts {
    /// Adds what became of a batch; `ids` are those of its rows.
    pub fn add(&mut self, recorded: Recorded, ids: &[Option<String>]) {
        self.accepted += recorded.accepted;
        self.corrected += recorded.corrected;
        self.duplicates += recorded.duplicates;
        self.rejected += recorded.rejected.len() as u64;
        let room = SHOWN.saturating_sub(self.rejections.len());
        self.rejections.extend(recorded.rejected.into_iter().take(room).map(|rejected| PullRejection {
            id: ids.get(rejected.index).cloned().flatten(),
            reason: rejected.reason,
        }));
    }
}

/// Where the pull of a pipeline stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PullState {
    /// What was served up to this time has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// When the last pull that came to its end did so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_at: Option<DateTime<Utc>>,
    /// What became of its rows.
    pub last: PullCounts,
    /// Why the newest pull did not come to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where the pull of a pipeline stands; `None` before the first.
pub async fn pull_state(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<Option<PullState>> {
    let row = sqlx::query!(
        r#"SELECT watermark, pulled_at, accepted, corrected, duplicates, rejected,
                  rejections AS "rejections: Json<Vec<PullRejection>>", error
             FROM outcome_pulls WHERE pipeline = $1"#,
        pipeline,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| PullState {
        watermark: row.watermark,
        pulled_at: row.pulled_at,
        last: PullCounts {
            accepted: row.accepted.unsigned_abs(),
            corrected: row.corrected.unsigned_abs(),
            duplicates: row.duplicates.unsigned_abs(),
            rejected: row.rejected.unsigned_abs(),
            rejections: row.rejections.0,
        },
        error: row.error,
    }))
}

/// Keeps what a pull that came to its end has read.
pub async fn pulled(
    conn: &mut PgConnection,
    pipeline: &str,
    watermark: DateTime<Utc>,
    counts: &PullCounts,
) -> sqlx::Result<()> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query!(
        "INSERT INTO outcome_pulls (pipeline, watermark, pulled_at, accepted, corrected, duplicates, rejected, rejections)
         VALUES ($1, $2, now(), $3, $4, $5, $6, $7)
         ON CONFLICT (pipeline) DO UPDATE SET watermark = excluded.watermark, pulled_at = excluded.pulled_at,
            accepted = excluded.accepted, corrected = excluded.corrected, duplicates = excluded.duplicates,
            rejected = excluded.rejected, rejections = excluded.rejections, error = NULL",
        pipeline,
        watermark,
        count(counts.accepted),
        count(counts.corrected),
        count(counts.duplicates),
        count(counts.rejected),
        Json(&counts.rejections) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps why a pull did not come to its end; the next one begins where it did.
pub async fn pull_failed(conn: &mut PgConnection, pipeline: &str, error: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO outcome_pulls (pipeline, error) VALUES ($1, $2)
         ON CONFLICT (pipeline) DO UPDATE SET error = excluded.error",
        pipeline,
        error,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets how far a pipeline's outcomes were read.
pub async fn pull_anew(conn: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    sqlx::query!("UPDATE outcome_pulls SET watermark = NULL, error = NULL WHERE pipeline = $1", pipeline)
        .execute(conn)
        .await?;
    Ok(())
}
