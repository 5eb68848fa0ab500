//! `tuneloop serve`: the API, the worker and the scheduler, or those of them that are asked for.

use clap::Args;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Failure, shutdown_signal};
use crate::config::ServeArgs;
use crate::{database, telemetry};

/// Run the service: the API, the worker and the scheduler
///
/// The database must have the schema of this build: run `tuneloop migrate` first.
///
/// SIGTERM or Ctrl-C ends the service once the work in hand is done.
#[derive(Args, Debug)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.settings;
        settings.check().map_err(|missing| Failure::Settings(missing.to_string()))?;
        // Before anything else, so that a process that is still connecting can be stopped.
        let stop = shutdown_signal()?;
        let telemetry = telemetry::init(&settings.telemetry)?;
        let outcome = serve(&settings, &stop).await;
        telemetry.shutdown().await;
        outcome
    }
}

async fn serve(settings: &ServeArgs, stop: &CancellationToken) -> Result<(), Failure> {
    let Some(pool) = stop.run_until_cancelled(open(settings)).await else { return Ok(()) };
    let pool = pool?;
    tracing::info!(roles = %settings.roles, version = env!("CARGO_PKG_VERSION"), "started");
    stop.cancelled().await;
    pool.close().await;
    Ok(())
}

/// Connects to a database that has the schema of this build.
async fn open(settings: &ServeArgs) -> Result<PgPool, Failure> {
    let url = settings.database.database_url.expose();
    let pool = database::connect(url, settings.database_connections).await?;
    database::check_schema(&pool).await?;
    Ok(pool)
}
