//! A decision over ten thousand and over ten million outcomes of 200 personas: `cargo bench --bench analysis`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

#[path = "../experiment/mod.rs"]
mod experiment;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use sqlx::{Connection, PgConnection};
use tuneloop::clock::Clock;
use tuneloop::experiments;
use tuneloop::experiments::decision::decide;

use experiment::{PERSONAS, Running, median};

const FEW: i64 = 10_000;
const MANY: i64 = 10_000_000;
/// Decisions whose time is measured.
const LOOKS: usize = 51;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    experiment::run("analysis", bench())
}

async fn bench() -> Result<()> {
    let running = experiment::start().await?;
    fill(&running, 0, FEW).await?;
    let small = milliseconds(&running, FEW).await?;
    println!("{FEW} outcomes: {small:.2} ms");
    fill(&running, FEW, MANY).await?;
    let large = milliseconds(&running, MANY).await?;
    println!("{MANY} outcomes: {large:.2} ms");
    running.end().await?;
    println!("analysis: ms={large:.2} small_ms={small:.2}");
    Ok(())
}

/// Writes raw outcomes from one number to another, and the sums and units that recording would have made of them.
async fn fill(running: &Running, from: i64, to: i64) -> Result<()> {
    // Not one of the pool's, whose statements have a time limit.
    let mut conn = PgConnection::connect(&running.url).await?;
    let mut tx = conn.begin().await?;
    sqlx::raw_sql("SELECT make_outcomes_partition(now())").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO outcomes (number, pipeline, id, model_version_id, revision, experiment_id, candidate, unit, persona,
                served_at, engagement_rate, engagements, impressions, cost, quality, latency_ms, failed)
         SELECT n, 'hook', n::text, e.baseline_id, 2, e.id, n % 10 = 0, 'post-' || n, 'persona-' || n % $4,
                now(), (10 + n * 7919 % 89) / 1000.0, n % 90, 1000, (10 + n % 17) / 10000.0,
                (10 + n * 31 % 83) / 100.0, 200 + n * 17 % 700, n % 53 = 0
           FROM generate_series($2::bigint, $3::bigint - 1) n JOIN experiments e ON e.id = $1",
    )
    .bind(running.experiment)
    .bind(from)
    .bind(to)
    .bind(i64::from(PERSONAS))
    .execute(&mut *tx)
    .await?;
    sqlx::query("SELECT recompute_experiment($1)").bind(running.experiment).execute(&mut *tx).await?;
    tx.commit().await?;
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut conn).await?;
    Ok(conn.close().await?)
}

/// The median time from the sums in the database to the verdict.
async fn milliseconds(running: &Running, outcomes: i64) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let begun = Instant::now();
        let mut conn = running.db.acquire().await?;
        let experiment = experiments::by_id(&mut *conn, running.experiment).await?.ok_or("no experiment")?;
        let evidence = experiments::evidence(&mut conn, &experiment, Clock::system().now()).await?;
        let decision = decide(&evidence, &experiment.rules);
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        let counts = decision.estimate.ok_or("nothing was estimated")?.counts;
        if i64::try_from(counts.baseline.outcomes + counts.candidate.outcomes)? != outcomes {
            return Err("outcomes are missing".into());
        }
    }
    Ok(median(times))
}
