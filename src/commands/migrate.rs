//! `tuneloop migrate`: brings the database's schema to what this build expects.

use std::io::{self, Write};

use clap::Args;

use super::Failure;
use crate::config::DatabaseArgs;
use crate::database::{self, MIGRATOR};

/// Bring the database to the schema of this build
///
/// Migrations run one process at a time: any number of replicas may start with this command.
#[derive(Args, Debug)]
pub(super) struct Migrate {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Migrate {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let pool = database::connect(self.database.database_url.expose(), 1).await?;
        let applied = database::migrate(&pool).await?;
        pool.close().await;
        let mut output = io::stdout().lock();
        for migration in &applied {
            writeln!(output, "Applied migration {} ({}).", migration.version, migration.description)?;
        }
        let newest = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
        if applied.is_empty() {
            writeln!(output, "The database already was at migration {newest}: nothing to do.")?;
        } else {
            writeln!(output, "The database is at migration {newest}.")?;
        }
        Ok(())
    }
}
