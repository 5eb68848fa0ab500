//! How long a rollback takes over HTTP, on a pipeline with a long history. The figures are printed (`-- --nocapture`); what is
//! asserted is that each rollback was one.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use crate::world::World;

const VERSIONS: i32 = 1_000;
const REVISIONS: i64 = 10_000;
const ROLLBACKS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_rollbacks_of_a_long_history() {
    let world = World::new().await;
    let pool = &world.database.pool;
    lengthen(pool).await;
    let (key, http) = (world.key("operator").await, reqwest::Client::builder().no_proxy().build().unwrap());
    let url = format!("{}/v1/pipelines/hook/rollback", world.urls()[0].read().unwrap());
    let mut times = Vec::new();
    for number in 0..ROLLBACKS {
        let request = http
            .post(&url)
            .bearer_auth(&key)
            .header("content-type", "application/json")
            .header("idempotency-key", number.to_string())
            .body(json!({"reason": "measured"}).to_string());
        let start = Instant::now();
        let answer = request.send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        times.push(start.elapsed());
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    let written: (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT live_version_id) FROM traffic_revisions
          WHERE pipeline = 'hook' AND kind = 'rollback'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let rollbacks = i64::try_from(ROLLBACKS).unwrap();
    assert_eq!(written, (rollbacks, rollbacks), "each is one, to a version of its own");
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "rollback: median_ms={:.2} p99_ms={:.2} max_ms={:.2}",
        milliseconds(times[ROLLBACKS / 2]),
        milliseconds(times[ROLLBACKS * 99 / 100 - 1]),
        milliseconds(times[ROLLBACKS - 1]),
    );
}

/// A thousand versions, each of which was live ten times.
async fn lengthen(pool: &PgPool) {
    let mut tx = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
         SELECT gen_random_uuid(), 'hook', 2, n, 0, 'retired', 'openai', 'm-' || n, 'gpt-4o-2024-08-06'
           FROM generate_series(0, $1 - 1) n",
    )
    .bind(VERSIONS)
    .execute(&mut *tx)
    .await
    .unwrap();
    let revisions = "WITH revision AS (
             INSERT INTO traffic_revisions (pipeline, revision, live_version_id, salt, kind, reason, actor)
             SELECT 'hook', n + 1, v.id, 'hook', 'promotion', 'long ago', 'system'
               FROM generate_series(1, $1) n
               JOIN model_versions v ON v.pipeline = 'hook' AND v.major = 2 AND v.minor = n % $2
             RETURNING revision, live_version_id)
         INSERT INTO traffic_weights (pipeline, revision, position, model_version_id, weight)
         SELECT 'hook', revision, 0, live_version_id, 10000 FROM revision";
    sqlx::query(revisions).bind(REVISIONS).bind(VERSIONS).execute(&mut *tx).await.unwrap();
    sqlx::raw_sql(
        "UPDATE pipelines SET traffic_revision = (SELECT max(revision) FROM traffic_revisions WHERE pipeline = 'hook')
          WHERE name = 'hook';
         UPDATE model_versions SET status = 'retired' WHERE pipeline = 'hook' AND status = 'live';
         UPDATE model_versions SET status = 'live' WHERE pipeline = 'hook' AND major = 2 AND minor = 0;",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    sqlx::raw_sql("ANALYZE").execute(pool).await.unwrap();
}
