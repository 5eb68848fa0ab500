//! Does a source have what the settings ask for? Asked when a pipeline is saved, and again when a run reads it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr, Statement};

use super::layout::Layout;
use super::sql::{self, Bounds, Sql};
use super::{SourceError, Sources};
use crate::dataset::DatasetSettings;
use crate::dataset::prompts::{self, Compiled};

/// How long the check of a source may take.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Sources {
    /// Checks settings against their source: whether it is there, reads without writing, and has columns of the right
    /// types. Errs with [`SourceError::Unusable`] where it does not.
    pub async fn check(&self, settings: &DatasetSettings) -> Result<(), SourceError> {
        let compiled = prompts::compile(settings).map_err(|error| {
            SourceError::Unusable(vec![(format!("/prompts/{}", error.template), error.to_string())])
        })?;
        let mut access = self.open(&settings.source).await?;
        let mut tx = access.begin(TIMEOUT).await?;
        let layout = Layout::find(&mut tx, settings, &compiled).await?;
        // No rows are asked for, but the statement begins, which shows what a read-only transaction refuses.
        let bounds = Bounds {
            since: DateTime::UNIX_EPOCH,
            until: DateTime::UNIX_EPOCH + TimeDelta::days(1),
            mature: settings.maturity_seconds > 0.0,
            threshold: 0.0,
            impressions: 0,
            offset: 0,
        };
        let mut rows = sql::rows(&settings.source, &layout, &bounds, settings.pairs.is_some())?;
        rows.text.push_str(" LIMIT 0");
        rows.query(&bounds).execute(&mut *tx).await.map_err(|error| match &error {
            sqlx::Error::Database(database) if database.code().as_deref() == Some("57014") => {
                SourceError::at(
                    if settings.source.query.is_some() { "/query" } else { "/table" },
                    format!("does not begin to answer within {} seconds", TIMEOUT.as_secs()),
                )
            }
            _ => refused(settings, error),
        })?;
        Ok(tx.rollback().await?)
    }
}

impl Layout {
    /// Asks the database for the columns of the source.
    pub(in crate::dataset) async fn find(
        conn: &mut PgConnection,
        settings: &DatasetSettings,
        templates: &Compiled,
    ) -> Result<Self, SourceError> {
        let mut probe = Sql { text: "SELECT * FROM ".into(), ..Sql::default() }.relation(&settings.source)?;
        probe.text.push_str(" LIMIT 0");
        // Safe: see the head of `sql.rs`.
        let statement = conn.prepare(AssertSqlSafe(probe.text).into_sql_str()).await;
        let statement = statement.map_err(|error| refused(settings, error))?;
        Self::new(settings, templates, statement.columns()).map_err(SourceError::Unusable)
    }
}

/// What the database says of a statement, where that is about the settings and not about the database.
pub(in crate::dataset) fn refused(settings: &DatasetSettings, error: sqlx::Error) -> SourceError {
    let sqlx::Error::Database(database) = &error else { return error.into() };
    let code = database.code().unwrap_or_default();
    // Errors of syntax, names, types and rights; data; read-only transactions; features.
    let ours = ["42", "22", "25006", "0A", "3F"].iter().any(|class| code.starts_with(class));
    if !ours {
        return error.into();
    }
    let message = database.message();
    match (&settings.source.query, code.as_ref()) {
        (Some(_), "25006") => SourceError::at("/query", format!("must only read: {message}")),
        (Some(_), _) => SourceError::at("/query", format!("is refused by the database: {message}")),
        (None, "42P01" | "3F000") => SourceError::at(
            "/table",
            format!("names {:?}, which does not exist", settings.source.table.as_deref().unwrap_or("posts")),
        ),
        (None, _) => SourceError::at("/table", format!("cannot be read: {message}")),
    }
}
