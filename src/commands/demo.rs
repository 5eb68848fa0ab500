//! `tuneloop demo`: everything at once, with nothing configured.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, shutdown_signal};
use crate::config::{self, TelemetryArgs};
use crate::demo::{self, Candidate, DemoPipeline, DemoSettings};
use crate::telemetry;

/// What the service logs where the demo is verbose: as `serve` does.
const VERBOSE_LOG: &str = "info,sqlx=warn,h2=warn,hyper_util=warn,tower_http=warn";

/// Show the whole way of a model in half a minute, with nothing configured
///
/// Starts a private Postgres, a simulated provider and the service in one process, loads posts, triggers a run
/// through the REST API and serves simulated readers, until the new model is promoted and watched. Then it goes
/// on serving until Ctrl-C.
///
/// Provider and readers are simulated; nothing leaves this machine. The test and the watch are configured in
/// seconds.
#[derive(Args, Debug)]
#[command(next_help_heading = "Demo", mut_arg("log_filter", |filter| filter.default_value("warn")))]
pub(super) struct Demo {
    /// Your own posts in place of made-up ones: a CSV file, also compressed by gzip, with the columns
    /// `original_input`, `hook`, `body`, `engagement_rate` and `created_at`. Times are moved so that the newest
    /// post is now
    #[arg(long, value_name = "FILE")]
    posts: Option<PathBuf>,

    /// The pipeline that is shown
    #[arg(long, value_name = "PIPELINE", default_value = "hook")]
    pipeline: DemoPipeline,

    /// What made-up posts and simulated readers come from: the same number gives the same ones
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = seed)]
    seed: u64,

    /// Make the candidate worse: the test stops for harm, or the watch rolls back
    #[arg(long)]
    harm: bool,

    /// End with the verdict: status 0 once the run has one (with `--harm`: once its harm was found), else 1
    #[arg(long)]
    exit: bool,

    /// Show every event with its figures, and the log of the service
    #[arg(long)]
    verbose: bool,

    /// Address and port of the API; another port is chosen where this one is taken
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = config::listen)]
    listen: SocketAddr,

    /// Keep the database and the datasets in this directory. Each demo makes a new database
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,

    /// The folder of the programs `postgres` and `initdb`; searched for, else downloaded
    #[arg(long, value_name = "DIRECTORY")]
    postgres_bin: Option<PathBuf>,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

fn seed(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "a whole number of at least 0")
}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let stop = shutdown_signal()?;
        let mut logs = self.telemetry;
        if self.verbose && logs.log_filter == "warn" {
            VERBOSE_LOG.clone_into(&mut logs.log_filter);
        }
        let telemetry = telemetry::init(&logs)?;
        let settings = DemoSettings {
            pipeline: self.pipeline,
            candidate: if self.harm { Candidate::Worse } else { Candidate::Better },
            posts: self.posts,
            seed: self.seed,
            listen: self.listen,
            data_dir: self.data_dir,
            postgres_bin: self.postgres_bin,
            exit: self.exit,
            verbose: self.verbose,
        };
        let outcome = demo::run(settings, stop).await;
        telemetry.shutdown().await;
        Ok(outcome?)
    }
}
