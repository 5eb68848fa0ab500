//! Rollbacks on a pipeline with a long history, each beside the commit of one row: `cargo bench --bench rollback`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

#[path = "../api/mod.rs"]
mod api;
#[path = "../experiment/mod.rs"]
#[expect(dead_code, reason = "nothing is recorded in the experiment")]
mod experiment;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use api::Api;

/// Versions that the pipeline had, each of them live ten times.
const VERSIONS: i32 = 1_000;
const REVISIONS: i64 = 10_000;
/// Rollbacks whose time is measured.
const ROLLBACKS: usize = 200;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    experiment::run("rollback", bench())
}

async fn bench() -> Result<()> {
    let running = experiment::start().await?;
    let api = Api::start(&running.db).await?;
    lengthen(&running.db).await?;
    println!("the first, which ends the running test: {:.1} ms", roll_back(&api, "first").await?);
    sqlx::raw_sql("CREATE TABLE counted AS SELECT 0 AS count").execute(&running.db).await?;
    let (mut commits, mut rollbacks) = (Vec::new(), Vec::new());
    for number in 0..ROLLBACKS {
        let begun = Instant::now();
        sqlx::query("UPDATE counted SET count = count + 1").execute(&running.db).await?;
        commits.push(begun.elapsed().as_secs_f64() * 1_000.0);
        rollbacks.push(roll_back(&api, &number.to_string()).await?);
    }
    check(&running.db).await?;
    running.end().await?;
    rollbacks.sort_by(f64::total_cmp);
    println!(
        "rollback: median_ms={:.1} p99_ms={:.1} max_ms={:.1} commit_ms={:.1}",
        rollbacks[ROLLBACKS / 2],
        rollbacks[ROLLBACKS * 99 / 100 - 1],
        rollbacks[ROLLBACKS - 1],
        experiment::median(commits),
    );
    Ok(())
}

/// Rolls back to the version that was live before, and tells how many milliseconds that took.
async fn roll_back(api: &Api, key: &str) -> Result<f64> {
    let request = api.post("/v1/pipelines/hook/rollback", json!({"reason": "measured"}).to_string());
    let begun = Instant::now();
    let answer = request.header("idempotency-key", key).send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    let took = begun.elapsed().as_secs_f64() * 1_000.0;
    if status != StatusCode::OK {
        return Err(format!("the API answered {status}: {body}").into());
    }
    Ok(took)
}

/// Each was one, to a version of its own.
async fn check(db: &PgPool) -> Result<()> {
    let versions: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT live_version_id) FROM (
             SELECT live_version_id FROM traffic_revisions WHERE pipeline = 'hook' AND kind = 'rollback'
              ORDER BY revision DESC LIMIT $1) latest",
    )
    .bind(i64::try_from(ROLLBACKS)?)
    .fetch_one(db)
    .await?;
    if versions != i64::try_from(ROLLBACKS)? {
        return Err(format!("{ROLLBACKS} rollbacks led to {versions} versions").into());
    }
    Ok(())
}

/// A long history, written by SQL.
async fn lengthen(db: &PgPool) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
         SELECT gen_random_uuid(), 'hook', 2, n, 0, 'retired', 'openai', 'm-' || n, 'gpt-4o-2024-08-06'
           FROM generate_series(0, $1 - 1) n",
    )
    .bind(VERSIONS)
    .execute(&mut *tx)
    .await?;
    let revisions = "WITH revision AS (
             INSERT INTO traffic_revisions (pipeline, revision, live_version_id, salt, kind, reason, actor)
             SELECT 'hook', p.traffic_revision + n, v.id, 'hook', 'promotion', 'long ago', 'system'
               FROM generate_series(1, $1) n JOIN pipelines p ON p.name = 'hook'
               JOIN model_versions v ON v.pipeline = 'hook' AND v.major = 2 AND v.minor = n % $2
             RETURNING revision, live_version_id)
         INSERT INTO traffic_weights (pipeline, revision, position, model_version_id, weight)
         SELECT 'hook', revision, 0, live_version_id, 10000 FROM revision";
    sqlx::query(revisions).bind(REVISIONS).bind(VERSIONS).execute(&mut *tx).await?;
    sqlx::raw_sql(
        "UPDATE pipelines SET traffic_revision = (SELECT max(revision) FROM traffic_revisions WHERE pipeline = 'hook')
          WHERE name = 'hook';
         UPDATE model_versions SET status = 'retired' WHERE pipeline = 'hook' AND status = 'live';
         UPDATE model_versions SET status = 'live' WHERE pipeline = 'hook' AND major = 2 AND minor = 0;",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    sqlx::raw_sql("ANALYZE").execute(db).await?;
    Ok(())
}
