//! `tuneloop audit`: whether the trail is as it was sealed, and the trail itself.

use std::io::{self, BufWriter, Write};
use std::pin::pin;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use sqlx::PgPool;

use super::{Failure, PrintError, print, tell};
use crate::audit::{self, Expectation, Filter};
use crate::config::DatabaseArgs;
use crate::database;

/// Verify and export the audit trail
#[derive(Args, Debug)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Export(Export),
}

/// Check that no event was altered or taken away since it was sealed
///
/// Names the first event at fault and ends with status 1. Otherwise the last line of standard output is the end of the chain as
/// `SEQ:HASH`. Keep it elsewhere: that the end of the trail was cut off shows only against such a note, which `--expect` takes.
#[derive(Args, Debug)]
struct Verify {
    /// Begin at this place of the chain; the hash before it is taken as it stands
    #[arg(long, value_name = "SEQ", default_value = "1", value_parser = seq)]
    from_seq: i64,

    /// What was noted of the chain before; it must still be so
    #[arg(long, value_name = "SEQ:HASH")]
    expect: Option<Expectation>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Write the sealed trail to standard output, one JSON object a line, oldest first
///
/// Each line has `seq`, `previous`, `hash` and the `event` that is hashed. Events that are not sealed yet come with a later export.
#[derive(Args, Debug)]
struct Export {
    /// Only from this place of the chain on
    #[arg(long, value_name = "SEQ", value_parser = seq)]
    from_seq: Option<i64>,

    /// Only what was done to subjects of this kind, such as run
    #[arg(long, value_name = "KIND")]
    subject_kind: Option<String>,

    /// Only what was done to the subject with this identifier
    #[arg(long, value_name = "ID")]
    subject_id: Option<String>,

    /// Only what concerns this pipeline
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,

    /// Only what this actor did, such as key:ci or worker
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,

    /// Only this action, such as run.cancel
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// Only what was done at this time or later, such as `2026-11-26T10:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,

    /// Only what was done before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,

    #[command(flatten)]
    database: DatabaseArgs,
}

fn seq(text: &str) -> Result<i64, &'static str> {
    text.parse().ok().filter(|seq| *seq >= 1).ok_or("a whole number of at least 1")
}

fn time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "a time with its zone, such as 2026-11-26T10:00:00Z")
}

impl Audit {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Verify(verify) => verify.run().await,
            Command::Export(export) => export.run().await,
        }
    }
}

async fn connect(settings: &DatabaseArgs) -> Result<PgPool, Failure> {
    let pool = database::connect(settings.database_url.expose(), 1).await?;
    database::check_schema(&pool).await?;
    Ok(pool)
}

impl Verify {
    async fn run(self) -> Result<(), Failure> {
        let pool = connect(&self.database).await?;
        let mut conn = pool.acquire().await?;
        let verified = audit::verify(&mut conn, self.from_seq, self.expect).await?;
        drop(conn);
        pool.close().await;
        tell(&format!(
            "{} sealed events are as they were sealed; {} younger than a minute wait for their seal.",
            verified.events, verified.unsealed
        ));
        if self.expect.is_none() {
            tell(
                "Whether events at the end were taken away shows against a note alone: keep the line below elsewhere, and give it \
                 to --expect next time.",
            );
        }
        Ok(print(&verified.head.to_string())?)
    }
}

impl Export {
    async fn run(self) -> Result<(), Failure> {
        let pool = connect(&self.database).await?;
        let filter = Filter {
            subject_kind: self.subject_kind,
            subject_id: self.subject_id,
            pipeline: self.pipeline,
            actor: self.actor,
            action: self.action,
            since: self.since,
            until: self.until,
            from_seq: self.from_seq,
        };
        let mut output = BufWriter::new(io::stdout().lock());
        let mut batches = pin!(audit::lines(pool.clone(), filter));
        while let Some(lines) = batches.try_next().await? {
            for line in lines {
                let text = serde_json::to_string(&line)?;
                writeln!(output, "{text}").map_err(PrintError)?;
            }
        }
        output.flush().map_err(PrintError)?;
        drop(output);
        pool.close().await;
        Ok(())
    }
}
