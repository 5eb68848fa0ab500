//! Starting, stopping, restarting, and what is said when that fails.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use sqlx::error::DatabaseError;
use tuneloop::embedded::{Cluster, EmbeddedError};

use crate::{base, execute, is_running, kill, options, query, server_pid, temporary};

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
