//! `tuneloop migrate`: brings the database's schema to what this build expects.

use clap::Args;

use super::{Failure, print};
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
        for migration in &applied {
            print(&format!("Applied migration {} ({}).", migration.version, migration.description))?;
        }
        let newest = MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default();
        if applied.is_empty() {
            print(&format!("The database already was at migration {newest}: nothing to do."))?;
        } else {
            print(&format!("The database is at migration {newest}."))?;
        }
        Ok(())
    }
}
