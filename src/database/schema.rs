//! Which migrations the database has, compared with those of this build.

use std::borrow::Cow;

use sqlx::migrate::Migrator;
use sqlx::{PgConnection, PgPool};

/// The migrations of this build.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// `relation does not exist`: a database that was never migrated.
const UNDEFINED_TABLE: &str = "42P01";

/// The database's schema is not the one this build works with.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Migrations of this build are still to be applied.
    #[error("The database is at migration {found} but this build needs {needed}: run `tuneloop migrate`.")]
    Older {
        /// The newest migration the database has; 0 for an empty database.
        found: i64,
        /// The newest migration of this build.
        needed: i64,
    },
    /// A newer build has migrated the database.
    #[error(
        "The database is at migration {found} but this build knows only {known}: deploy a newer tuneloop."
    )]
    Newer {
        /// The newest migration the database has.
        found: i64,
        /// The newest migration of this build.
        known: i64,
    },
    /// A migration was left out although later ones were applied.
    #[error("The database lacks migration {version} though it has later ones: run `tuneloop migrate`.")]
    Missing {
        /// The migration that was left out.
        version: i64,
    },
    /// The database has a migration of another build, older than this build's newest.
    #[error(
        "The database has migration {version}, which this build does not have: deploy the build it came from."
    )]
    Unknown {
        /// The migration nobody here knows.
        version: i64,
    },
    /// A migration of the same number had other contents when it was applied.
    #[error(
        "Migration {version} was applied with other contents than this build's: deploy the build it came from."
    )]
    Altered {
        /// The migration that differs.
        version: i64,
    },
    /// The database did not say which migrations it has.
    #[error("cannot read the database's migrations")]
    Unreadable(#[from] sqlx::Error),
}

/// Migrating did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// This build's migrations do not continue those of the database.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A migration failed and was undone.
    #[error(transparent)]
    Failed(#[from] sqlx::migrate::MigrateError),
    /// The connection failed.
    #[error("the connection to the database failed")]
    Connection(#[from] sqlx::Error),
}

/// A migration that was just applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number.
    pub version: i64,
    /// Its name, from the file's.
    pub description: Cow<'static, str>,
}

/// Number and checksum of a migration in the database.
pub(super) type Recorded = (i64, Vec<u8>);

/// Refuses a database whose schema is older or newer than this build's, or differs from it.
///
/// # Errors
///
/// One sentence that says what to do.
pub async fn check_schema(pool: &PgPool) -> Result<(), SchemaError> {
    compare(&applied(&mut *pool.acquire().await?).await?, &MIGRATOR)
}

/// The migrations that the database has, by number.
pub(super) async fn applied(connection: &mut PgConnection) -> Result<Vec<Recorded>, sqlx::Error> {
    // Not a checked query: the table is sqlx's own, and absent before the first migration.
    let rows =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await;
    match rows {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => {
            Ok(Vec::new())
        }
        rows => rows,
    }
}

/// What `migrator` would apply to a database that has `applied`.
pub(super) fn missing(applied: &[Recorded], migrator: &Migrator) -> Vec<AppliedMigration> {
    migrator
        .iter()
        .filter(|migration| !applied.iter().any(|(version, _)| *version == migration.version))
        .map(|migration| AppliedMigration {
            version: migration.version,
            description: migration.description.clone(),
        })
        .collect()
}

/// Whether `applied`, ordered by number, is exactly what `migrator` has.
pub(super) fn compare(applied: &[Recorded], migrator: &Migrator) -> Result<(), SchemaError> {
    let found = applied.last().map_or(0, |(version, _)| *version);
    let newest = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    if found > newest {
        return Err(SchemaError::Newer { found, known: newest });
    }
    for (version, checksum) in applied {
        let known = migrator.iter().find(|migration| migration.version == *version);
        let known = known.ok_or(SchemaError::Unknown { version: *version })?;
        if known.checksum != *checksum {
            return Err(SchemaError::Altered { version: *version });
        }
    }
    let Some(first) = missing(applied, migrator).into_iter().next() else { return Ok(()) };
    if first.version < found {
        return Err(SchemaError::Missing { version: first.version });
    }
    Err(SchemaError::Older { found, needed: newest })
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType};

    use super::*;

    fn migrator() -> Migrator {
        let migration = |version, sql: &'static str| {
            Migration::new(version, "m".into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        Migrator::with_migrations(vec![migration(1, "a"), migration(2, "b"), migration(4, "d")])
    }

    fn recorded(versions: &[i64]) -> Vec<Recorded> {
        let migrator = migrator();
        let checksum = |version| migrator.iter().find(|m| m.version == version).map(|m| m.checksum.to_vec());
        versions.iter().map(|version| (*version, checksum(*version).unwrap_or_default())).collect()
    }

    fn sentence(versions: &[i64]) -> Option<String> {
        compare(&recorded(versions), &migrator()).err().map(|error| error.to_string())
    }

    #[test]
    fn the_same_migrations_are_accepted() {
        assert_eq!(sentence(&[1, 2, 4]), None);
    }

    #[test]
    fn an_older_database_is_to_be_migrated() {
        let older = "The database is at migration 1 but this build needs 4: run `tuneloop migrate`.";
        assert_eq!(sentence(&[1]).as_deref(), Some(older));
        assert!(sentence(&[]).unwrap().starts_with("The database is at migration 0 but"));
    }

    #[test]
    fn a_newer_database_asks_for_a_newer_build() {
        let newer = "The database is at migration 5 but this build knows only 4: deploy a newer tuneloop.";
        assert_eq!(sentence(&[1, 2, 4, 5]).as_deref(), Some(newer));
    }

    #[test]
    fn gaps_and_strangers_are_told_apart() {
        assert!(sentence(&[1, 4]).unwrap().contains("lacks migration 2"));
        assert!(sentence(&[1, 2, 3, 4]).unwrap().contains("has migration 3, which this build does not have"));
    }

    #[test]
    fn other_contents_are_refused_even_when_migrations_are_missing() {
        let mut applied = recorded(&[1, 2]);
        applied[0].1[0] ^= 1;
        assert!(matches!(compare(&applied, &migrator()), Err(SchemaError::Altered { version: 1 })));
    }
}
