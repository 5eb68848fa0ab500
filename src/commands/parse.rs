//! Reads the command line and the environment. What cannot be used ends in one sentence that names the
//! setting and what it accepts, in place of the parser's own report.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};

use super::{BAD_SETTINGS, Cli, tell};

/// The command to run, or the exit code when there is none: after help, or a setting that cannot be used.
pub(super) fn parse(arguments: &[OsString]) -> Result<Cli, ExitCode> {
    let matches = without_empty_variables(Cli::command()).try_get_matches_from(arguments);
    let error = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Asked again with all variables, so that the help names those that are empty as well.
            let help = Cli::command().try_get_matches_from(arguments).err().unwrap_or(error);
            // Where the output is closed, nobody is left to tell.
            let _ = help.print();
            Err(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(ExitCode::from(BAD_SETTINGS))
        }
        _ => {
            let mut command = Cli::command();
            // Settings show themselves, as the error shows them, only once the command is built.
            command.build();
            tell(&Report { error: &error, arguments, command: &command }.sentence());
            Err(ExitCode::from(BAD_SETTINGS))
        }
    }
}

/// A variable that is set to nothing counts as not set.
fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if empty { arg.env(None::<&'static str>) } else { arg }
        })
        .mut_subcommands(without_empty_variables)
}

/// What is needed to say what is wrong.
struct Report<'a> {
    error: &'a clap::Error,
    arguments: &'a [OsString],
    command: &'a Command,
}

impl Report<'_> {
    fn sentence(&self) -> String {
        match self.error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => self.bad_value(),
            ErrorKind::MissingRequiredArgument => self.missing(),
            ErrorKind::InvalidUtf8 => self.not_text(),
            ErrorKind::UnknownArgument => {
                let flag = self.context(ContextKind::InvalidArg);
                match self.context(ContextKind::SuggestedArg).as_str() {
                    "" => format!("{} has no {flag}: see `{0} --help`.", self.path()),
                    similar => {
                        format!("{} has no {flag}, but {similar}: see `{0} --help`.", self.path())
                    }
                }
            }
            ErrorKind::InvalidSubcommand => {
                let name = self.context(ContextKind::InvalidSubcommand);
                format!("{} has no command {name}: see `{0} --help`.", self.path())
            }
            ErrorKind::ArgumentConflict => {
                format!("{} is given twice: give it once.", self.given_name())
            }
            // A kind that no setting here can cause; the parser's first line is still better than nothing.
            _ => {
                let text = self.error.to_string();
                let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                format!("{line}: see `{} --help`.", self.path())
            }
        }
    }

    fn bad_value(&self) -> String {
        let name = self.given_name();
        let accepted = match self.error.source() {
            Some(accepted) => accepted.to_string(),
            None => alternatives(&self.strings(ContextKind::ValidValue)),
        };
        let value = self.context(ContextKind::InvalidValue);
        if value.is_empty() {
            return format!("{name} has no value: it takes {accepted}.");
        }
        match self.arg() {
            // It may hold a password, which must not end up in a log.
            Some(arg) if arg.is_hide_env_values_set() => {
                format!("{name} cannot be used: it takes {accepted}.")
            }
            _ => format!("{name} is {value:?}: it takes {accepted}."),
        }
    }

    fn missing(&self) -> String {
        let name = self.given_name();
        let help = match self.arg() {
            Some(arg) if arg.get_id() == "database_url" => {
                "give the URL of a Postgres database, such as postgres://user@host/database, or try `tuneloop demo`"
                    .to_owned()
            }
            Some(arg) if !arg.get_possible_values().is_empty() => {
                let values = arg.get_possible_values();
                format!("it takes {}", alternatives(&values.iter().map(|v| v.get_name().to_owned()).collect::<Vec<_>>()))
            }
            _ => format!("see `{} --help`", self.path()),
        };
        format!("{name} is not set: {help}.")
    }

    fn not_text(&self) -> String {
        let holds_bytes = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
        let variable = self
            .given_command()
            .get_arguments()
            .filter_map(Arg::get_env)
            .find(|name| holds_bytes(name))
            .and_then(OsStr::to_str);
        format!("{} is not valid UTF-8: give it as text.", variable.unwrap_or("An argument"))
    }

    /// The setting's name as it was given: its flag when that stands on the command line, else its variable.
    fn given_name(&self) -> String {
        let Some(arg) = self.arg() else { return self.context(ContextKind::InvalidArg) };
        let flag = arg.get_long().map(|long| format!("--{long}"));
        let variable = arg.get_env().and_then(OsStr::to_str);
        let on_command_line = flag.as_ref().is_some_and(|flag| {
            self.arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
                argument == flag || argument.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
            })
        });
        match (variable, flag) {
            (Some(variable), _) if !on_command_line => variable.to_owned(),
            (_, Some(flag)) => flag,
            (_, None) => arg.to_string(),
        }
    }

    /// The setting at fault.
    fn arg(&self) -> Option<&Arg> {
        let shown = self.strings(ContextKind::InvalidArg);
        let shown = shown.first()?;
        self.given_command().get_arguments().find(|arg| arg.to_string() == *shown)
    }

    /// The program and its commands as far as they were understood, such as `tuneloop keys create`.
    fn path(&self) -> String {
        let command = self.given_command();
        command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
    }

    /// The command that was asked for, as far as it was understood.
    fn given_command(&self) -> &Command {
        let names = self.arguments.iter().skip(1).map_while(|argument| argument.to_str());
        let mut command = self.command;
        for name in names {
            let Some(next) = command.find_subcommand(name) else { break };
            command = next;
        }
        command
    }

    fn context(&self, kind: ContextKind) -> String {
        self.strings(kind).join(", ")
    }

    fn strings(&self, kind: ContextKind) -> Vec<String> {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => vec![text.clone()],
            Some(ContextValue::Strings(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives(names: &[String]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.concat(),
    }
}
