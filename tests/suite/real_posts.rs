//! Real headlines with real engagement, where they are at hand.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::json;

use crate::harness::service::TestService;

#[derive(Deserialize)]
struct Row {
    story_id: String,
    original_input: String,
    hook: String,
    body: String,
    engagement_rate: f64,
    created_at: DateTime<Utc>,
}

fn rows(file: &Path) -> Vec<Row> {
    let file = std::fs::File::open(file).unwrap();
    let mut rows = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    rows.deserialize().map(Result::unwrap).collect()
}

/// Inserts the posts, their times shifted so that the newest is now.
async fn load(service: &TestService, rows: &[Row]) {
    let shift = service.clock.now() - rows.iter().map(|row| row.created_at).max().unwrap();
    let column = |field: fn(&Row) -> &str| rows.iter().map(|row| field(row).to_owned()).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate, created_at)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::timestamptz[])",
    )
    .bind(column(|row| &row.story_id))
    .bind(column(|row| &row.original_input))
    .bind(column(|row| &row.hook))
    .bind(column(|row| &row.body))
    .bind(rows.iter().map(|row| row.engagement_rate).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.created_at + shift).collect::<Vec<_>>())
    .execute(&service.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_run_trains_on_the_real_posts_at_or_above_six_percent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !folder.exists() {
        eprintln!("there is no {}: passed over", folder.display());
        return;
    }
    let rows = rows(&folder.join("data/posts_2013.csv.gz"));
    assert_eq!(rows.len(), 5_506);
    let service = TestService::start().await;
    load(&service, &rows).await;
    service
        .pipeline("hook", |config| {
            config["dataset"] = json!({
                "engagement_threshold": 0.06, "minimum_examples": 100,
                "lookback_seconds": TimeDelta::days(400).num_seconds(),
            });
        })
        .await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let counts = &run["dataset"]["counts"];
    assert_eq!(counts["posts"], 5506);
    assert_eq!(counts["below_threshold"], 5327);
    assert_eq!(counts["examples"], 179);
    let job = &service.simulator.jobs()[0];
    let file = service.simulator.file_content(&job.training_file).unwrap();
    let lines = String::from_utf8(file).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 179);
    let best = rows.iter().max_by(|a, b| a.engagement_rate.total_cmp(&b.engagement_rate)).unwrap();
    let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(first["messages"][1]["content"], best.hook);
    service.end().await;
}
