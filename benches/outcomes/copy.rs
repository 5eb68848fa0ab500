//! The baseline: psql copies the rows from a file into one table with the keys that recording needs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use sqlx::PgPool;
use tokio::process::Command;
use tuneloop::clock::Clock;

use crate::experiment::{PERSONAS, Running};
use crate::{ROWS, Result};

/// The columns of an outcome in one table: an id is there once, and so is a unit in an experiment.
pub(crate) async fn prepare(db: &PgPool) -> Result<()> {
    sqlx::raw_sql(
        "CREATE TABLE copied (
             pipeline text NOT NULL, id text NOT NULL, model_version_id uuid NOT NULL, revision bigint NOT NULL,
             experiment_id uuid, candidate boolean, unit text NOT NULL, persona text, served_at timestamptz NOT NULL,
             engagement_rate double precision, engagements bigint, impressions bigint, cost double precision,
             quality double precision, latency_ms double precision, failed boolean,
             received_at timestamptz NOT NULL DEFAULT now(),
             PRIMARY KEY (pipeline, id), UNIQUE (experiment_id, unit))",
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn rows_per_second(running: &Running, directory: &Path, turn: u32) -> Result<f64> {
    let served_at = Clock::system().now();
    let experiment = running.experiment;
    let mut rows = String::new();
    for number in 0..ROWS {
        let candidate = number % 10 == 0;
        // Writing to a String does not fail.
        let _ = writeln!(
            rows,
            "hook,{turn}-{number},{experiment},2,{experiment},{candidate},post-{turn}-{number},persona-{},{served_at},\
             0.0{},{},1000,0.00{},0.{},{},false",
            number % PERSONAS,
            10 + number % 89,
            number % 90,
            10 + number % 17,
            10 + number % 83,
            200 + number % 700,
        );
    }
    let file = directory.join("outcomes.csv");
    std::fs::write(&file, rows)?;
    let columns = "pipeline, id, model_version_id, revision, experiment_id, candidate, unit, persona, served_at, \
                   engagement_rate, engagements, impressions, cost, quality, latency_ms, failed";
    let command = format!("\\copy copied ({columns}) FROM '{}' (FORMAT csv)", file.display());
    let begun = Instant::now();
    let output =
        Command::new("psql").args([&running.url, "-X", "-q", "-c", &command]).kill_on_drop(true).output();
    let output = output.await.map_err(|error| format!("psql cannot be started: {error}; install it"))?;
    let seconds = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(f64::from(ROWS) / seconds)
}
