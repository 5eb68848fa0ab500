//! A process that a test may kill: this very binary again, with `TUNELOOP_TEST_HELPER` set, so that only
//! `helper_process` does something in it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use tuneloop::embedded::{Cluster, Options};

use crate::{database, server_pid, temporary};

/// `keep DIR` or `temporary` or `harness`: what the helper process starts.
const HELPER: &str = "TUNELOOP_TEST_HELPER";

/// Where the helper's cluster is and how to connect to it, on one line of its output.
const MARK: &str = "helper: ";

/// A process of its own with a cluster, to be killed.
pub(crate) struct Helper {
    pub(crate) process: Child,
    /// Kept open: the helper's test runner still has things to say.
    _output: BufReader<ChildStdout>,
    pub(crate) data_dir: PathBuf,
    pub(crate) url: String,
}

impl Helper {
    pub(crate) fn start(task: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper::helper_process", "--nocapture"])
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

    pub(crate) fn server_pid(&self) -> u32 {
        server_pid(&self.data_dir).unwrap()
    }

    pub(crate) fn kill(&mut self) {
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
