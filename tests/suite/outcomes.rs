//! Recording what was observed: each outcome judged by itself, none counted twice.

use std::io::Write;

use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tuneloop::experiments::outcomes::{Recomputed, drop_older_than, recompute};
use uuid::Uuid;

use crate::harness::service::TestService;

const PATH: &str = "/v1/outcomes";

async fn service() -> TestService {
    let service = TestService::start().await;
    service.pipeline("hook", |_| {}).await;
    service
}

fn outcome(service: &TestService, id: &str) -> Value {
    json!({
        "id": id, "pipeline": "hook", "version": "0.0.0", "unit": "u", "served_at": service.clock.now(),
        "engagement_rate": 0.06, "engagements": 6, "impressions": 100, "cost": 0.002, "quality": 0.9,
        "latency_ms": 350.0, "failed": false,
    })
}

#[tokio::test]
async fn duplicates_are_counted_and_change_nothing() {
    let service = service().await;
    let (a, b) = (outcome(&service, "a"), outcome(&service, "b"));
    let mut changed = a.clone();
    changed["engagement_rate"] = json!(0.5);
    let recorded = service.post(PATH, json!([a, b, changed])).await.expect(200);
    assert_eq!(
        recorded,
        json!({"accepted": 2, "not_analysed": 2, "corrected": 0, "duplicates": 1, "rejected": []})
    );
    let recorded = service.post(PATH, json!([changed, outcome(&service, "c")])).await.expect(200);
    assert_eq!(
        recorded,
        json!({"accepted": 1, "not_analysed": 1, "corrected": 0, "duplicates": 1, "rejected": []})
    );
    let rates = "SELECT array_agg(engagement_rate ORDER BY id) FROM outcomes";
    let rates: Vec<f64> = sqlx::query_scalar(rates).fetch_one(&service.db).await.unwrap();
    assert_eq!(rates, [0.06, 0.06, 0.06]);
    service.end().await;
}

#[tokio::test]
async fn what_is_not_valid_is_told_with_its_index_and_reason_and_the_rest_is_recorded() {
    let service = service().await;
    let with = |id: &str, field: &str, value: Value| {
        let mut outcome = outcome(&service, id);
        outcome[field] = value;
        outcome
    };
    let mut by_model = outcome(&service, "by model");
    by_model["version"] = Value::Null;
    let mut nameless = by_model.clone();
    nameless["id"] = json!("nameless");
    by_model["model_id"] = json!("gpt-4o");
    let batch = json!([
        outcome(&service, "good"),
        with("1", "pipeline", json!("tail")),
        with("2", "version", json!("7.0.0")),
        with("3", "engagement_rate", json!(1.5)),
        with("4", "served_at", json!("2100-01-01T00:00:00Z")),
        with("5", "revision", json!(9)),
        with("6", "impressions", json!(-1)),
        with("7", "unit", json!("")),
        nameless,
        by_model,
        with("10", "served_at", json!("2013-01-01T00:00:00Z")),
        with("11", "served_at", json!(service.clock.now() - TimeDelta::hours(1))),
        with("12", "cost", json!("a lot")),
        json!(13),
        with("14", "model_id", json!("another")),
        json!(["15", "hook", "0.0.0", null, "15", null, service.clock.now()]),
        with("16", "served_at", json!("yesterday")),
        with("17", "served_at", json!("2026-11-26T12:00:00")),
        with("18", "engagements", json!(3.5)),
        with("19", "text", json!("asked and answered")),
    ]);
    let recorded = service.post(PATH, batch).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["duplicates"]), (&json!(2), &json!(0)));
    let rejected = recorded["rejected"].as_array().unwrap();
    let expected = [
        (1, "there is no pipeline \"tail\""),
        (2, "pipeline hook has no version 7.0.0"),
        (3, "engagement_rate must be between 0 and 1"),
        (4, "served_at is in the future"),
        (5, "pipeline hook has no traffic revision 9"),
        (6, "impressions must be 0 or more"),
        (7, "unit must have 1 to 200 bytes"),
        (8, "give the version or the model_id"),
        (10, "served_at is more than 400 days ago"),
        (11, "served_at is before the pipeline had any traffic"),
        (12, "is not an outcome: cost: invalid type: string \"a lot\", expected number"),
        (13, "is not an outcome: it must be a JSON object"),
        (14, "version 0.0.0 is the model \"gpt-4o\": give the one that served"),
        (15, "is not an outcome: it must be a JSON object"),
        (16, "is not an outcome: served_at: must be a time with its offset, such as"),
        (17, "is not an outcome: served_at: must be a time with its offset, such as"),
        (18, "is not an outcome: engagements: invalid type: floating point `3.5`, expected whole number"),
        (19, "is not an outcome: text: invalid type: string \"asked and answered\", expected object"),
    ];
    assert_eq!(rejected.len(), expected.len(), "{rejected:#?}");
    for (rejected, (index, reason)) in rejected.iter().zip(expected) {
        assert_eq!(rejected["index"], index);
        assert!(rejected["reason"].as_str().unwrap().starts_with(reason), "{rejected}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let service = service().await;
    let batch = |count: usize| -> Value { (0..count).map(|n| outcome(&service, &n.to_string())).collect() };
    let problem = service.post(PATH, batch(10_001)).await.problem(422, "invalid-request");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("10001 outcomes"), "{problem}");
    let recorded = service.post(PATH, batch(10_000)).await.expect(200);
    assert_eq!(recorded["accepted"], 10_000);

    let mut long = outcome(&service, "long");
    long["unit"] = json!("u".repeat(17 << 20));
    service.post(PATH, json!([long])).await.problem(413, "body-too-large");
    let problem = service.post(PATH, json!({"id": "a"})).await.problem(422, "invalid-request");
    assert_eq!(problem["errors"][0]["message"], "must be an array of outcomes");
    service.end().await;
}

#[tokio::test]
async fn an_outcome_belongs_to_the_revision_that_was_in_force_when_it_was_served() {
    let service = service().await;
    service.posts(12, 0.08).await;
    let before = outcome(&service, "before the test");
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let during = outcome(&service, "in the test");
    let mut told = outcome(&service, "told");
    told["revision"] = json!(1);
    let recorded = service.post(PATH, json!([before, during, told])).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["not_analysed"]), (&json!(3), &json!(2)));
    let places = "SELECT id, revision, experiment_id IS NOT NULL FROM outcomes ORDER BY id";
    let places: Vec<(String, i64, bool)> = sqlx::query_as(places).fetch_all(&service.db).await.unwrap();
    let expected = [("before the test", 1, false), ("in the test", 2, true), ("told", 1, false)];
    assert_eq!(places, expected.map(|(id, revision, tested)| (id.to_owned(), revision, tested)));
    service.end().await;
}

#[tokio::test]
async fn where_one_arm_has_no_share_nothing_is_evidence() {
    let service = service().await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let traffic = "/v1/pipelines/hook/traffic";
    let etag = service.get(traffic).await.header("etag").to_owned();
    let split = json!({"weights": {"1.0.0": 0, "0.0.0": 10_000}, "reason": "a pause"});
    service.put(traffic, &[("if-match", &etag)], split).await.expect(200);
    let recorded = service.post(PATH, json!([outcome(&service, "in the pause")])).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["not_analysed"]), (&json!(1), &json!(1)));
    let experiment = service.run(&run).await["experiment_id"].as_str().unwrap().to_owned();
    let shown = service.read(&format!("/v1/experiments/{experiment}")).await;
    let paused = &shown["epochs"].as_array().unwrap()[1];
    assert_eq!(
        (&paused["weights"]["candidate"], &paused["outcomes"]["baseline"]),
        (&json!(0), &json!(0)),
        "{shown:#}"
    );
    service.end().await;
}

#[tokio::test]
async fn corrections_count_once_and_only_change_what_was_measured() {
    let service = service().await;
    let replace = format!("{PATH}?repeats=replace");
    let served_at = service.clock.now();
    let rate = |id: &str, rate: f64| {
        let mut outcome = outcome(&service, id);
        outcome["engagement_rate"] = json!(rate);
        outcome["served_at"] = json!(served_at);
        outcome
    };
    let recorded = service.post(&replace, json!([rate("a", 0.01), rate("a", 0.02)])).await.expect(200);
    assert_eq!(
        recorded,
        json!({"accepted": 1, "not_analysed": 1, "corrected": 1, "duplicates": 0, "rejected": []})
    );
    let mut elsewhere = rate("a", 0.5);
    elsewhere["unit"] = json!("another");
    let mut twice = rate("c", 0.2);
    twice["persona"] = json!("another");
    let recorded = service.post(&replace, json!([rate("c", 0.1), twice])).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["rejected"][0]["index"]), (&json!(1), &json!(1)));
    let recorded = service.post(&replace, json!([rate("b", 0.1), elsewhere])).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["corrected"]), (&json!(1), &json!(0)));
    assert_eq!(recorded["rejected"][0]["index"], 1);
    let recorded = service.post(&replace, json!([rate("b", 0.1), rate("a", 0.03)])).await.expect(200);
    assert_eq!(
        recorded,
        json!({"accepted": 0, "not_analysed": 0, "corrected": 1, "duplicates": 1, "rejected": []})
    );
    let rates = "SELECT array_agg(engagement_rate ORDER BY id) FROM outcomes";
    let rates: Vec<f64> = sqlx::query_scalar(rates).fetch_one(&service.db).await.unwrap();
    assert_eq!(rates, [0.03, 0.1, 0.1]);

    // Within a call each is judged by itself, as in calls of their own.
    let other = |change: f64| {
        let mut other = rate("a", change);
        other["persona"] = json!("another");
        other
    };
    let recorded = service.post(&replace, json!([other(0.4), rate("a", 0.04), other(0.5)])).await.expect(200);
    assert_eq!((&recorded["corrected"], &recorded["duplicates"]), (&json!(1), &json!(0)), "{recorded}");
    let rejected: Vec<_> =
        recorded["rejected"].as_array().unwrap().iter().map(|item| &item["index"]).collect();
    assert_eq!(rejected, [0, 2]);

    // What is left out stays, also within a call.
    let mut cost = json!({"cost": 0.5});
    for field in ["id", "pipeline", "version", "unit", "persona", "served_at"] {
        cost[field] = rate("b", 0.0)[field].clone();
    }
    let recorded = service.post(&replace, json!([rate("b", 0.2), cost])).await.expect(200);
    assert_eq!((&recorded["corrected"], &recorded["duplicates"]), (&json!(2), &json!(0)));
    let both: (f64, f64) = sqlx::query_as("SELECT engagement_rate, cost FROM outcomes WHERE id = 'b'")
        .fetch_one(&service.db)
        .await
        .unwrap();
    assert_eq!(both, (0.2, 0.5));
    service.end().await;
}

#[tokio::test]
async fn lines_and_packed_bodies_are_read_like_arrays() {
    let service = service().await;
    let lines = format!("{}\n\n{}\r\n", outcome(&service, "a"), outcome(&service, "b"));
    let ndjson = ("content-type", "application/x-ndjson");
    let recorded = service.send_bytes(PATH, &[ndjson], lines.clone().into()).await.expect(200);
    assert_eq!(recorded["accepted"], 2);

    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(json!([outcome(&service, "c")]).to_string().as_bytes()).unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let packed = packed.finish().unwrap();
    let recorded = service.send_bytes(PATH, &headers, packed.clone()).await.expect(200);
    assert_eq!(recorded["accepted"], 1);
    service.send_bytes(PATH, &headers, packed[..20].to_vec()).await.problem(400, "malformed-request");

    // What unpacks to more than a batch may be is refused before all of it is unpacked.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 64 << 20]).unwrap();
    service.send_bytes(PATH, &headers, bomb.finish().unwrap()).await.problem(413, "body-too-large");
    let headers = [("content-type", "application/json"), ("content-encoding", "br")];
    service.send_bytes(PATH, &headers, b"x".to_vec()).await.problem(415, "unsupported-encoding");
    let broken = format!("{}\n{{\n{}", outcome(&service, "d"), outcome(&service, "e"));
    let recorded = service.send_bytes(PATH, &[ndjson], broken.into()).await.expect(200);
    assert_eq!((&recorded["accepted"], &recorded["rejected"][0]["index"]), (&json!(2), &json!(1)));
    let reason = recorded["rejected"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("is not an outcome: it cannot be read as JSON: EOF while parsing"),
        "{reason}"
    );
    service.end().await;
}

/// Random batches from several clients at once, with repeats, corrections and units whose first outcome comes late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sums_are_at_any_time_those_of_the_recorded_outcomes() {
    let service = service().await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let experiment: Uuid = run["experiment_id"].as_str().unwrap().parse().unwrap();
    let now = service.clock.now();
    let client = async |seed: u64| {
        let mut chance = StdRng::seed_from_u64(seed);
        for _ in 0..12 {
            let batch: Vec<Value> = (0..150)
                .map(|_| {
                    let number: u32 = chance.random_range(0..1_000);
                    // What never changes about an outcome follows from its number.
                    let unit = number % 400;
                    let persona = if unit.is_multiple_of(3) { Value::Null } else { json!(format!("p{}", unit % 7)) };
                    let engagements = chance.random_bool(0.8).then(|| chance.random_range(0..90));
                    let mut value = |most: f64| chance.random_bool(0.8).then(|| chance.random_range(0.0..most));
                    json!({
                        "id": number.to_string(), "pipeline": "hook", "unit": unit.to_string(), "persona": persona,
                        "version": if unit.is_multiple_of(10) { "1.0.0" } else { "0.0.0" }, "revision": 2,
                        "served_at": now + TimeDelta::microseconds(i64::from(number * 7_919 % 1_000)),
                        "engagement_rate": value(1.0), "cost": value(0.01), "quality": value(1.0),
                        "latency_ms": value(900.0), "engagements": engagements,
                        "failed": value(1.0).map(|chance| chance < 0.1),
                    })
                })
                .collect();
            let repeats = if chance.random_bool(0.7) { "replace" } else { "keep" };
            let recorded =
                service.post(&format!("{PATH}?repeats={repeats}"), Value::Array(batch)).await.expect(200);
            assert_eq!(recorded["rejected"], json!([]));
        }
    };
    tokio::join!(client(1), client(2), client(3), client(4));
    let counts =
        "SELECT (SELECT count(*) FROM outcomes), (SELECT sum(outcomes)::bigint FROM experiment_sums),
                         (SELECT count(corrected_at) FROM outcomes), (SELECT count(*) FROM outcome_keys)";
    let (raw, summed, corrected, keys): (i64, i64, i64, i64) =
        sqlx::query_as(counts).fetch_one(&service.db).await.unwrap();
    assert!(raw > 900 && corrected > 500, "{raw} {corrected}");
    assert_eq!((raw, raw), (summed, keys));
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);

    let spoil = "UPDATE experiment_sums SET engagement_s = engagement_s + 1e-30";
    sqlx::query(spoil).execute(&service.db).await.unwrap();
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Changed);
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    service.end().await;
}

#[tokio::test]
async fn months_that_are_too_old_are_dropped_and_their_experiments_left_alone() {
    let service = service().await;
    let mut old = outcome(&service, "old");
    old["served_at"] = json!(service.clock.now() - TimeDelta::days(100));
    // A pipeline that has been there for long.
    let age = "ALTER TABLE traffic_revisions DISABLE TRIGGER USER;
               UPDATE traffic_revisions SET created_at = created_at - interval '1 year';
               ALTER TABLE traffic_revisions ENABLE TRIGGER USER";
    sqlx::raw_sql(age).execute(&service.db).await.unwrap();
    let recorded = service.post(PATH, json!([outcome(&service, "new"), old])).await.expect(200);
    assert_eq!(recorded["accepted"], 2);
    assert_eq!(drop_older_than(&service.db, TimeDelta::days(200)).await.unwrap(), 0);
    assert_eq!(drop_older_than(&service.db, TimeDelta::days(40)).await.unwrap(), 1);
    for ids in ["SELECT id FROM outcomes", "SELECT id FROM outcome_keys"] {
        let ids: Vec<String> = sqlx::query_scalar(ids).fetch_all(&service.db).await.unwrap();
        assert_eq!(ids, ["new"]);
    }
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let experiment: Uuid = run["experiment_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::Unchanged);
    let begin = "UPDATE experiments SET started_at = now() - interval '50 days'";
    sqlx::query(begin).execute(&service.db).await.unwrap();
    sqlx::query("UPDATE outcomes_kept_from SET at = now() - interval '49 days'")
        .execute(&service.db)
        .await
        .unwrap();
    assert_eq!(recompute(&service.db, experiment).await.unwrap(), Recomputed::TooOld);
    service.end().await;
}

#[tokio::test]
async fn while_an_experiment_is_looked_at_no_batch_is_cut_in_two() {
    let service = service().await;
    service.posts(12, 0.08).await;
    let run = service.trigger("hook").await;
    service.wait_for_test(&run).await;
    let mut batch = outcome(&service, "a");
    batch["revision"] = json!(2);

    let mut look = service.db.begin().await.unwrap();
    tuneloop::experiments::hold_still(&mut look).await.unwrap();
    let mut recording = Box::pin(service.post(PATH, json!([batch])));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(500), &mut recording).await;
    assert!(waited.is_err(), "it was recorded in the middle of a look");
    look.commit().await.unwrap();
    assert_eq!(recording.await.expect(200)["accepted"], 1);
    service.end().await;
}
