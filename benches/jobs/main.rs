//! The job table beside pgbench on the same server, in turns: `cargo bench --bench jobs`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

mod drain;
mod pgbench;
mod transitions;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tuneloop::embedded::{Cluster, Options};

/// pgbench and the drain take turns this often; each figure is the median of its turns.
const TURNS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let work = async {
        match (arguments.next().as_deref(), arguments.next()) {
            (Some(drain::CHILD), Some(url)) => drain::child(&url).await,
            _ => bench().await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobs: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<()> {
    let directory = directory()?;
    // With a directory of its own the cluster has PostgreSQL's default settings: it waits for the disk.
    let options = Options {
        data_dir: Some(directory.path().to_path_buf()),
        binaries: std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    println!("PostgreSQL {} with its default settings", cluster.version());

    let pgbench = pgbench::Pgbench::prepare(&cluster).await?;
    let jobs_url = migrated(&cluster, "jobs").await?;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        checkpoint(&jobs_url).await?;
        let transactions = pgbench.transactions_per_second().await?;
        drain::fill(&jobs_url).await?;
        checkpoint(&jobs_url).await?;
        let jobs = drain::jobs_per_second(&jobs_url).await?;
        println!("turn {turn} of {TURNS}: pgbench {transactions:.0} transactions/s, worker {jobs:.0} jobs/s");
        rates.push(jobs);
        // Of neighbours in time, because disks have good and bad moments.
        ratios.push(jobs / transactions);
    }
    let transitions = transitions::per_second(&migrated(&cluster, "runs").await?, directory.path()).await?;
    cluster.stop().await?;

    println!(
        "jobs: ratio={:.2} jobs_per_s={:.0} transitions_per_s={transitions:.0}",
        median(ratios),
        median(rates)
    );
    Ok(())
}

/// A directory below one that the server's account may enter when this is run by root.
fn directory() -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

async fn migrated(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.create_database(name).await?;
    let url = cluster.url(name);
    let pool = tuneloop::database::connect(&url, 2).await?;
    tuneloop::database::migrate(&pool).await?;
    pool.close().await;
    Ok(url)
}

/// No turn pays for what another wrote.
async fn checkpoint(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
