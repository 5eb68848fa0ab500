//! Slots of the schedule become runs, once each.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgPool;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::pipelines;
use tuneloop::schedule::Scheduler;
use tuneloop::telemetry::metrics::Metrics;

use crate::harness::database::{TestDatabase, fresh_database};
use crate::harness::service::config;

/// A pipeline with a weekly schedule that was set at `set_at`, and no service around it.
async fn weekly(set_at: &str) -> (TestDatabase, PgPool) {
    let database = fresh_database().await;
    let pool = database.pool.clone();
    let mut config = config();
    config["schedule"] = json!({"enabled": true, "cron": "0 2 * * 0", "timezone": "UTC"});
    let config = serde_json::from_value(config).unwrap();
    let mut tx = pool.begin().await.unwrap();
    pipelines::save(&mut tx, &Clock::system(), "hook", &config, &By::system()).await.unwrap();
    tx.commit().await.unwrap();
    // Configurations are append-only, but for a test that plays with time.
    sqlx::raw_sql("ALTER TABLE pipeline_configs DISABLE TRIGGER USER").execute(&pool).await.unwrap();
    let set = "UPDATE pipeline_configs SET created_at = $1::timestamptz";
    sqlx::query(set).bind(set_at).execute(&pool).await.unwrap();
    (database, pool)
}

fn at(time: &str) -> Clock {
    Clock::fixed(time.parse().unwrap(), 1)
}

fn scheduler(pool: &PgPool, clock: &Clock) -> Scheduler {
    Scheduler::new(pool.clone(), clock.clone(), Metrics::new().unwrap())
}

/// The slots that have a run, oldest first.
async fn slots(pool: &PgPool) -> Vec<DateTime<Utc>> {
    let slots = "SELECT slot FROM runs WHERE trigger = 'schedule' ORDER BY slot";
    sqlx::query_scalar(slots).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_that_race_for_a_slot_insert_one_run() {
    let (_database, pool) = weekly("2026-11-25T00:00:00Z").await;
    let clock = at("2026-11-29T02:00:01Z");
    let (first, second) = (scheduler(&pool, &clock), scheduler(&pool, &clock));
    for week in 1..=25 {
        let race =
            [first.clone(), second.clone()].map(|racer| tokio::spawn(async move { racer.tick().await }));
        for racer in race {
            racer.await.unwrap().unwrap();
        }
        assert_eq!(slots(&pool).await.len(), week);
        // The place is freed, so that each slot begins a run instead of a skipped one.
        sqlx::raw_sql(
            "UPDATE runs SET status = 'cancelled', place = NULL, finished_at = now(), reason_code = 'test',
                    reason = 'the next slot comes' WHERE finished_at IS NULL",
        )
        .execute(&pool)
        .await
        .unwrap();
        clock.advance(TimeDelta::days(7));
    }
    let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE kind <> 'audit_seal'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(jobs, 25, "one job for each run");
    let skipped = "SELECT count(*) FROM runs WHERE status = 'skipped'";
    assert_eq!(sqlx::query_scalar::<_, i64>(skipped).fetch_one(&pool).await.unwrap(), 0);
}

#[tokio::test]
async fn a_slot_before_the_pipeline_or_its_schedule_is_not_fired_and_the_next_one_is_once() {
    let (_database, pool) = weekly("2026-11-29T02:00:01Z").await;
    let clock = at("2026-11-29T02:00:05Z");
    let scheduler = scheduler(&pool, &clock);
    scheduler.tick().await.unwrap();
    assert!(slots(&pool).await.is_empty(), "the schedule is younger than the slot");
    clock.advance(TimeDelta::days(7) - TimeDelta::seconds(6));
    scheduler.tick().await.unwrap();
    assert!(slots(&pool).await.is_empty(), "a second before the slot");
    clock.advance(TimeDelta::seconds(1));
    for _ in 0..3 {
        scheduler.tick().await.unwrap();
        clock.advance(TimeDelta::seconds(5));
    }
    assert_eq!(slots(&pool).await, ["2026-12-06T02:00:00Z".parse::<DateTime<Utc>>().unwrap()]);
}

#[tokio::test]
async fn a_slot_that_was_missed_is_caught_up_within_a_day() {
    for (now, caught_up) in [("2026-11-30T01:59:59Z", 1), ("2026-11-30T02:00:01Z", 0)] {
        let (_database, pool) = weekly("2026-11-01T00:00:00Z").await;
        scheduler(&pool, &at(now)).tick().await.unwrap();
        assert_eq!(slots(&pool).await.len(), caught_up, "{now}");
    }
}

/// Gives the pipeline a second configuration, set at `at`, that differs in the field at `path`.
async fn change(pool: &PgPool, at: &str, path: &str, value: &str) {
    let change = "INSERT INTO pipeline_configs (pipeline, version, config, actor, created_at)
                  SELECT pipeline, 2, jsonb_set(config, $1::text[], $2::jsonb), actor, $3::timestamptz
                    FROM pipeline_configs";
    sqlx::query(change).bind(path).bind(value).bind(at).execute(pool).await.unwrap();
    sqlx::raw_sql("UPDATE pipelines SET config_version = 2").execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_change_of_another_setting_after_the_slot_does_not_take_it_away_and_one_of_the_schedule_does() {
    for (path, value, fired) in
        [("{dataset,minimum_examples}", "20", 1), ("{schedule,timezone}", "\"Africa/Abidjan\"", 0)]
    {
        let (_database, pool) = weekly("2026-11-01T00:00:00Z").await;
        change(&pool, "2026-11-29T02:00:02Z", path, value).await;
        scheduler(&pool, &at("2026-11-29T02:00:05Z")).tick().await.unwrap();
        assert_eq!(slots(&pool).await.len(), fired, "{path}");
    }
}

#[tokio::test]
async fn a_schedule_that_is_off_fires_nothing() {
    let (_database, pool) = weekly("2026-11-01T00:00:00Z").await;
    change(&pool, "2026-11-01T00:00:00Z", "{schedule,enabled}", "false").await;
    scheduler(&pool, &at("2026-11-29T02:00:05Z")).tick().await.unwrap();
    assert!(slots(&pool).await.is_empty());
}
