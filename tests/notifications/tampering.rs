//! Somebody with all rights on the database alters the trail. The program finds it, and says where.

use std::process::{Command, Output};

use sqlx::AssertSqlSafe;
use tuneloop::audit::{self, Head};

use crate::chain::{record, seal_all};
use crate::harness::database::{TestDatabase, fresh_database};

/// `tuneloop audit verify`, as an operator calls it.
fn verify(database: &TestDatabase, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tuneloop"))
        .args(["audit", "verify"])
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap().trim_end().to_owned()
}

/// A database whose trail has ten sealed events, and the end of its chain.
async fn sealed() -> (TestDatabase, Head) {
    let database = fresh_database().await;
    for subject in 1..=10 {
        record(&database.pool, subject).await;
    }
    assert_eq!(seal_all(&database.pool).await, 10);
    let head = audit::head(&database.pool).await.unwrap();
    (database, head)
}

/// As a superuser, past every trigger and reference.
async fn tamper(database: &TestDatabase, statements: &str) {
    let mut conn = database.pool.acquire().await.unwrap();
    let script =
        format!("SET session_replication_role = replica; {statements}; RESET session_replication_role");
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *conn).await.unwrap();
}

#[tokio::test]
async fn a_sound_trail_is_told_with_its_end() {
    let (database, head) = sealed().await;
    let output = verify(&database, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap(), format!("{head}\n"));
    assert!(said(&output).starts_with("10 sealed events are as they were sealed; 0 younger"), "{output:?}");
    let output = verify(&database, &["--from-seq", "8", "--expect", &head.to_string()]);
    assert!(output.status.success() && said(&output).starts_with("3 sealed events"), "{output:?}");
    // A note of an earlier time holds as well, also one from before the place where it begins.
    record(&database.pool, 11).await;
    seal_all(&database.pool).await;
    for from in ["1", "11"] {
        assert!(verify(&database, &["--from-seq", from, "--expect", &head.to_string()]).status.success());
    }
}

#[tokio::test]
async fn whatever_is_altered_is_found_and_named() {
    let altered = |event: i64, seq: i64| {
        format!(
            "event {event} (place {seq}) is not as it was sealed: it, its seal or their order was altered"
        )
    };
    for (statements, sentence) in [
        ("UPDATE audit_events SET reason = 'another' WHERE id = 4", altered(4, 4)),
        ("UPDATE audit_events SET after = '{}' WHERE id = 4", altered(4, 4)),
        (
            "UPDATE audit_events SET before = jsonb_set(before, '{weight}', '0.50') WHERE id = 4",
            altered(4, 4),
        ),
        ("UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = 4", altered(4, 4)),
        ("UPDATE audit_seals SET hash = sha256('x') WHERE seq = 4", altered(4, 4)),
        (
            "DELETE FROM audit_events WHERE id = 4",
            "event 4 (place 4) is missing: it was taken away after it was sealed".to_owned(),
        ),
        (
            "DELETE FROM audit_seals WHERE seq = 4",
            "the seal of place 4 is missing: it was taken away by somebody with access to the database"
                .to_owned(),
        ),
        // Taken away with its seal, and the gap closed: those after it no longer follow.
        (
            "DELETE FROM audit_events WHERE id = 4; DELETE FROM audit_seals WHERE seq = 4;
             UPDATE audit_seals SET seq = seq - 1 WHERE seq > 4",
            altered(5, 4),
        ),
        // Two that changed places.
        (
            "UPDATE audit_seals SET event_id = -event_id WHERE seq IN (4, 5);
             UPDATE audit_seals SET event_id = CASE seq WHEN 4 THEN 5 ELSE 4 END WHERE seq IN (4, 5)",
            altered(5, 4),
        ),
        // What two events say, changed about.
        (
            "UPDATE audit_events e SET subject_id = o.subject_id FROM audit_events o
              WHERE (e.id, o.id) IN ((4, 5), (5, 4))",
            altered(4, 4),
        ),
        (
            "INSERT INTO audit_events (actor, action, subject_kind, subject_id) VALUES ('worker', 'run.step', 'run', '4')",
            "event 11 has no seal and does not wait for one: it was put in, or its seal taken away, by hand"
                .to_owned(),
        ),
        (
            "DELETE FROM audit_seals WHERE seq > 8",
            "event 9 has no seal and does not wait for one: it was put in, or its seal taken away, by hand"
                .to_owned(),
        ),
        (
            "INSERT INTO audit_unsealed VALUES (99)",
            "event 99 is missing: it was taken away before it was sealed".to_owned(),
        ),
    ] {
        let (database, _) = sealed().await;
        tamper(&database, statements).await;
        let output = verify(&database, &[]);
        assert_eq!(output.status.code(), Some(1), "{statements}: {output:?}");
        assert_eq!(said(&output), sentence, "{statements}");
        assert!(output.stdout.is_empty(), "{statements}: {output:?}");
    }
}

#[tokio::test]
async fn an_end_that_was_cut_off_shows_against_a_note() {
    let (database, head) = sealed().await;
    tamper(&database, "DELETE FROM audit_events WHERE id > 7; DELETE FROM audit_seals WHERE seq > 7").await;
    let output = verify(&database, &[]);
    assert!(output.status.success(), "nothing shows without a note: {output:?}");
    let output = verify(&database, &["--expect", &head.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let sentence =
        "the chain ends at place 7, before place 10 that was noted: what came after was taken away";
    assert_eq!(said(&output), sentence);
    // Something else is written in its place, and sealed.
    for subject in 20..=25 {
        record(&database.pool, subject).await;
    }
    seal_all(&database.pool).await;
    assert!(verify(&database, &[]).status.success());
    let output = verify(&database, &["--expect", &head.to_string()]);
    assert!(said(&output).starts_with("place 10 has the hash"), "{output:?}");
}

#[tokio::test]
async fn a_note_of_another_form_is_a_bad_setting() {
    let (database, _) = sealed().await;
    let output = verify(&database, &["--expect", "ten"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).starts_with("--expect is \"ten\": it takes a place and its hash"), "{output:?}");
}
