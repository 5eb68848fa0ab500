//! Recording outcomes through the API beside `COPY FROM` of the same rows, in turns: `cargo bench --bench outcomes`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

#[path = "../api/mod.rs"]
mod api;
mod copy;
#[path = "../experiment/mod.rs"]
mod experiment;
mod record;

use std::error::Error;
use std::process::ExitCode;

use sqlx::PgPool;

use experiment::median;

/// COPY and the API take turns this often; each figure is the median of its turns.
const TURNS: u32 = 5;
/// Rows of a turn.
pub(crate) const ROWS: u32 = 200_000;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    experiment::run("outcomes", bench())
}

async fn bench() -> Result<()> {
    let running = experiment::start().await?;
    let directory = tempfile::tempdir()?;
    copy::prepare(&running.db).await?;
    let api = api::Api::start(&running.db).await?;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        checkpoint(&running.db).await?;
        let copied = copy::rows_per_second(&running, directory.path(), turn).await?;
        let bodies = record::bodies(turn)?;
        checkpoint(&running.db).await?;
        let recorded = record::rows_per_second(&api, bodies).await?;
        println!("turn {} of {TURNS}: COPY {copied:.0} rows/s, API {recorded:.0} rows/s", turn + 1);
        rates.push(recorded);
        ratios.push(recorded / copied);
    }
    running.end().await?;
    println!("outcomes: ratio={:.2} rows_per_s={:.0}", median(ratios), median(rates));
    Ok(())
}

/// No turn pays for what another wrote.
async fn checkpoint(db: &PgPool) -> Result<()> {
    sqlx::raw_sql("CHECKPOINT").execute(db).await?;
    Ok(())
}
