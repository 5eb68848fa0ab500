//! The private cluster as its users see it: it works, keeps its data, and never outlives the process.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod cluster;
#[path = "../harness/database.rs"]
mod database;
mod harness;
mod helper;
mod killed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use tuneloop::embedded::Options;

fn options(dir: &Path) -> Options {
    Options { data_dir: Some(dir.to_path_buf()), fast: true, ..temporary() }
}

fn temporary() -> Options {
    Options { binaries: std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into), ..Options::default() }
}

/// A directory below one that every account may enter.
fn base() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn query(url: &str, statement: &str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let value = sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(value)
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The server's process, from PostgreSQL's own file.
fn server_pid(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join("cluster/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Whether the process runs; one that has ended but was not waited for does not.
fn is_running(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

/// Waits for something that has to happen; the limit only keeps a failing test from hanging.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited for a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, target: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), "--", target]).status().unwrap();
    assert!(status.success());
}
