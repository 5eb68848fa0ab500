//! `tuneloop keys`: keys for the API.

use clap::{Args, Subcommand, ValueEnum};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::{Failure, print, tell};
use crate::clock::Clock;
use crate::config::DatabaseArgs;
use crate::database;

/// Create keys for the API
#[derive(Args, Debug)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
}

/// Create a key and print it
///
/// Only its hash is stored, so it cannot be shown again. Standard output gets the key and nothing else.
#[derive(Args, Debug)]
struct Create {
    /// What the key may do: viewer reads, operator acts on runs and traffic, admin configures
    #[arg(long, value_name = "ROLE")]
    role: Role,

    /// Who uses the key, as the audit trail names it
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err("a name, such as ci or maria");
    }
    Ok(text.to_owned())
}

impl Keys {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Command::Create(create) = self.command;
        let pool = database::connect(create.database.database_url.expose(), 1).await?;
        database::check_schema(&pool).await?;
        let key = create_key(&pool, &Clock::system(), &create.name, create.role).await?;
        pool.close().await;
        // Only the key stands on standard output, so that a script can keep it.
        print(&key)?;
        tell(&format!(
            "This {} key of {} is shown once: send it as `Authorization: Bearer <key>`.",
            create.role.as_str(),
            create.name
        ));
        Ok(())
    }
}

/// Stores the SHA-256 of a new key and returns the key.
async fn create_key(pool: &PgPool, clock: &Clock, name: &str, role: Role) -> Result<String, sqlx::Error> {
    let key = format!("tl_{}", hex::encode(clock.bytes::<32>()));
    let hash = Sha256::digest(key.as_bytes());
    sqlx::query!(
        "INSERT INTO api_keys (id, name, role, hash) VALUES ($1, $2, $3, $4)",
        clock.uuid(),
        name,
        role.as_str(),
        &hash[..],
    )
    .execute(pool)
    .await?;
    Ok(key)
}
