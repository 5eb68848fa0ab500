//! Whole runs: many pipelines at once go from collect to the end of their watch, with a simulated provider.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::dataset::{DatasetStore, Sources};
use tuneloop::jobs::Worker;
use tuneloop::pipelines::{self, PipelineConfig};
use tuneloop::runs::{self, Request, RunHandler, Services};
use tuneloop::simulator::{Settings, Simulator};
use tuneloop::telemetry::metrics::Metrics;
use tuneloop::trainers::{ApiKey, OpenAiSettings, OpenAiTrainer, Trainers};
use uuid::Uuid;

use crate::{Result, drain};

const PIPELINES: usize = 200;
const LIMIT: Duration = Duration::from_mins(1);

/// Transitions of all runs by the time from their first trigger to the end of the last.
pub(crate) async fn per_second(url: &str, directory: &Path) -> Result<f64> {
    let pool = tuneloop::database::connect(url, 20).await?;
    let clock = Clock::system();
    let stop = CancellationToken::new();
    let services = services(&pool, &clock, directory, &stop).await?;
    let pipelines = pipelines(&pool, &clock).await?;
    let worker = Worker::new(
        pool.clone(),
        clock.clone(),
        services.metrics.clone(),
        drain::settings()?,
        vec![Arc::new(RunHandler::new(services))],
    );
    let worker = tokio::spawn(worker.run(stop.clone()));

    let begun = Instant::now();
    for pipeline in &pipelines {
        let mut tx = pool.begin().await?;
        runs::by_api(&mut tx, &clock, pipeline, &By::system()).await?;
        tx.commit().await?;
    }
    let transitions = tokio::time::timeout(LIMIT, approve_until_all_succeeded(&pool));
    let transitions = transitions.await.map_err(|_| "the runs did not end within a minute")??;
    let elapsed = begun.elapsed();
    stop.cancel();
    worker.await?;
    pool.close().await;
    println!(
        "runs: {PIPELINES} pipelines, {transitions} transitions in {:.1} s, all succeeded",
        elapsed.as_secs_f64()
    );
    Ok(transitions as f64 / elapsed.as_secs_f64())
}

async fn services(
    pool: &PgPool,
    clock: &Clock,
    directory: &Path,
    stop: &CancellationToken,
) -> Result<Services> {
    let settings = Settings { training_time: Duration::from_millis(100), ..Settings::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    let simulator = Simulator::new(settings, clock.clone());
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move { simulator.serve(listener, stopped).await });
    let trainer = OpenAiTrainer::new(&OpenAiSettings::new(base_url, ApiKey::new("simulated")), clock)?;
    Ok(Services {
        prices: tuneloop::preflight::PriceTable::default(),
        db: pool.clone(),
        sources: Sources::new(pool.clone()),
        clock: clock.clone(),
        datasets: DatasetStore::local(&directory.join("datasets"))?,
        trainers: Trainers::new().with_openai(trainer),
        metrics: Metrics::new()?,
    })
}

async fn pipelines(pool: &PgPool, clock: &Clock) -> Result<Vec<pipelines::Pipeline>> {
    sqlx::raw_sql(
        "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate)
         SELECT 'persona ' || n, 'input ' || n, 'hook ' || n, 'body ' || n, 0.1 FROM generate_series(1, 20) AS n",
    )
    .execute(pool)
    .await?;
    let config: PipelineConfig = serde_json::from_value(json!({
        "serving_model": "gpt-4o",
        "dataset": {"minimum_examples": 10},
        "training": {"base_model": "gpt-4o-2024-08-06", "poll_seconds": 0.1},
        "schedule": {"enabled": false},
        "experiment": {"horizon_seconds": 0.2, "interval_seconds": 0.1, "rules": {"minimum_hours": 0.0}},
        "watch": {"duration_seconds": 0.2, "interval_seconds": 0.1},
    }))?;
    let mut pipelines = Vec::new();
    for number in 1..=PIPELINES {
        let mut tx = pool.begin().await?;
        let name = format!("p{number}");
        pipelines.push(pipelines::save(&mut tx, clock, &name, &config, &By::system()).await?);
        tx.commit().await?;
    }
    Ok(pipelines)
}

/// Nobody is served, so that every test is inconclusive, and approved here. Returns the transitions made.
async fn approve_until_all_succeeded(pool: &PgPool) -> Result<i64> {
    loop {
        let (ended, other, transitions): (i64, i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE finished_at IS NOT NULL),
                    count(*) FILTER (WHERE finished_at IS NOT NULL AND status <> 'succeeded'),
                    coalesce(sum(version - 1), 0)::bigint FROM runs",
        )
        .fetch_one(pool)
        .await?;
        if other > 0 {
            let why: String = sqlx::query_scalar(
                "SELECT reason FROM runs WHERE status <> 'succeeded' AND finished_at IS NOT NULL LIMIT 1",
            )
            .fetch_one(pool)
            .await?;
            return Err(format!("{other} runs did not succeed: {why}").into());
        }
        if usize::try_from(ended)? == PIPELINES {
            return Ok(transitions);
        }
        let waiting: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM runs WHERE status = 'waiting_approval' AND request IS NULL ORDER BY id",
        )
        .fetch_all(pool)
        .await?;
        for run in waiting {
            let mut tx = pool.begin().await?;
            let run = runs::lock(&mut tx, run).await?;
            runs::request(&mut tx, run, Request::Approve, Some("for the bench"), &By::system()).await?;
            tx.commit().await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
