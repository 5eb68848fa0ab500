//! `tuneloop keys`: keys for the API.

use clap::{Args, Subcommand, ValueEnum};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Failure, print, tell};
use crate::api::auth;
use crate::audit::Actor;
use crate::clock::Clock;
use crate::config::DatabaseArgs;
use crate::database;

/// Create, list and revoke keys for the API
#[derive(Args, Debug)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// List the keys with their ids, oldest first
#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Make a key useless from now on
#[derive(Args, Debug)]
struct Revoke {
    /// The key's id, as `tuneloop keys list` shows it
    #[arg(value_name = "ID", value_parser = id)]
    id: Uuid,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Create a key and print it
///
/// Only its hash is stored, so it cannot be shown again. Standard output gets the key and nothing else.
#[derive(Args, Debug)]
struct Create {
    /// What the key may do: viewer reads; operator and admin read and change everything, for now alike
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

impl From<Role> for auth::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
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

fn id(text: &str) -> Result<Uuid, &'static str> {
    text.parse().map_err(|_| "the id of a key, as `tuneloop keys list` shows it")
}

impl Keys {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Create(create) => create.run().await,
            Command::List(list) => list.run().await,
            Command::Revoke(revoke) => revoke.run().await,
        }
    }
}

/// A connection to a database that has the schema of this build.
async fn connect(settings: &DatabaseArgs) -> Result<PgPool, Failure> {
    let pool = database::connect(settings.database_url.expose(), 1).await?;
    database::check_schema(&pool).await?;
    Ok(pool)
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        let pool = connect(&self.database).await?;
        let mut conn = pool.acquire().await?;
        let role = auth::Role::from(self.role);
        let key = auth::create_key(&mut conn, &Clock::system(), &self.name, role, Actor::System).await?;
        drop(conn);
        pool.close().await;
        // Only the key stands on standard output, so that a script can keep it.
        print(&key.plaintext)?;
        tell(&format!(
            "This {role} key of {} is shown once: send it as `Authorization: Bearer <key>`.",
            self.name
        ));
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let pool = connect(&self.database).await?;
        for key in auth::list_keys(&pool).await? {
            let revoked =
                key.revoked_at.map_or_else(String::new, |at| format!("  revoked {}", at.format("%F %T")));
            let created = key.created_at.format("%F %T");
            print(&format!("{}  {:<8}  created {created}{revoked}  {}", key.id, key.role, key.name))?;
        }
        pool.close().await;
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> Result<(), Failure> {
        let pool = connect(&self.database).await?;
        let mut conn = pool.acquire().await?;
        let revoked = auth::revoke_key(&mut conn, self.id, Actor::System).await?;
        drop(conn);
        pool.close().await;
        if !revoked {
            let message = format!("There is no valid key {}: `tuneloop keys list` shows them.", self.id);
            return Err(Failure::Failed(message.into()));
        }
        tell("The key is refused from now on.");
        Ok(())
    }
}
