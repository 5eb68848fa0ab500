//! The way to Postgres, and the schema that this build expects there.

mod schema;

use std::str::FromStr;
use std::time::Duration;

use serde_json::json;
use sqlx::migrate::Migrate;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Row};

use crate::audit::{self, Actor, AuditEvent};

pub use schema::{AppliedMigration, MIGRATOR, MigrateError, SchemaError, check_schema};

/// How long to wait for a connection, new or from the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A statement that takes longer is stuck; one that may take longer sets its own limit in its transaction.
/// Set by statements and not by start-up parameters, which connection poolers refuse.
const SESSION: &str = "SET statement_timeout = '60s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '60s'";

/// The database cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one of Postgres.
    #[error("the database's URL cannot be read")]
    Url(#[source] sqlx::Error),
    /// The server refused, or cannot be found.
    #[error("cannot connect to the database {target}")]
    Refused {
        /// Database, host and port, without user and password.
        target: String,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// Nothing answered.
    #[error("cannot connect to the database {target}: no answer within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Silent {
        /// Database, host and port, without user and password.
        target: String,
    },
}

/// A pool of up to `max_connections`, after one connection has shown that the database answers.
///
/// # Errors
///
/// When the URL cannot be read or the database does not let us in.
pub async fn connect(url: &str, max_connections: u32) -> Result<PgPool, ConnectError> {
    let options = PgConnectOptions::from_str(url).map_err(ConnectError::Url)?.application_name("tuneloop");
    probe(&options).await?;
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
        })
        .after_release(|connection, _| Box::pin(async move { Ok(!in_transaction(connection).await?) }))
        .connect_lazy_with(options))
}

/// Whether a transaction is open on a connection that comes back to the pool. The driver rolls back what was begun, but where
/// a caller gives up in the middle of `begin` (a client hangs up, a time limit passes), it has not counted the
/// transaction yet and leaves it open for whoever is next, whose writes would be lost with it. Such a connection is closed.
///
/// As a simple query: in a transaction of its own its two times are the same.
async fn in_transaction(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::raw_sql("SELECT now() <> statement_timestamp()").fetch_one(connection).await?.try_get(0)
}

/// The pool repeats refused connections until its time is up, and then only says that it waited; one direct
/// connection tells the reason at once.
async fn probe(options: &PgConnectOptions) -> Result<(), ConnectError> {
    let target = target(options);
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Err(_) => Err(ConnectError::Silent { target }),
        Ok(Err(source)) => Err(ConnectError::Refused { target, source }),
        Ok(Ok(connection)) => {
            connection.close().await.map_err(|source| ConnectError::Refused { target, source })
        }
    }
}

fn target(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{database} at {}", socket.display()),
        None => format!("{database} at {}:{}", options.get_host(), options.get_port()),
    }
}

/// Brings the schema to what this build expects and says what was applied, which is nothing when another
/// process was faster: migrations run under an advisory lock.
///
/// # Errors
///
/// When the database has migrations that this build does not know, or one fails. What was applied before
/// the failing one stays.
pub async fn migrate(pool: &PgPool) -> Result<Vec<AppliedMigration>, MigrateError> {
    // The lock belongs to the session, so the session must end however this goes. It is given back before,
    // so that the next process need not wait for the server to notice the end.
    let mut connection = pool.acquire().await?.detach();
    let outcome = migrate_session(&mut connection).await;
    let unlocked = sqlx::raw_sql("SELECT pg_advisory_unlock_all()").execute(&mut connection).await;
    let closed = connection.close().await;
    let applied = outcome?;
    unlocked?;
    closed?;
    Ok(applied)
}

async fn migrate_session(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, MigrateError> {
    // Building an index, and waiting for another process to migrate, take what they take.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut *connection).await?;
    connection.lock().await?;
    let before = schema::applied(connection).await?;
    match schema::compare(&before, &MIGRATOR) {
        Ok(()) => return Ok(Vec::new()),
        Err(SchemaError::Older { .. } | SchemaError::Missing { .. }) => {}
        Err(newer_or_foreign) => return Err(newer_or_foreign.into()),
    }
    MIGRATOR.run(&mut *connection).await?;
    let applied = schema::missing(&before, &MIGRATOR);
    let versions: Vec<i64> = applied.iter().map(|migration| migration.version).collect();
    let event = AuditEvent {
        before: Some(json!({"migration": before.last().map(|(version, _)| version)})),
        after: Some(json!({"migration": versions.last(), "applied": versions})),
        ..AuditEvent::new(Actor::System, "database.migrate", ("database", "schema"))
    };
    // Migrations commit one by one: a process that dies here leaves them told by their own table alone.
    audit::record(connection, event).await?;
    Ok(applied)
}
