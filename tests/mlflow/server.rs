//! A real MLflow server, and what its own client reads back.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Url;
use serde_json::Value;
use tempfile::TempDir;
use tuneloop::tracking::{MlflowAccess, MlflowSettings};

/// Loading its code alone may take a minute on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// The Python that has MLflow, or nothing where there is none.
///
/// # Panics
///
/// Where `TUNELOOP_PEERS` asks for it.
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("TUNELOOP_MLFLOW_PYTHON").ok();
    if python.is_none() {
        assert!(
            std::env::var_os("TUNELOOP_PEERS").is_none(),
            "MLflow is missing: set TUNELOOP_MLFLOW_PYTHON"
        );
        println!("skipped: TUNELOOP_MLFLOW_PYTHON does not name a Python with MLflow");
    }
    python
}

/// A server with a database and a directory of its own. It ends when it is dropped.
pub(crate) struct Server {
    python: String,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    running: Option<Child>,
}

impl Server {
    /// A server that passes artifacts on.
    pub(crate) async fn start(python: &str) -> Self {
        let mut server = Self::stopped(python, &["--serve-artifacts"]);
        server.run().await;
        server
    }

    /// A server that is still to be started, with more of its options.
    pub(crate) fn stopped(python: &str, options: &[&str]) -> Self {
        // Free now; the server of a test is the only one to ask for it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        Self { python: python.to_owned(), directory, port, options, running: None }
    }

    /// Starts it, on what it held before.
    pub(crate) async fn run(&mut self) {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let log = std::fs::File::create(path("log")).unwrap();
        let proxied = self.options.iter().any(|option| option == "--serve-artifacts");
        let root = if proxied { "mlflow-artifacts:/".to_owned() } else { path("artifacts") };
        let child = Command::new(&self.python)
            .args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"])
            .args(["--port", &self.port.to_string()])
            .args(["--backend-store-uri", &format!("sqlite:///{}", path("mlflow.db"))])
            .args(["--default-artifact-root", &root, "--artifacts-destination", &path("artifacts")])
            .args(&self.options)
            .envs([("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"), ("MLFLOW_DISABLE_TELEMETRY", "true")])
            .envs([
                ("MLFLOW_FLASK_SERVER_SECRET_KEY", "test"),
                ("MLFLOW_AUTH_ADMIN_PASSWORD", "correct horse"),
            ])
            .env_remove("MLFLOW_TRACKING_URI")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.running = Some(child);
        let health = format!("{}/health", self.uri());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let start = Instant::now();
        while !client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
            let ended = self.running.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && start.elapsed() < LIMIT, "MLflow does not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it at once, in the middle of whatever it does. What it holds stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            // The server has workers of its own: the whole group.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn settings(&self) -> MlflowSettings {
        self.settings_with(MlflowAccess::Open)
    }

    /// With a settle time that fits a server which either answers at once or is dead.
    pub(crate) fn settings_with(&self, access: MlflowAccess) -> MlflowSettings {
        let settings = MlflowSettings::new(Url::parse(&self.uri()).unwrap(), access);
        MlflowSettings { settle: Duration::from_secs(2), ..settings }
    }

    /// What MLflow's own client reads of a pipeline.
    pub(crate) async fn read(&self, pipeline: &str) -> Value {
        self.read_as(pipeline, &[]).await
    }

    pub(crate) async fn read_as(&self, pipeline: &str, variables: &[(&str, &str)]) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mlflow/read.py");
        let output = tokio::process::Command::new(&self.python)
            .args(["-W", "ignore", script, &self.uri(), pipeline])
            .envs(variables.iter().copied())
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(self.directory.path())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
