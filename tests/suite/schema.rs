//! Migrations and the check of the schema, on a real Postgres.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use sqlx::{Executor, PgPool};
use tuneloop::database::{self, MIGRATOR, MigrateError, SchemaError};
use tuneloop::telemetry::Metrics;

use crate::harness::database::{TestDatabase, cluster, fresh_database};

/// A database for one test.
struct Database {
    url: String,
    /// Keeps a migrated database of the harness; an empty one stays until the cluster goes.
    _fresh: Option<TestDatabase>,
}

impl Database {
    /// One without tables.
    async fn empty(name: &str) -> Self {
        let cluster = cluster().await;
        cluster.create_database(name).await.unwrap();
        Self { url: cluster.url(name), _fresh: None }
    }

    async fn pool(&self) -> PgPool {
        database::connect(&self.url, 4).await.unwrap()
    }

    async fn migrated() -> (Self, PgPool) {
        let fresh = fresh_database().await;
        let database = Self { url: fresh.url.clone(), _fresh: Some(fresh) };
        let pool = database.pool().await;
        (database, pool)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
        command.args(arguments).env_clear();
        command.env("DATABASE_URL", &self.url).env("OPENAI_API_KEY", "sk-1");
        command
    }

    async fn run(&self, arguments: &'static [&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn migrating_applies_each_migration_once() {
    let database = Database::empty("once").await;
    let pool = database.pool().await;
    assert!(matches!(database::check_schema(&pool).await, Err(SchemaError::Older { found: 0, .. })));
    let applied: Vec<_> = database::migrate(&pool).await.unwrap().into_iter().map(|m| m.version).collect();
    assert_eq!(applied, MIGRATOR.iter().map(|m| m.version).collect::<Vec<_>>());
    database::check_schema(&pool).await.unwrap();
    assert!(database::migrate(&pool).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_migrations_at_once_both_succeed_and_share_the_work() {
    let database = Database::empty("together").await;
    let outputs = tokio::join!(database.run(&["migrate"]), database.run(&["migrate"]));
    let outputs = [outputs.0, outputs.1];
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let said = outputs.map(|output| text(&output.stdout));
    for migration in MIGRATOR.iter() {
        let line = format!("Applied migration {} ({}).", migration.version, migration.description);
        assert_eq!(said.iter().filter(|text| text.contains(&line)).count(), 1, "{line}: {said:?}");
    }
    assert_eq!(said.iter().filter(|text| text.contains("nothing to do")).count(), 1, "{said:?}");
}

#[tokio::test]
async fn an_older_database_is_refused_until_it_is_migrated() {
    let database = Database::empty("older").await;
    let pool = database.pool().await;
    MIGRATOR.run_to(3, &pool).await.unwrap();
    let newest = MIGRATOR.iter().map(|m| m.version).max().unwrap();
    let sentence =
        format!("The database is at migration 3 but this build needs {newest}: run `tuneloop migrate`.");
    assert_eq!(database::check_schema(&pool).await.unwrap_err().to_string(), sentence);
    let keys = ["keys", "create", "--role", "admin", "--name", "me"];
    for command in [&["serve"][..], &keys] {
        let output = database.command(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).ends_with(&format!("{sentence}\n")), "{output:?}");
    }
    assert!(database.run(&["migrate"]).await.status.success());
    database::check_schema(&pool).await.unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused_by_start_and_by_migrate() {
    let (database, pool) = Database::migrated().await;
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let refused = database::check_schema(&pool).await.unwrap_err();
    assert!(refused.to_string().starts_with("The database is at migration 9999 but"), "{refused}");
    assert!(refused.to_string().ends_with(": deploy a newer tuneloop."), "{refused}");
    let refused = database::migrate(&pool).await;
    assert!(
        matches!(refused, Err(MigrateError::Schema(SchemaError::Newer { found: 9999, .. }))),
        "{refused:?}"
    );
    let output = database.run(&["migrate"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).ends_with(": deploy a newer tuneloop.\n"), "{output:?}");
}

#[tokio::test]
async fn a_migration_with_other_contents_is_refused() {
    let (_database, pool) = Database::migrated().await;
    let alter = "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2";
    sqlx::raw_sql(alter).execute(&pool).await.unwrap();
    let refused = database::check_schema(&pool).await;
    assert!(matches!(refused, Err(SchemaError::Altered { version: 2 })), "{refused:?}");
    let refused = database::migrate(&pool).await;
    assert!(matches!(refused, Err(MigrateError::Schema(SchemaError::Altered { version: 2 }))), "{refused:?}");
}

#[tokio::test]
async fn a_failed_migration_leaves_no_lock_behind() {
    let database = Database::empty("failing").await;
    let pool = database.pool().await;
    // Stands where the first migration wants to create its table.
    pool.execute("CREATE TABLE jobs (id integer)").await.unwrap();
    let failed = database::migrate(&pool).await;
    assert!(matches!(failed, Err(MigrateError::Failed(_))), "{failed:?}");
    let locks: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                                           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(locks, 0);
    pool.execute("DROP TABLE jobs").await.unwrap();
    database::migrate(&pool).await.unwrap();
}

#[tokio::test]
async fn connections_name_the_service_and_limit_statements() {
    let database = Database::empty("session").await;
    let pool = database.pool().await;
    let row: (String, String, String) = sqlx::query_as(
        "SELECT current_setting('application_name'), current_setting('statement_timeout'),
                current_setting('lock_timeout')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(row, ("tuneloop".to_owned(), "1min".to_owned(), "10s".to_owned()));
}

#[tokio::test]
async fn a_key_is_printed_alone_and_stored_hashed() {
    let (database, pool) = Database::migrated().await;
    let output = database.run(&["keys", "create", "--role", "operator", "--name", "ci"]).await;
    assert!(output.status.success(), "{output:?}");
    let key = text(&output.stdout);
    let key = key.strip_suffix('\n').unwrap();
    let digits = key.strip_prefix("tl_").unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    assert!(!text(&output.stderr).contains(digits));
    let row: (String, String) =
        sqlx::query_as("SELECT name, role FROM api_keys WHERE hash = sha256(convert_to($1, 'UTF8'))")
            .bind(key)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(row, ("ci".to_owned(), "operator".to_owned()));
}

#[tokio::test]
async fn metrics_count_what_the_database_holds() {
    let (_database, pool) = Database::migrated().await;
    sqlx::raw_sql(
        "INSERT INTO jobs (kind, subject, run_at) VALUES
             ('run', 'due', now() - interval '90 seconds'), ('run', 'due later', now() + interval '1 hour'),
             ('prune', 'all', now() + interval '1 hour');
         INSERT INTO jobs (kind, subject, state, finished_at) VALUES ('run', 'old', 'done', now());
         BEGIN;
         INSERT INTO pipelines (name, config_version) VALUES ('hook', 1);
         INSERT INTO pipeline_configs (pipeline, version, config, actor) VALUES ('hook', 1, '{}', 'system');
         COMMIT;
         INSERT INTO runs (id, pipeline, config_version, trigger, status, place)
         VALUES (gen_random_uuid(), 'hook', 1, 'api', 'running', 'building')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let metrics = Metrics::new().unwrap();
    metrics.refresh(&pool).await;
    let said = metrics.encode().unwrap();
    for line in [
        r#"tuneloop_runs{pipeline="hook",status="running"} 1"#,
        r#"tuneloop_runs{pipeline="hook",status="failed"} 0"#,
        r#"tuneloop_jobs{kind="run",state="ready"} 2"#,
        r#"tuneloop_jobs{kind="run",state="done"} 1"#,
        r#"tuneloop_jobs{kind="prune",state="leased"} 0"#,
        r#"tuneloop_job_oldest_age_seconds{kind="prune"} 0"#,
        "tuneloop_database_up 1",
    ] {
        assert!(said.lines().any(|found| found == line), "{line} is missing in\n{said}");
    }
    let age =
        said.lines().find_map(|line| line.strip_prefix(r#"tuneloop_job_oldest_age_seconds{kind="run"} "#));
    let age: f64 = age.unwrap().parse().unwrap();
    assert!((90.0..3600.0).contains(&age), "{age}");

    sqlx::raw_sql("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE state = 'ready'")
        .execute(&pool)
        .await
        .unwrap();
    metrics.refresh(&pool).await;
    let said = metrics.encode().unwrap();
    assert!(said.contains(r#"tuneloop_job_oldest_age_seconds{kind="run"} 0"#), "{said}");

    pool.close().await;
    metrics.job_retried("run");
    metrics.refresh(&pool).await;
    let said = metrics.encode().unwrap();
    assert!(said.contains("tuneloop_database_up 0") && said.contains("tuneloop_job_retries_total"), "{said}");
    assert!(!said.contains("tuneloop_jobs{"), "{said}");
}

#[tokio::test]
async fn the_service_starts_without_a_collector_and_ends_on_a_signal() {
    let (database, _pool) = Database::migrated().await;
    let mut command = database.command(&["serve", "--log-format", "json"]);
    command.env("TUNELOOP_LISTEN", "127.0.0.1:0").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut service = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let started =
        lines.find(|line| line.as_ref().unwrap().contains("\"message\":\"started\"")).unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_str(&started).unwrap();
    assert_eq!(event["roles"], "api,worker,scheduler");
    let sent = Command::new("kill").args(["-TERM", &service.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(service.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("SIGTERM: ending")), "{rest:?}");
}

#[test]
fn a_service_that_still_connects_can_be_stopped() {
    // Accepts connections and never answers, as a database behind a stuck proxy does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://me@{}/shop", silent.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
    command.arg("serve").env_clear().env("DATABASE_URL", url).env("OPENAI_API_KEY", "sk-1");
    let mut service = command.stderr(Stdio::piped()).spawn().unwrap();
    let (_connection, _) = silent.accept().unwrap();
    let sent = Command::new("kill").args(["-TERM", &service.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(service.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_key_is_listed_without_its_secret_and_revoked_once() {
    let database = Database::empty("keys").await;
    database::migrate(&database.pool().await).await.unwrap();
    let made = database.run(&["keys", "create", "--role", "viewer", "--name", "ci"]).await;
    let secret = text(&made.stdout).trim().to_owned();
    let listed = text(&database.run(&["keys", "list"]).await.stdout);
    assert!(listed.contains("viewer") && listed.trim_end().ends_with("ci"), "{listed}");
    assert!(!listed.contains(&secret), "{listed}");

    let id = listed.split_whitespace().next().unwrap();
    let revoke = || database.command(&["keys", "revoke", id]).output().unwrap();
    assert!(revoke().status.success());
    assert!(text(&database.run(&["keys", "list"]).await.stdout).contains("revoked"));
    let again = revoke();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("There is no valid key"), "{again:?}");
}
