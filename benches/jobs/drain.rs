//! The product: one worker process, with the settings that `tuneloop serve` has by default, drains a table of
//! waiting jobs that do nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tuneloop::clock::Clock;
use tuneloop::config::WorkerArgs;
use tuneloop::jobs::{Done, Handler, JobError, Lease, Worker, WorkerSettings};
use tuneloop::telemetry::metrics::Metrics;

use crate::Result;

/// The argument that makes this program the worker's process.
pub(crate) const CHILD: &str = "drain";

/// As many as a worker of `tuneloop serve` has by default.
const CONNECTIONS: u32 = 20;
const JOBS: usize = 20_000;
const KIND: &str = "nothing";

/// Waiting jobs, inserted by one statement into an empty table.
pub(crate) async fn fill(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("TRUNCATE jobs").execute(&mut connection).await?;
    sqlx::query(
        "INSERT INTO jobs (kind, subject) SELECT $1, n::text FROM generate_series(1, $2::bigint) AS n",
    )
    .bind(KIND)
    .bind(i64::try_from(JOBS)?)
    .execute(&mut connection)
    .await?;
    Ok(connection.close().await?)
}

/// One turn: a worker's process drains the table, and the table says whether it did.
pub(crate) async fn jobs_per_second(url: &str) -> Result<f64> {
    let child = Command::new(std::env::current_exe()?).args([CHILD, url]).kill_on_drop(true).output().await?;
    if !child.status.success() {
        return Err(format!("the worker failed: {}", String::from_utf8_lossy(&child.stderr)).into());
    }
    let seconds: f64 = String::from_utf8(child.stdout)?.trim().parse()?;
    let mut connection = PgConnection::connect(url).await?;
    let done: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = 'done' AND kind = $1")
        .bind(KIND)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    if usize::try_from(done)? != JOBS {
        return Err(format!("{done} of {JOBS} jobs were done").into());
    }
    Ok(JOBS as f64 / seconds)
}

/// The worker's process: prints the seconds from the start of the worker until its last job is written down
/// as done and it has stopped.
pub(crate) async fn child(url: &str) -> Result<()> {
    let pool = tuneloop::database::connect(url, CONNECTIONS).await?;
    let drained = CancellationToken::new();
    let handler = Nothing { left: AtomicUsize::new(JOBS), drained: drained.clone() };
    let worker =
        Worker::new(pool.clone(), Clock::system(), Metrics::new()?, settings()?, vec![Arc::new(handler)]);
    let begun = Instant::now();
    worker.run(drained).await;
    println!("{}", begun.elapsed().as_secs_f64());
    pool.close().await;
    Ok(())
}

/// The settings that the command line gives a worker that is told nothing.
pub(crate) fn settings() -> Result<WorkerSettings> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        worker: WorkerArgs,
    }
    let worker = Defaults::try_parse_from(["worker"])?.worker;
    Ok(WorkerSettings {
        slots: usize::try_from(worker.slots)?,
        lease: worker.lease,
        poll_interval: worker.poll_interval,
        grace: Duration::from_secs(25),
    })
}

struct Nothing {
    left: AtomicUsize,
    drained: CancellationToken,
}

impl Handler for Nothing {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, _: &'a Lease) -> BoxFuture<'a, std::result::Result<Done, JobError>> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.drained.cancel();
        }
        async { Ok(Done::Finished) }.boxed()
    }
}
