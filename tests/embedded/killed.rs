//! However the process ends, its server ends too, and the data stay.

use std::process::Command;

use tuneloop::embedded::Cluster;

use crate::helper::Helper;
use crate::{base, execute, is_running, kill, options, query, wait_until};

#[test]
fn nothing_remains_of_a_temporary_cluster_when_its_process_is_killed() {
    let mut helper = Helper::start("temporary");
    let pid = helper.server_pid();
    assert!(is_running(pid) && helper.data_dir.exists());
    helper.kill();
    wait_until("the server ends", || !is_running(pid));
    wait_until("the directory goes", || !helper.data_dir.exists());
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
