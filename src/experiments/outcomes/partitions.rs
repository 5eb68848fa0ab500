//! The months that outcomes are kept by.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

/// Makes the partitions that these times belong to, where they are missing.
pub(super) async fn ensure(
    conn: &mut PgConnection,
    times: impl Iterator<Item = DateTime<Utc>>,
) -> sqlx::Result<()> {
    let mut months = BTreeSet::new();
    let times: Vec<_> = times.filter(|time| months.insert((time.year(), time.month()))).collect();
    sqlx::query!(
        "SELECT make_outcomes_partition(month) FROM unnest($1::timestamptz[]) month ORDER BY month",
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops the months that ended longer ago than `retention`, with the ids of their outcomes and the units of the experiments
/// that ended before. The sums of experiments stay. Returns the number of months.
///
/// Errs where the tables are so busy that they cannot be locked for a moment; the next time will do.
pub async fn drop_older_than(db: &PgPool, retention: TimeDelta) -> sqlx::Result<u64> {
    let mut tx = db.begin().await?;
    let oldest = sqlx::query_scalar!(
        r#"SELECT date_trunc('month', (now() - make_interval(secs => $1)) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS "at!""#,
        retention.as_seconds_f64(),
    )
    .fetch_one(&mut *tx)
    .await?;
    let partitions = sqlx::query_scalar!(
        r#"SELECT quote_ident(c.relname) AS "name!" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'outcomes'::regclass AND c.relname < 'outcomes_' || to_char($1 AT TIME ZONE 'UTC', 'YYYY_MM')
            ORDER BY c.relname"#,
        oldest,
    )
    .fetch_all(&mut *tx)
    .await?;
    if partitions.is_empty() {
        return Ok(0);
    }
    sqlx::query!("DELETE FROM outcome_keys WHERE served_at < $1", oldest).execute(&mut *tx).await?;
    sqlx::query!(
        "DELETE FROM experiment_units u USING experiments e WHERE e.id = u.experiment_id AND e.ended_at < $1",
        oldest,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "INSERT INTO outcomes_kept_from (at) VALUES ($1)
         ON CONFLICT (one_row) DO UPDATE SET at = greatest(outcomes_kept_from.at, excluded.at)",
        oldest,
    )
    .execute(&mut *tx)
    .await?;
    // Last, because recording waits from here to the commit.
    sqlx::query!("SET LOCAL lock_timeout = '2s'").execute(&mut *tx).await?;
    for partition in &partitions {
        // Safe: a name from the catalogue, quoted by the database.
        sqlx::query(AssertSqlSafe(format!("DROP TABLE {partition}"))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(partitions.len() as u64)
}
