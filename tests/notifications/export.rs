//! The exported trail: what is in it, and that other languages can verify it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use tuneloop::audit::{CanonicalEvent, Hash};
use tuneloop::clock::Clock;

use crate::chain::{record, seal_all, verify};
use crate::harness::database::fresh_database;
use crate::world::{World, promote};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_export_is_the_chain_and_is_filtered() {
    let world = World::start().await;
    let since = Clock::system().now();
    for revision in 1..=3 {
        promote(&world.db, "hook", revision).await;
    }
    promote(&world.db, "body", 1).await;
    seal_all(&world.db).await;
    let all = lines(&world.text("/v1/audit/export", &[]).await);
    let head = world.read("/v1/audit/head").await;
    assert_eq!(i64::try_from(all.len()).unwrap(), head["seq"].as_i64().unwrap());
    let mut hash = Hash::START;
    for (place, line) in (1..).zip(&all) {
        assert_eq!((&line["seq"], &line["previous"]), (&Value::from(place), &Value::from(hash.to_string())));
        let event: CanonicalEvent = serde_json::from_value(line["event"].clone()).unwrap();
        hash = hash.then(&event);
        assert_eq!(line["hash"], hash.to_string());
    }
    assert_eq!(head["hash"], hash.to_string());
    let time = since.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    for (filter, count) in [
        ("action=traffic.promotion".to_owned(), 4),
        ("action=traffic.promotion&pipeline=hook".to_owned(), 3),
        ("subject_kind=pipeline&subject_id=body".to_owned(), 1),
        (format!("actor=worker&since={time}"), 4),
        (format!("actor=worker&until={time}"), 0),
        ("action=api_key.create&actor=system".to_owned(), 1),
        (format!("from_seq={}", all.len()), 1),
    ] {
        assert_eq!(
            lines(&world.text(&format!("/v1/audit/export?{filter}"), &[]).await).len(),
            count,
            "{filter}"
        );
    }
    let listed = world.read(&format!("/v1/audit?action=traffic.promotion&since={time}")).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    let listed = world.read(&format!("/v1/audit?action=traffic.promotion&until={time}")).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 0);
    let refused = world.get("/v1/audit/export?since=yesterday").await;
    assert_eq!(refused.status, 422);
    world.end().await;
}

/// As `docs/audit.md` has it.
const PYTHON: &str = r#"
import hashlib, json, sys
previous, seq = "00" * 32, 0
for line in sys.stdin:
    line = json.loads(line)
    event = json.dumps(line["event"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(bytes.fromhex(previous) + event.encode()).hexdigest()
    seq += 1
    assert line["seq"] == seq and line["previous"] == previous and line["hash"] == digest, f"place {seq} is altered"
    previous = digest
print(f"{seq}:{previous}")
"#;

#[tokio::test]
async fn the_command_exports_what_python_verifies() {
    let database = fresh_database().await;
    // More than is read at once.
    for subject in 0..1_203 {
        record(&database.pool, subject).await;
    }
    assert_eq!(seal_all(&database.pool).await, 1_203);
    let head = verify(&database.pool).await.unwrap().head.to_string();
    let exported = Command::new(env!("CARGO_BIN_EXE_tuneloop"))
        .args(["audit", "export"])
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let documented = include_str!("../../docs/audit.md");
    assert!(documented.contains(PYTHON.trim()), "docs/audit.md has another program");
    let python =
        Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.expect("the test needs python3");
    python.stdin.take().unwrap().write_all(&exported.stdout).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), head);
}
