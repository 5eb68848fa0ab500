//! Real headlines with real engagement, where they are at hand.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

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

/// The real posts, or `None` where they are not at hand.
fn real_rows() -> Option<Vec<Row>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !folder.exists() {
        eprintln!("there is no {}: passed over", folder.display());
        return None;
    }
    let rows = rows(&folder.join("data/posts_2013.csv.gz"));
    assert_eq!(rows.len(), 5_506);
    Some(rows)
}

/// The first digits of a file's digest, its examples and their tokens, and the counts. Any change of how examples are read, cleaned, left out, ordered, written or counted shows here.
#[tokio::test]
async fn both_pipelines_reports_on_the_real_posts_have_the_known_figures_at_each_stage() {
    let Some(rows) = real_rows() else { return };
    let service = TestService::start().await;
    load(&service, &rows).await;
    let mut found = json!({});
    for pipeline in ["hook", "body"] {
        service
            .pipeline(pipeline, |config| {
                config["dataset"] = json!({
                    "template": pipeline, "engagement_threshold": 0.03,
                    "lookback_seconds": TimeDelta::days(400).num_seconds(),
                });
            })
            .await;
        let report =
            service.post(&format!("/v1/pipelines/{pipeline}/preflight"), Value::Null).await.expect(200);
        let part = |name: &str| {
            let part = &report[name];
            json!([part["digest"].as_str().unwrap()[..16], part["examples"], part["tokens"]["total"]])
        };
        found[pipeline] = json!({
            "counts": report["counts"], "cleaning": report["cleaning"], "faults": report["fault_count"],
            "train": part("train"), "validation": part("validation"),
        });
    }
    let nothing = json!({"email": 0, "phone": 0, "card": 0, "iban": 0, "ip": 0, "secret": 0});
    let counts = |duplicates: u64, examples: u64| {
        json!({
            "posts": 5506, "too_old": 0, "too_young": 0, "few_impressions": 0, "below_threshold": 4181, "empty": 0,
            "personal_data": 0, "too_short": 0, "duplicates": duplicates, "near_duplicates": 0, "over_persona": 0,
            "over_maximum": 0, "unpaired": 0, "examples": examples,
        })
    };
    let expected = json!({
        "hook": {
            "counts": counts(340, 985), "faults": 0,
            "cleaning": {
                "html": 0, "unicode": 0, "control_characters": 23, "white_space": 245, "personal_data": 0,
                "near_duplicates": 311, "findings": nothing,
            },
            "train": ["253f53725074bd22", 899, 37_315], "validation": ["bb48c8f132110bee", 86, 3_489],
        },
        "body": {
            "counts": counts(588, 737), "faults": 0,
            "cleaning": {
                "html": 1_245, "unicode": 0, "control_characters": 6, "white_space": 1_245, "personal_data": 0,
                "near_duplicates": 351, "findings": nothing,
            },
            "train": ["419e6381aca69e45", 678, 61_336], "validation": ["f8990cd0a2af8cef", 59, 5_505],
        },
    });
    assert_eq!(found, expected, "{found:#}");
    service.end().await;
}

#[tokio::test]
async fn a_run_trains_on_the_real_posts_at_or_above_six_percent() {
    let Some(rows) = real_rows() else { return };
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
    assert_eq!((&counts["posts"], &counts["below_threshold"]), (&json!(5506), &json!(5327)));
    // Of the 179 at or above the threshold, those that say what another one says are left out.
    assert_eq!((&counts["duplicates"], &counts["examples"]), (&json!(37), &json!(142)), "{counts:#}");

    let digest = run["dataset"]["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
    let part = |name: &str| manifest["parts"][name].clone();
    assert_eq!(part("train")["digest"], digest);
    let trained = service.text(&format!("/v1/datasets/{digest}/content"), &[]).await;
    let validation = part("validation")["digest"].as_str().unwrap().to_owned();
    let set_aside = service.text(&format!("/v1/datasets/{validation}/content"), &[]).await;
    assert_eq!(trained.lines().count() + set_aside.lines().count(), 142);
    assert_eq!(json!(set_aside.lines().count()), part("validation")["examples"]);
    let of = |story: &str, lines: &str| {
        rows.iter()
            .filter(|row| row.story_id == story)
            .any(|row| lines.contains(&format!("{{\"role\":\"assistant\",\"content\":{}}}", json!(row.hook))))
    };
    let stories: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.story_id.as_str()).collect();
    let both = stories.iter().filter(|story| of(story, &trained) && of(story, &set_aside)).count();
    assert_eq!(both, 0, "no story stands on both sides");

    let job = &service.simulator.jobs()[0];
    let file = service.simulator.file_content(&job.training_file).unwrap();
    let lines = String::from_utf8(file).unwrap();
    assert_eq!(lines, trained);
    let lines: Vec<&str> = lines.lines().collect();
    let best = rows.iter().max_by(|a, b| a.engagement_rate.total_cmp(&b.engagement_rate)).unwrap();
    let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(first["messages"][1]["content"], best.hook);
    service.end().await;
}
