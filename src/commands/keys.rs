//! `tuneloop keys`: keys for the API.

use clap::{Args, Subcommand, ValueEnum};

use super::{Failure, print, tell};
use crate::api::auth;
use crate::audit::Actor;
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

impl Keys {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Command::Create(create) = self.command;
        let pool = database::connect(create.database.database_url.expose(), 1).await?;
        database::check_schema(&pool).await?;
        let mut conn = pool.acquire().await?;
        let role = create.role.into();
        let key = auth::create_key(&mut conn, &Clock::system(), &create.name, role, Actor::System).await?;
        drop(conn);
        pool.close().await;
        // Only the key stands on standard output, so that a script can keep it.
        print(&key.plaintext)?;
        tell(&format!(
            "This {} key of {} is shown once: send it as `Authorization: Bearer <key>`.",
            auth::Role::from(create.role),
            create.name
        ));
        Ok(())
    }
}
