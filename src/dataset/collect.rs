//! Reads the posts that people engaged with and writes them as JSONL.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

use super::{Counts, DatasetError, DatasetSettings, Manifest, Post};

/// A dataset that is not stored yet.
#[derive(Debug)]
pub struct Snapshot {
    /// SHA-256 of the bytes, in hex: the dataset's name.
    pub digest: String,
    /// One example per line, highest engagement first.
    pub bytes: Vec<u8>,
    /// Where it came from.
    pub manifest: Manifest,
}

/// Collects the examples of the posts that are at or above the threshold and not older than the look-back at
/// `now`, highest engagement first; equal posts in the order of the table. The same rows and settings give
/// the same bytes.
pub async fn collect(
    db: &PgPool,
    settings: &DatasetSettings,
    now: DateTime<Utc>,
) -> Result<Snapshot, DatasetError> {
    let since = now - lookback(settings);
    // One snapshot for the counts and the rows, so that they agree.
    let mut tx = db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut counts = count(&mut tx, settings, since).await?;
    let mut bytes = Vec::new();
    let mut rows = sqlx::query_as!(
        Post,
        "SELECT original_input, hook, body FROM posts
          WHERE created_at >= $1 AND engagement_rate >= $2 AND engagement_rate <> 'NaN'
          ORDER BY engagement_rate DESC, created_at DESC, id",
        since,
        settings.engagement_threshold,
    )
    .fetch(&mut *tx);
    while let Some(post) = rows.try_next().await? {
        match settings.template.example(&post) {
            Some(example) => {
                serde_json::to_writer(&mut bytes, &example)
                    .map_err(|error| sqlx::Error::Encode(error.into()))?;
                bytes.push(b'\n');
                counts.examples += 1;
            }
            None => counts.empty += 1,
        }
    }
    let digest = hex::encode(Sha256::digest(&bytes));
    let manifest = Manifest { settings: settings.clone(), since, counts, bytes: bytes.len() as u64 };
    Ok(Snapshot { digest, bytes, manifest })
}

fn lookback(settings: &DatasetSettings) -> TimeDelta {
    // Whole milliseconds, and never further back than the calendar reaches.
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, then is clamped")]
    let millis = (settings.lookback_seconds * 1000.0) as i64;
    TimeDelta::milliseconds(millis.clamp(0, 1000 * 365 * 86_400_000))
}

async fn count(
    conn: &mut PgConnection,
    settings: &DatasetSettings,
    since: DateTime<Utc>,
) -> sqlx::Result<Counts> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "posts!", count(*) FILTER (WHERE created_at < $1) AS "too_old!",
                  count(*) FILTER (WHERE created_at >= $1 AND (engagement_rate >= $2
                                   AND engagement_rate <> 'NaN') IS NOT TRUE) AS "below!"
             FROM posts"#,
        since,
        settings.engagement_threshold,
    )
    .fetch_one(conn)
    .await?;
    Ok(Counts {
        posts: row.posts.unsigned_abs(),
        too_old: row.too_old.unsigned_abs(),
        below_threshold: row.below.unsigned_abs(),
        ..Counts::default()
    })
}
