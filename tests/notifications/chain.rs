//! Sealing: every committed event once, in the order of its number, without anybody waiting.

use std::time::Duration;

use sqlx::PgPool;
use tuneloop::audit::{self, Actor, AuditEvent, Fault, Head, Verified, VerifyError};

use crate::harness::database::fresh_database;

pub(crate) async fn record(db: &PgPool, subject: i64) {
    let event = AuditEvent {
        pipeline: Some("hook"),
        before: Some(serde_json::json!({"weight": 0.50, "name": "zoë", "b": [1, 2.0, 1e-7]})),
        reason: Some("because \"it\" \\ was\n\u{1}"),
        ..AuditEvent::new(Actor::Worker, "run.step", ("run", subject))
    };
    audit::record(&mut db.acquire().await.unwrap(), event).await.unwrap();
}

pub(crate) async fn seal_all(db: &PgPool) -> usize {
    let mut conn = db.acquire().await.unwrap();
    let mut sealed = 0;
    loop {
        match audit::seal(&mut conn, 50).await.unwrap().len() {
            0 => return sealed,
            some => sealed += some,
        }
    }
}

pub(crate) async fn verify(db: &PgPool) -> Result<Verified, VerifyError> {
    audit::verify(&mut db.acquire().await.unwrap(), 1, None).await
}

async fn number(db: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_writers_at_once_and_two_sealers_make_one_chain() {
    let database = fresh_database().await;
    let db = &database.pool;
    let writers = (0..50).map(|writer| {
        let db = db.clone();
        tokio::spawn(async move {
            for event in 0..20 {
                record(&db, writer * 100 + event).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let sealers = (0..2).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            while number(&db, "SELECT count(*) FROM audit_seals").await < 1000 {
                seal_all(&db).await;
            }
        })
    });
    let sealers: Vec<_> = sealers.collect();
    for task in writers.into_iter().chain(sealers) {
        tokio::time::timeout(Duration::from_mins(1), task).await.expect("ends").unwrap();
    }
    let verified = verify(db).await.unwrap();
    assert_eq!((verified.events, verified.unsealed, verified.head.seq), (1000, 0, 1000));
    assert_eq!(audit::head(db).await.unwrap(), verified.head);
    let late = "SELECT count(*) FROM (SELECT event_id < lag(event_id) OVER (ORDER BY seq) AS late FROM audit_seals) s
                 WHERE late";
    println!("{} events were committed late and sealed after higher numbers", number(db, late).await);
}

#[tokio::test]
async fn a_writer_that_has_not_committed_holds_nobody_up_and_is_sealed_later() {
    let database = fresh_database().await;
    let db = &database.pool;
    let mut slow = db.begin().await.unwrap();
    let event = AuditEvent::new(Actor::Worker, "run.step", ("run", "slow"));
    audit::record(&mut slow, event).await.unwrap();
    record(db, 2).await;
    assert_eq!(seal_all(db).await, 1);
    slow.commit().await.unwrap();
    assert_eq!(seal_all(db).await, 1);
    let order: Vec<i64> =
        sqlx::query_scalar("SELECT event_id FROM audit_seals ORDER BY seq").fetch_all(db).await.unwrap();
    assert_eq!(order, [2, 1]);
    assert_eq!(verify(db).await.unwrap().events, 2);
}

#[tokio::test]
async fn writers_go_on_while_a_sealer_stands_still() {
    let database = fresh_database().await;
    let db = &database.pool;
    record(db, 1).await;
    let mut sealing = db.begin().await.unwrap();
    assert_eq!(audit::seal(&mut sealing, 10).await.unwrap().len(), 1);
    // A statement that had to wait for the sealer would run into this.
    let mut writer = db.acquire().await.unwrap();
    sqlx::query("SET lock_timeout = '200ms'").execute(&mut *writer).await.unwrap();
    audit::record(&mut writer, AuditEvent::new(Actor::Worker, "run.step", ("run", 2))).await.unwrap();
    sealing.commit().await.unwrap();
    assert_eq!(seal_all(db).await, 1);
    assert_eq!(verify(db).await.unwrap().events, 2);
}

#[tokio::test]
async fn what_was_rolled_back_is_not_sealed_and_leaves_no_gap() {
    let database = fresh_database().await;
    let db = &database.pool;
    let mut tx = db.begin().await.unwrap();
    audit::record(&mut tx, AuditEvent::new(Actor::Worker, "run.step", ("run", 1))).await.unwrap();
    tx.rollback().await.unwrap();
    record(db, 2).await;
    assert_eq!(seal_all(db).await, 1);
    assert_eq!(audit::head(db).await.unwrap().seq, 1);
    // A sealer that dies before its commit has sealed nothing.
    record(db, 3).await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(audit::seal(&mut tx, 10).await.unwrap().len(), 1);
    tx.rollback().await.unwrap();
    assert_eq!((seal_all(db).await, verify(db).await.unwrap().events), (1, 2));
}

#[tokio::test]
async fn an_empty_trail_is_sound_and_one_that_waits_says_so() {
    let database = fresh_database().await;
    let db = &database.pool;
    let verified = verify(db).await.unwrap();
    assert_eq!((verified.events, verified.head), (0, Head { seq: 0, hash: audit::Hash::START }));
    record(db, 1).await;
    assert_eq!(verify(db).await.unwrap().unsealed, 1);
    sqlx::raw_sql("SET session_replication_role = replica; UPDATE audit_events SET at = at - interval '2 minutes'; RESET session_replication_role")
        .execute(&mut *db.acquire().await.unwrap())
        .await
        .unwrap();
    assert!(matches!(verify(db).await, Err(VerifyError::Fault(Fault::Waiting { event: 1 }))));
}

#[tokio::test]
async fn seals_are_never_changed() {
    let database = fresh_database().await;
    let db = &database.pool;
    record(db, 1).await;
    seal_all(db).await;
    for change in [
        "UPDATE audit_seals SET hash = decode(repeat('00', 32), 'hex')",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
    ] {
        let error = sqlx::query(change).execute(db).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{change}: {error}");
    }
}
