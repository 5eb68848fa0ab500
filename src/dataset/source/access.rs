//! The way into the databases that sources are in.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};

use super::{SourceError, SourceSettings};
use crate::config::Secret;

/// How long to wait for another database.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks up an environment variable.
pub type Lookup = Arc<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// The databases that sources are in: the service's own, and those whose URLs are in variables. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    own: PgPool,
    lookup: Lookup,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    /// Sources in the service's own database and those that the process's environment names.
    #[must_use]
    pub fn new(own: PgPool) -> Self {
        let lookup = |name: &str| std::env::var(name).ok().filter(|url| !url.is_empty()).map(Secret::new);
        Self { own, lookup: Arc::new(lookup) }
    }

    /// With variables that are looked up elsewhere, for tests.
    #[must_use]
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// A connection to the source's database.
    pub(in crate::dataset) async fn open(&self, source: &SourceSettings) -> Result<Access, SourceError> {
        let Some(variable) = &source.url_env else { return Ok(Access::Own(self.own.acquire().await?)) };
        // Errors name the variable and never its value, or what the driver says of it.
        let refuse = |sentence: String| SourceError::at("/url_env", sentence);
        let url = (self.lookup)(variable).ok_or_else(|| {
            refuse(format!("names the variable {variable}, which is not set where this process runs"))
        })?;
        let postgres = url.expose().starts_with("postgres://") || url.expose().starts_with("postgresql://");
        let options =
            PgConnectOptions::from_str(url.expose()).ok().filter(|_| postgres).ok_or_else(|| {
                refuse(format!(
                    "names the variable {variable}, which does not hold the URL of a Postgres database"
                ))
            })?;
        let options = options.application_name("tuneloop dataset");
        match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => Ok(Access::Other(Box::new(connection))),
            Ok(Err(sqlx::Error::Database(error))) => Err(refuse(format!(
                "names a database that refuses the connection (SQLSTATE {})",
                error.code().unwrap_or_default()
            ))),
            Ok(Err(_)) | Err(_) => Err(SourceError::Unreachable { variable: variable.clone() }),
        }
    }
}

/// A connection to a source's database.
pub(in crate::dataset) enum Access {
    Own(PoolConnection<Postgres>),
    Other(Box<PgConnection>),
}

impl Access {
    /// Begins a transaction that sees one state of the data and cannot change any, and whose statements end in
    /// time.
    pub(in crate::dataset) async fn begin(
        &mut self,
        timeout: Duration,
    ) -> sqlx::Result<Transaction<'_, Postgres>> {
        let mut tx = (**self).begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Queries of the settings are taken apart on the understanding that backslashes are nothing special in texts.
        sqlx::query(
            "SELECT set_config('statement_timeout', $1, true), set_config('standard_conforming_strings', 'on', true)",
        )
            .bind(timeout.as_millis().to_string())
            .execute(&mut *tx)
            .await?;
        Ok(tx)
    }

    /// Closes the connection although rows may be on their way: to give it back they would all have to come first.
    pub(in crate::dataset) async fn abandon(self) {
        let connection = match self {
            Self::Own(connection) => connection.detach(),
            Self::Other(connection) => *connection,
        };
        // The server ends the transaction with the connection, however that ends.
        let _ = connection.close_hard().await;
    }
}

impl Deref for Access {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Other(connection) => connection,
        }
    }
}

impl DerefMut for Access {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Other(connection) => connection,
        }
    }
}
