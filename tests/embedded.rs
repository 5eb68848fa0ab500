//! The private cluster as its users see it: it works, keeps its data, and never outlives the process.
//!
//! Tests that kill a process run this very binary again with `TUNELOOP_TEST_HELPER` set, so that only
//! `helper_process` does something.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "harness/database.rs"]
mod database;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use tuneloop::embedded::{Cluster, EmbeddedError, Options};

/// `keep DIR` or `temporary` or `harness`: what the helper process starts.
const HELPER: &str = "TUNELOOP_TEST_HELPER";

/// Where the helper's cluster is and how to connect to it, on one line of its output.
const MARK: &str = "helper: ";

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

#[tokio::test]
async fn a_cluster_starts_answers_and_stops() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let dir = cluster.data_dir().to_path_buf();
    let pid = server_pid(&dir).unwrap();
    cluster.create_database("first one").await.unwrap();
    cluster.create_database("first one").await.unwrap();
    let url = cluster.url("first one");
    assert_eq!(query(&url, "SELECT 41::bigint + 1").await.unwrap(), 42);
    assert!(cluster.version().split('.').next().unwrap().parse::<u32>().unwrap() >= 14);
    cluster.stop().await.unwrap();
    assert!(!is_running(pid));
    assert!(!dir.exists(), "a temporary directory goes with its cluster");
    assert!(query(&url, "SELECT 1::bigint").await.is_err());
}

#[tokio::test]
async fn dropping_a_cluster_stops_it() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let dir = cluster.data_dir().to_path_buf();
    let pid = server_pid(&dir).unwrap();
    drop(cluster);
    assert!(!is_running(pid) && !dir.exists());
}

#[tokio::test]
async fn text_is_unicode_and_sorted_by_code_point() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let url = cluster.url("postgres");
    let right = "SELECT (current_setting('server_encoding') = 'UTF8' AND 'Z' < 'a' \
                 AND convert_to('ü', 'UTF8') = '\\xc3bc')::int::bigint";
    assert_eq!(query(&url, right).await.unwrap(), 1);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_the_password() {
    let base = base();
    let dir = base.path().join("data");
    let first = Cluster::start(options(&dir)).await.unwrap();
    first.create_database("kept").await.unwrap();
    execute(&first.url("kept"), "CREATE TABLE t (n bigint); INSERT INTO t VALUES (7)").await;
    let password = fs::read_to_string(dir.join("password")).unwrap();
    first.stop().await.unwrap();
    assert!(dir.exists());

    let second = Cluster::start(options(&dir)).await.unwrap();
    assert_eq!(query(&second.url("kept"), "SELECT n FROM t").await.unwrap(), 7);
    assert_eq!(fs::read_to_string(dir.join("password")).unwrap(), password);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn strangers_on_the_machine_are_kept_out() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let url = cluster.url("postgres");
    let (before, after) = url.split_once("@127.0.0.1:").unwrap();
    let wrong = format!("{}:guess@127.0.0.1:{after}", before.rsplit_once(':').unwrap().0);
    let error = query(&wrong, "SELECT 1::bigint").await.unwrap_err();
    assert_eq!(error.as_database_error().and_then(DatabaseError::code).as_deref(), Some("28P01"));
    let settings = "SELECT (current_setting('listen_addresses') = '127.0.0.1' \
                    AND current_setting('unix_socket_directories') = '' \
                    AND NOT EXISTS (SELECT FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'))::int::bigint";
    assert_eq!(query(&url, settings).await.unwrap(), 1);
    let password = fs::metadata(cluster.data_dir().join("password")).unwrap();
    assert_eq!(password.mode() & 0o777, 0o600);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_never_runs_as_root() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let pid = server_pid(cluster.data_dir()).unwrap();
    let output = Command::new("ps").args(["-o", "uid=", "-p", &pid.to_string()]).output().unwrap();
    let uid: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert_ne!(uid, 0);
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        assert!(!groups.split_whitespace().any(|group| group == "0"), "the groups of root are dropped");
    }
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_tuneloop_on_the_directory_is_told_so() {
    let base = base();
    let first = Cluster::start(options(base.path())).await.unwrap();
    let error = Cluster::start(options(base.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse { .. }), "{error}");
    assert_eq!(query(&first.url("postgres"), "SELECT 1::bigint").await.unwrap(), 1, "the first goes on");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_noticed_with_its_log() {
    let cluster = Cluster::start(temporary()).await.unwrap();
    let dir = cluster.data_dir().to_path_buf();
    kill("INT", &server_pid(&dir).unwrap().to_string());
    let message = cluster.ended().await.to_string();
    assert!(message.contains("received fast shutdown request"), "{message}");
    cluster.stop().await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_server_that_cannot_start_tells_why_at_once() {
    let base = base();
    Cluster::start(options(base.path())).await.unwrap().stop().await.unwrap();
    let configuration = base.path().join("cluster/postgresql.conf");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("{text}\nno_such_setting = 1\n")).unwrap();
    let error = Cluster::start(options(base.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_password_that_does_not_fit_is_told() {
    let base = base();
    Cluster::start(options(base.path())).await.unwrap().stop().await.unwrap();
    fs::write(base.path().join("password"), "another\n").unwrap();
    let error = Cluster::start(options(base.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Password { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unfinished_initdb_is_begun_anew() {
    let base = base();
    let unfinished = base.path().join("cluster.new-0123");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    let cluster = Cluster::start(options(base.path())).await.unwrap();
    assert_eq!(query(&cluster.url("postgres"), "SELECT 1::bigint").await.unwrap(), 1);
    assert!(!unfinished.exists());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_with_a_number_in_use_does_not_block_the_start() {
    let base = base();
    Cluster::start(options(base.path())).await.unwrap().stop().await.unwrap();
    // A process of the server's own account, which PostgreSQL alone would take for a running server.
    let mut stranger = Command::new("sleep");
    stranger.arg("600");
    let owner = fs::metadata(base.path().join("cluster")).unwrap();
    if owner.uid() != fs::metadata("/proc/self").map_or(owner.uid(), |own| own.uid()) {
        std::os::unix::process::CommandExt::uid(&mut stranger, owner.uid());
    }
    let mut stranger = stranger.spawn().unwrap();
    let pid_file = base.path().join("cluster/postmaster.pid");
    fs::write(&pid_file, format!("{}\n{}\n1\n5432\n\n127.0.0.1\n", stranger.id(), base.path().display()))
        .unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();
    let started = Cluster::start(options(base.path())).await;
    assert!(is_running(stranger.id()), "the stranger is left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    started.unwrap().stop().await.unwrap();
}

/// A process of its own with a cluster, to be killed.
struct Helper {
    process: Child,
    /// Kept open: the helper's test runner still has things to say.
    _output: BufReader<ChildStdout>,
    data_dir: PathBuf,
    url: String,
}

impl Helper {
    fn start(task: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture"])
            .env(HELPER, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let line = output
            .by_ref()
            .lines()
            .find_map(|line| line.unwrap().split_once(MARK).map(|(_, rest)| rest.to_owned()))
            .expect("the helper tells where its cluster is");
        let (url, data_dir) = line.split_once(' ').unwrap();
        Self { process, _output: output, data_dir: data_dir.into(), url: url.to_owned() }
    }

    fn server_pid(&self) -> u32 {
        server_pid(&self.data_dir).unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Does nothing as a test of its own.
#[tokio::test]
async fn helper_process() {
    let Ok(task) = std::env::var(HELPER) else { return };
    if task == "harness" {
        let database = database::fresh_database().await;
        println!("{MARK}{} {}", database.url, database::cluster().await.data_dir().display());
        return;
    }
    let cluster = Cluster::start(match task.strip_prefix("keep ") {
        Some(dir) => Options { data_dir: Some(dir.into()), ..temporary() },
        None => temporary(),
    })
    .await
    .unwrap();
    println!("{MARK}{} {}", cluster.url("postgres"), cluster.data_dir().display());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

fn kill(signal: &str, target: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), "--", target]).status().unwrap();
    assert!(status.success());
}

#[test]
fn nothing_remains_of_a_temporary_cluster_when_its_process_is_killed() {
    let mut helper = Helper::start("temporary");
    let pid = helper.server_pid();
    assert!(is_running(pid) && helper.data_dir.exists());
    helper.kill();
    wait_until("the server ends", || !is_running(pid));
    wait_until("the directory goes", || !helper.data_dir.exists());
}

#[test]
fn nothing_remains_of_the_harness_when_its_process_ends() {
    let mut helper = Helper::start("harness");
    helper.process.wait().unwrap();
    wait_until("the directory goes", || !helper.data_dir.exists());
    let port = helper.url.split_once("@127.0.0.1:").unwrap().1.split('/').next().unwrap().parse().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_killed_process_takes_its_server_along_and_the_data_stay() {
    let base = base();
    let mut helper = Helper::start(&format!("keep {}", base.path().display()));
    execute(&helper.url, "CREATE TABLE t (n bigint); INSERT INTO t VALUES (9)").await;
    let pid = helper.server_pid();
    helper.kill();
    // At once, while the watchdog may still be stopping the old server.
    let cluster = Cluster::start(options(base.path())).await.unwrap();
    assert!(!is_running(pid));
    assert_eq!(query(&cluster.url("postgres"), "SELECT n FROM t").await.unwrap(), 9);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_data_survive_when_everything_is_killed() {
    let base = base();
    let mut helper = Helper::start(&format!("keep {}", base.path().display()));
    execute(&helper.url, "CREATE TABLE t (n bigint); INSERT INTO t VALUES (11)").await;
    let pid = helper.server_pid();
    // The watchdog, its reader and the server are one process group.
    kill("STOP", &helper.process.id().to_string());
    kill("KILL", &format!("-{}", group(pid)));
    helper.kill();
    wait_until("the server is gone", || !is_running(pid));
    let cluster = Cluster::start(options(base.path())).await.unwrap();
    assert_eq!(query(&cluster.url("postgres"), "SELECT n FROM t").await.unwrap(), 11);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_without_its_watchdog_is_stopped_by_the_next_start() {
    let base = base();
    let mut helper = Helper::start(&format!("keep {}", base.path().display()));
    execute(&helper.url, "CREATE TABLE t (n bigint); INSERT INTO t VALUES (13)").await;
    let pid = helper.server_pid();
    for watchdog in members(group(pid)).into_iter().filter(|member| *member != pid) {
        kill("KILL", &watchdog.to_string());
    }
    helper.kill();
    assert!(is_running(pid), "nobody is left to stop it");
    let cluster = Cluster::start(options(base.path())).await.unwrap();
    assert!(!is_running(pid));
    assert_eq!(query(&cluster.url("postgres"), "SELECT n FROM t").await.unwrap(), 13);
    cluster.stop().await.unwrap();
}

#[test]
fn ctrl_c_in_the_terminal_does_not_reach_the_server() {
    let mut helper = Helper::start("temporary");
    let pid = helper.server_pid();
    assert_ne!(group(pid), group(helper.process.id()));
    helper.kill();
    wait_until("the directory goes", || !helper.data_dir.exists());
}

fn group(pid: u32) -> u32 {
    let output = Command::new("ps").args(["-o", "pgid=", "-p", &pid.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn members(group: u32) -> Vec<u32> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,pgid="]).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().map(|column| column.parse::<u32>().unwrap());
            let (pid, its_group) = (columns.next()?, columns.next()?);
            (its_group == group).then_some(pid)
        })
        .collect()
}

#[tokio::test]
async fn every_test_has_a_migrated_database_of_its_own() {
    let first = database::fresh_database().await;
    let second = database::fresh_database().await;
    assert_ne!(first.url, second.url);
    execute(&first.url, "CREATE TABLE only_here (n bigint)").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('only_here', '_sqlx_migrations')";
    assert_eq!(query(&first.url, tables).await.unwrap(), 2);
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&second.pool).await.unwrap(), 1);

    // The database of a test that has ended goes when the next one begins.
    let url = first.url.clone();
    drop(first);
    database::fresh_database().await;
    assert!(query(&url, "SELECT 1::bigint").await.is_err());
}

#[test]
fn the_harness_serves_tests_whose_runtimes_end() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let database = database::fresh_database().await;
                    let one =
                        sqlx::query_scalar::<_, i64>("SELECT 1::bigint").fetch_one(&database.pool).await;
                    assert_eq!(one.unwrap(), 1);
                });
            });
        }
    });
}
