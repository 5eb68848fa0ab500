//! A server that an earlier tuneloop left on the cluster because everything around it was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::EmbeddedError;
use super::user::{self, Account};

/// A fast shutdown rolls back and writes a checkpoint, which on a slow disk takes its time.
const LIMIT: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(50);

/// What the process named in `postmaster.pid` is.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// It has ended, so PostgreSQL itself sees that the file is stale.
    Gone,
    /// A server on this cluster.
    Server,
    /// Another program that got the number later.
    Other,
}

/// Stops a server that still runs on the cluster.
///
/// Returns the process id in `postmaster.pid` where it now belongs to another program. PostgreSQL would take
/// that for a running server; named in `PG_GRANDPARENT_PID`, it knows better, and still looks for leftover
/// backends by the file's other lines (`CreateLockFile` in PostgreSQL's `miscinit.c`).
pub(super) async fn settle(cluster: &Path, account: Option<&Account>) -> Result<Option<u32>, EmbeddedError> {
    let start = Instant::now();
    let mut asked = false;
    while let Some(pid) = recorded_pid(cluster) {
        match holder(pid, cluster) {
            Holder::Gone => return Ok(None),
            Holder::Other => return Ok(Some(pid)),
            Holder::Server if start.elapsed() > LIMIT => {
                return Err(still_running(cluster, LIMIT));
            }
            Holder::Server if !asked => {
                asked = true;
                tracing::info!("stopping the PostgreSQL server (process {pid}) that was left running");
                signal(pid, "INT", account)?;
            }
            Holder::Server => tokio::time::sleep(POLL).await,
        }
    }
    Ok(None)
}

/// Ends the cluster's server at once, without its checkpoint; the next start recovers.
pub(super) fn quit(cluster: &Path, account: Option<&Account>) -> Result<(), EmbeddedError> {
    match recorded_pid(cluster) {
        Some(pid) if holder(pid, cluster) == Holder::Server => signal(pid, "QUIT", account),
        _ => Ok(()),
    }
}

/// The error that names the cluster's server.
pub(super) fn still_running(cluster: &Path, limit: Duration) -> EmbeddedError {
    EmbeddedError::StillRunning {
        dir: cluster.parent().unwrap_or(cluster).to_path_buf(),
        pid: recorded_pid(cluster).map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
        seconds: limit.as_secs(),
    }
}

/// The first line of `postmaster.pid`. A file that is half-written or absent names nobody.
fn recorded_pid(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

fn holder(pid: u32, cluster: &Path) -> Holder {
    match command_line(pid) {
        None => Holder::Gone,
        Some(line) if line.contains("postgres") && line.contains(&*cluster.to_string_lossy()) => {
            Holder::Server
        }
        Some(_) => Holder::Other,
    }
}

/// The command line of a process; empty for one that has ended but was not waited for.
fn command_line(pid: u32) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if Path::new("/proc/self/cmdline").exists() {
        let bytes = fs::read(proc.join("cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&bytes).replace('\0', " "));
    }
    let output = user::command("ps", None).args(["-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!line.is_empty()).then_some(line)
}

fn signal(pid: u32, name: &str, account: Option<&Account>) -> Result<(), EmbeddedError> {
    // That the process has ended in the meantime is what is wanted, so the status says nothing new.
    user::command("/bin/sh", account)
        .args(["-c", r#"kill -"$1" "$2" 2>/dev/null"#, "sh", name, &pid.to_string()])
        .status()
        .map(drop)
        .map_err(EmbeddedError::io("run", Path::new("/bin/sh")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_of(pid: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postmaster.pid"), format!("{pid}\n/elsewhere\n")).unwrap();
        dir
    }

    #[tokio::test]
    async fn nothing_is_left_where_nothing_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(settle(dir.path(), None).await.unwrap(), None);
    }

    #[tokio::test]
    async fn another_program_with_the_number_is_left_alone_and_named() {
        let pid = std::process::id();
        assert_eq!(settle(cluster_of(pid).path(), None).await.unwrap(), Some(pid));
    }

    #[tokio::test]
    async fn an_ended_server_is_postgres_own_business() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(settle(cluster_of(child.id()).path(), None).await.unwrap(), None);
    }
}
