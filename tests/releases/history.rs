//! What is left of a sequence, compared with the model.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgPool;
use tuneloop::audit;

use crate::client::{Action, Outcome, Sent};
use crate::model::{Shares, State, Told};
use crate::world::{CANDIDATES, World};

/// Looks again and again, at one moment each time: one version is live, and it is that of the newest revision.
pub(crate) async fn one_live_version_at_any_time(pool: PgPool) {
    let amiss = "SELECT count(*) FROM (
                     SELECT (SELECT count(*) FROM model_versions WHERE pipeline = 'hook' AND status = 'live') AS live,
                            (SELECT v.status FROM traffic_revisions r JOIN model_versions v ON v.id = r.live_version_id
                              WHERE r.pipeline = 'hook' ORDER BY r.revision DESC LIMIT 1) AS newest,
                            (SELECT max(revision) FROM traffic_revisions WHERE pipeline = 'hook') AS last,
                            (SELECT traffic_revision FROM pipelines WHERE name = 'hook') AS counted,
                            (SELECT sum(weight) FROM traffic_weights w JOIN pipelines p
                                 ON p.name = w.pipeline AND p.traffic_revision = w.revision
                              WHERE p.name = 'hook') AS whole) seen
                  WHERE live <> 1 OR newest <> 'live' OR last <> counted OR whole <> 10000";
    loop {
        let found: i64 = sqlx::query_scalar(amiss).fetch_one(&pool).await.unwrap();
        assert_eq!(found, 0, "the live version and the traffic disagree");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    revision: i64,
    kind: String,
    reason: String,
    actor: String,
    live: String,
    kill_switch: bool,
    forced: bool,
    /// The version that the decision is about.
    decided: Option<String>,
    created_at: DateTime<Utc>,
}

async fn rows(pool: &PgPool) -> Vec<Row> {
    sqlx::query_as(
        "SELECT r.revision, r.kind, r.reason, r.actor, concat_ws('.', v.major, v.minor, v.patch) AS live, r.kill_switch,
                r.forced, (SELECT concat_ws('.', c.major, c.minor, c.patch) FROM decisions d
                             JOIN experiments e ON e.id = d.experiment_id JOIN model_versions c ON c.id = e.candidate_id
                            WHERE d.id = r.decision_id) AS decided, r.created_at
           FROM traffic_revisions r JOIN model_versions v ON v.id = r.live_version_id
          WHERE r.pipeline = 'hook' ORDER BY r.revision",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The shares of every revision, in their order.
async fn shares(pool: &PgPool, table: &str) -> BTreeMap<i64, Shares> {
    let query = format!(
        "SELECT w.revision, concat_ws('.', v.major, v.minor, v.patch), w.weight FROM {table} w
           JOIN model_versions v ON v.id = w.model_version_id WHERE w.pipeline = 'hook' ORDER BY w.revision, w.position"
    );
    let rows: Vec<(i64, String, i32)> =
        sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(pool).await.unwrap();
    let mut shares = BTreeMap::<i64, Shares>::new();
    for (revision, version, weight) in rows {
        shares.entry(revision).or_default().push((version, weight));
    }
    shares
}

/// The history is gapless and replays, change by change, to what is in force; each request is in it as often as its client
/// was told; `at` tells each revision at its time; each has its event in the audit trail.
pub(crate) async fn agrees_with_the_model(world: &World, sent: &[Sent]) {
    let pool = &world.database.pool;
    let (rows, serving, withheld) =
        (rows(pool).await, shares(pool, "traffic_weights").await, shares(pool, "traffic_withheld").await);
    let numbers: Vec<i64> = rows.iter().map(|row| row.revision).collect();
    assert_eq!(numbers, (1..=i64::try_from(rows.len()).unwrap()).collect::<Vec<_>>(), "without gaps");
    assert!(rows.is_sorted_by_key(|row| row.created_at), "in the order of time");

    let requests: HashMap<&str, &Sent> = sent.iter().map(|sent| (&*sent.reason, sent)).collect();
    let mut state = State::first();
    for row in &rows {
        let expected = if row.revision == 1 {
            Told { kind: "created", forced: false, decided: false }
        } else {
            let request = requests[&*row.reason];
            assert_eq!(row.actor, request.actor, "{row:?}");
            state.apply(&request.action).unwrap_or_else(|why| panic!("{why}: {row:?} {request:?}"))
        };
        let told = (&*row.kind, row.forced, row.decided.as_deref());
        let decided = expected.decided.then_some(&*state.live);
        assert_eq!(told, (expected.kind, expected.forced, decided), "{row:?}");
        assert_eq!((&row.live, row.kill_switch), (&state.live, state.kill_switch), "{row:?}");
        assert_eq!(serving[&row.revision], state.serving(), "{row:?}");
        assert_eq!(withheld.get(&row.revision).cloned().unwrap_or_default(), state.withheld(), "{row:?}");
        assert_eq!(serving[&row.revision].iter().map(|(_, weight)| weight).sum::<i32>(), 10_000);
    }
    each_request_counts_once(&rows, sent);
    statuses_are(pool, &state).await;
    each_has_its_event(pool, &rows).await;
    each_status_is_told(pool).await;
    the_api_agrees(world, &rows, &serving).await;
    the_audit_chain_holds(pool).await;
}

fn each_request_counts_once(rows: &[Row], sent: &[Sent]) {
    let mut times = HashMap::<&str, Vec<&Row>>::new();
    for row in rows {
        times.entry(&row.reason).or_default().push(row);
    }
    for request in sent {
        let found = times.get(&*request.reason).map_or(&[][..], Vec::as_slice);
        match &request.outcome {
            Outcome::Refused(_) => assert!(found.is_empty(), "was refused and is there: {request:?}"),
            Outcome::Unknown => assert!(found.len() <= 1, "is there more than once: {request:?}"),
            Outcome::Done(traffic) if traffic["reason"] == *request.reason => {
                assert_eq!(found.len(), 1, "{request:?}");
                let told = (traffic["revision"].as_i64(), traffic["live"].as_str());
                assert_eq!(told, (Some(found[0].revision), Some(&*found[0].live)), "{request:?}");
            }
            Outcome::Done(traffic) => {
                // Nothing was to be done, and the traffic in force was told.
                let Action::Switch { enabled } = request.action else {
                    panic!("told something else: {request:?}")
                };
                assert_eq!(traffic["kill_switch"], enabled, "{request:?}");
                assert!(found.is_empty(), "{request:?}");
            }
        }
    }
}

async fn statuses_are(pool: &PgPool, state: &State) {
    let statuses: Vec<(String, String)> = sqlx::query_as(
        "SELECT concat_ws('.', major, minor, patch), status FROM model_versions WHERE pipeline = 'hook'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let statuses: BTreeMap<_, _> =
        statuses.iter().map(|(version, status)| (version.clone(), &**status)).collect();
    assert_eq!(statuses, state.statuses);
}

async fn each_has_its_event(pool: &PgPool, rows: &[Row]) {
    type Event = (Option<i64>, String, Option<String>, String, Option<String>);
    let events: Vec<Event> = sqlx::query_as(
        "SELECT (after ->> 'revision')::bigint, action, reason, actor, after ->> 'live' FROM audit_events
          WHERE subject_kind = 'pipeline' AND subject_id = 'hook' AND action LIKE 'traffic.%'
          ORDER BY (after ->> 'revision')::bigint",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let expected = |row: &Row| {
        (
            Some(row.revision),
            format!("traffic.{}", row.kind),
            Some(row.reason.clone()),
            row.actor.clone(),
            Some(row.live.clone()),
        )
    };
    assert_eq!(events, rows.iter().map(expected).collect::<Vec<_>>());
}

/// The trail tells of every change of a version's status, in order, by who was told to make it.
async fn each_status_is_told(pool: &PgPool) {
    let changes: Vec<(String, Option<String>, String)> = sqlx::query_as(
        "SELECT subject_id, before ->> 'status', after ->> 'status' FROM audit_events
          WHERE action IN ('model.register', 'model.status') AND pipeline = 'hook' ORDER BY id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let seeded = CANDIDATES.iter().map(|known| (format!("hook@{}", known.version), known.status.to_owned()));
    let mut told: BTreeMap<String, String> = seeded.collect();
    for (version, before, after) in changes {
        let former = told.insert(version.clone(), after);
        assert_eq!(former, before, "{version}");
    }
    let stored: Vec<(String, String)> = sqlx::query_as(
        "SELECT concat('hook@', major, '.', minor, '.', patch), status FROM model_versions WHERE pipeline = 'hook'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(told, stored.into_iter().collect());
}

/// Every event of the trail is in its chain, whoever was killed while sealing it.
async fn the_audit_chain_holds(pool: &PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    while !audit::seal(&mut conn, 1_000).await.unwrap().is_empty() {}
    let verified = audit::verify(&mut conn, 1, None).await.unwrap();
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_events").fetch_one(&mut *conn).await.unwrap();
    assert_eq!((verified.events, verified.unsealed), (events, 0), "{verified:?}");
}

async fn the_api_agrees(world: &World, rows: &[Row], serving: &BTreeMap<i64, Shares>) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let key = world.key("reader").await;
    let url = world.urls()[0].read().unwrap().clone();
    let read = async |path: String| {
        let answer = http
            .get(format!("{url}/v1/pipelines/hook/traffic{path}"))
            .bearer_auth(&key)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let agrees = |told: &Value, row: &Row| {
        assert_eq!(
            (told["revision"].as_i64(), told["live"].as_str()),
            (Some(row.revision), Some(&*row.live))
        );
        let weights = told["weights"].as_array().unwrap().iter();
        let weight = |share: &Value| i32::try_from(share["weight"].as_i64().unwrap()).unwrap();
        let weights = weights.map(|share| (share["version"].as_str().unwrap().to_owned(), weight(share)));
        assert_eq!(weights.collect::<Shares>(), serving[&row.revision]);
    };
    let at =
        |time: DateTime<Utc>| format!("/history?at={}", time.to_rfc3339_opts(SecondsFormat::Micros, true));
    for (index, row) in rows.iter().enumerate() {
        let (status, found) = read(at(row.created_at)).await;
        assert_eq!(status, 200, "{found}");
        agrees(&found["items"][0], row);
        let (status, before) = read(at(row.created_at - TimeDelta::microseconds(1))).await;
        match index.checked_sub(1).map(|former| &rows[former]) {
            Some(former) => agrees(&before["items"][0], former),
            None => assert_eq!(status, 404, "{before}"),
        }
    }
    let (_, in_force) = read(String::new()).await;
    agrees(&in_force, rows.last().unwrap());
}
