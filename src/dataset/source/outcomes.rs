//! A query that yields outcomes in place of posts: the same way into a database, the same parameters, one JSON object a row.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Column, Executor, PgConnection, Row, SqlSafeStr, Statement};
use tokio::sync::mpsc::Sender;

use super::sql::{Bounds, Sql};
use super::{SourceError, SourceSettings, Sources, refused};
use crate::dataset::DatasetSettings;

/// What a query may yield and as what it is read.
const FIELDS: [(&str, &str); 15] = [
    ("id", "text"),
    ("version", "text"),
    ("model_id", "text"),
    ("unit", "text"),
    ("persona", "text"),
    ("served_at", "timestamptz"),
    ("revision", "bigint"),
    ("engagement_rate", "double precision"),
    ("engagements", "bigint"),
    ("impressions", "bigint"),
    ("cost", "double precision"),
    ("quality", "double precision"),
    ("latency_ms", "double precision"),
    ("failed", "boolean"),
    ("text", "jsonb"),
];

/// Rows handed over at once.
const BATCH: usize = 2_000;
/// How long the check of a query may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// Where outcomes are read.
#[derive(Debug, Clone)]
pub struct OutcomeQuery {
    settings: DatasetSettings,
}

impl OutcomeQuery {
    /// A query on the database whose URL is in `url_env`, or on the service's own.
    #[must_use]
    pub fn new(url_env: Option<&str>, query: &str, timeout_seconds: u32) -> Self {
        let source = SourceSettings {
            url_env: url_env.map(str::to_owned),
            query: Some(query.to_owned()),
            timeout_seconds,
            ..SourceSettings::default()
        };
        Self { settings: DatasetSettings { source, ..DatasetSettings::default() } }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.settings.source.timeout_seconds.into())
    }

    fn check_settings(&self) -> Result<(), SourceError> {
        let faults = self.settings.source.faults();
        if faults.is_empty() {
            return Ok(());
        }
        let faults = faults.into_iter().map(|(field, fault)| (format!("/source{field}"), fault));
        Err(SourceError::Unusable(faults.collect()))
    }

    /// The statement that reads every column as the type of its field.
    async fn statement(&self, conn: &mut PgConnection) -> Result<Sql, SourceError> {
        let source = &self.settings.source;
        let mut probe = Sql { text: "SELECT * FROM ".into(), ..Sql::default() }.relation(source)?;
        probe.text.push_str(" LIMIT 0");
        // Safe: see the head of `sql.rs`.
        let probed = conn.prepare(AssertSqlSafe(probe.text).into_sql_str()).await;
        let probed = probed.map_err(|error| refused(&self.settings, error))?;
        let columns: Vec<&str> = probed.columns().iter().map(Column::name).collect();
        check_columns(&columns)?;
        let chosen: Vec<String> = FIELDS
            .iter()
            .filter(|(name, _)| columns.contains(name))
            .map(|(name, as_type)| format!("source.{name}::{as_type} AS {name}"))
            .collect();
        let text = format!("SELECT row_to_json(read) FROM (SELECT {} FROM ", chosen.join(", "));
        let mut sql = Sql { text, ..Sql::default() }.relation(source)?;
        sql.text.push_str(") AS read");
        Ok(sql)
    }
}

fn check_columns(columns: &[&str]) -> Result<(), SourceError> {
    let refuse = |sentence: String| Err(SourceError::at("/query", sentence));
    if let Some(unknown) = columns.iter().find(|column| !FIELDS.iter().any(|(name, _)| name == *column)) {
        let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        return refuse(format!("yields a column {unknown:?}, but an outcome has only {}", known.join(", ")));
    }
    for needed in ["id", "unit", "served_at"] {
        if !columns.contains(&needed) {
            return refuse(format!("must yield a column {needed:?}"));
        }
    }
    if !columns.contains(&"version") && !columns.contains(&"model_id") {
        return refuse("must yield a column \"version\" or \"model_id\"".into());
    }
    Ok(())
}

fn bounds(since: DateTime<Utc>, until: DateTime<Utc>) -> Bounds {
    Bounds { since, until, mature: false, threshold: 0.0, impressions: 0, offset: 0 }
}

impl Sources {
    /// Checks that a query can be read and yields outcomes. Errs with [`SourceError::Unusable`] where not.
    pub async fn check_outcomes(&self, query: &OutcomeQuery) -> Result<(), SourceError> {
        query.check_settings()?;
        let mut access = self.open(&query.settings.source).await?;
        let mut tx = access.begin(CHECK_TIMEOUT).await?;
        let mut sql = query.statement(&mut tx).await?;
        sql.text.push_str(" LIMIT 0");
        let bounds = bounds(DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
        sql.query(&bounds).execute(&mut *tx).await.map_err(|error| refused(&query.settings, error))?;
        Ok(tx.rollback().await?)
    }

    /// Reads the outcomes between two times, each as a JSON object, and hands them over until nobody wants more.
    pub async fn read_outcomes(
        &self,
        query: &OutcomeQuery,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        batches: Sender<Vec<Box<RawValue>>>,
    ) -> Result<(), SourceError> {
        let mut access = self.open(&query.settings.source).await?;
        let mut tx = access.begin(query.timeout()).await?;
        // Times without a zone are taken as UTC.
        sqlx::query("SET LOCAL timezone = 'UTC'").execute(&mut *tx).await?;
        let sql = query.statement(&mut tx).await?;
        let bounds = bounds(since, until);
        let mut rows = sql.query(&bounds).fetch(&mut *tx).try_chunks(BATCH);
        while let Some(batch) = rows.try_next().await.map_err(|error| refused(&query.settings, error.1))? {
            let batch: sqlx::Result<Vec<_>> =
                batch.iter().map(|row| Ok(row.try_get::<Json<Box<RawValue>>, _>(0)?.0)).collect();
            if batches.send(batch?).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_yields_the_fields_of_an_outcome() {
        let refused = |columns: &[&str]| check_columns(columns).map_err(|error| error.to_string());
        assert_eq!(refused(&["id", "unit", "served_at", "model_id", "cost"]), Ok(()));
        for (columns, says) in [
            (&["id", "unit", "model_id"][..], "a column \"served_at\""),
            (&["id", "unit", "served_at"], "\"version\" or \"model_id\""),
            (&["id", "unit", "served_at", "version", "likes"], "a column \"likes\""),
        ] {
            assert!(refused(columns).unwrap_err().contains(says), "{columns:?}");
        }
    }
}
