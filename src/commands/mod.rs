//! The commands of the program, one file each. Settings that cannot be used end with exit code 2, what goes
//! wrong afterwards with 1; both with one sentence on standard error.

mod audit;
mod demo;
mod keys;
mod listen;
mod migrate;
mod openapi;
mod parse;
mod recompute;
mod serve;
mod shutdown;
mod simulate;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime;

pub use shutdown::shutdown_signal;

use crate::causes;

/// The exit code of settings that cannot be used.
const BAD_SETTINGS: u8 = 2;

/// A control plane that keeps a production language model improving by itself
#[derive(Debug, Parser)]
#[command(name = "tuneloop", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(Box<demo::Demo>),
    Serve(Box<serve::Serve>),
    Migrate(migrate::Migrate),
    Keys(keys::Keys),
    Audit(audit::Audit),
    Recompute(recompute::Recompute),
    Simulate(Box<simulate::Simulate>),
    /// Print the OpenAPI document of the API
    #[command(name = "openapi")]
    OpenApi,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The settings cannot be used together; the sentence names them.
    Settings(String),
    /// Something went wrong.
    Failed(Box<dyn Error + Send + Sync>),
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the program with its arguments, the first of which is its own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse::parse(&arguments.into_iter().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Settings(sentence)) => {
            tell(&sentence);
            ExitCode::from(BAD_SETTINGS)
        }
        // `tuneloop audit export | head` has what it wanted.
        Err(Failure::Failed(error)) if error.downcast_ref().is_some_and(PrintError::nobody_reads) => {
            ExitCode::SUCCESS
        }
        Err(Failure::Failed(error)) => {
            tell(&causes::in_one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Demo(command) => command.run().await,
            Command::Serve(command) => command.run().await,
            Command::Migrate(command) => command.run().await,
            Command::Keys(command) => command.run().await,
            Command::Audit(command) => command.run().await,
            Command::Recompute(command) => command.run().await,
            Command::Simulate(command) => command.run().await,
            Command::OpenApi => openapi::run(),
        }
    });
    // Blocking calls that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

/// Standard output is closed or full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct PrintError(#[from] io::Error);

impl PrintError {
    /// Whether the program that reads has ended.
    fn nobody_reads(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes a line to standard output.
fn print(line: &str) -> Result<(), PrintError> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Writes a line to standard error. Where that is closed, nobody is left to tell.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
