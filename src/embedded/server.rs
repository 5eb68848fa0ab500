//! Starts the server on a free port and waits until it takes connections.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error as SqlxError};

use super::directory::Directory;
use super::error::EmbeddedError;
use super::find::Binaries;
use super::initialise::ROLE;
use super::watchdog::Watched;
use super::{leftover, log_tail};

/// From the first attempt to a connection, recovery after a crash included.
const START_LIMIT: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(25);

/// Refusals of the password in a row that are believed: one may come from a stranger on a port that another
/// process took first, and then the own server has ended by the next look.
const REFUSALS: u32 = 20;

/// Settings of clusters that may be lost with the machine.
const FAST: [&str; 4] =
    ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300"];

/// How one start ended.
enum Start {
    Ready,
    /// The port was taken, or backends of a killed server are still ending.
    Again,
}

/// Starts the server; returns it with the URL of its databases, which lacks the database's name.
pub(super) async fn start(
    directory: &Directory,
    binaries: &Binaries,
    password: &str,
    fast: bool,
) -> Result<(Watched, String), EmbeddedError> {
    let cluster = directory.cluster();
    let log = directory.root().join("server.log");
    keep_old_log(&log)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let stale = leftover::settle(&cluster, directory.account()).await?;
        let port = free_port().map_err(EmbeddedError::io("find a free port on", Path::new("127.0.0.1")))?;
        let mut server = spawn(directory, binaries, &log, port, fast, stale)?;
        let url = format!("postgres://{ROLE}:{password}@{}:{port}/", Ipv4Addr::LOCALHOST);
        match connect(&mut server, directory, &format!("{url}postgres?sslmode=disable"), &log, deadline)
            .await?
        {
            Start::Ready => return Ok((server, url)),
            Start::Again => tokio::time::sleep(POLL).await,
        }
    }
}

fn spawn(
    directory: &Directory,
    binaries: &Binaries,
    log: &Path,
    port: u16,
    fast: bool,
    stale: Option<u32>,
) -> Result<Watched, EmbeddedError> {
    let program = binaries.dir.join("postgres");
    let mut arguments = vec!["-D".into(), directory.cluster().into(), "-p".into(), port.to_string().into()];
    let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "logging_collector=off"];
    for setting in settings.iter().chain(FAST.iter().filter(|_| fast)) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    let variables: Vec<_> = stale.iter().map(|pid| ("PG_GRANDPARENT_PID", pid.to_string())).collect();
    Watched::spawn(&program, &arguments, &variables, log, directory.to_remove(), directory.account())
        .map_err(EmbeddedError::io("run", &program))
}

/// Tries to connect until that works, the server ends or time is up.
async fn connect(
    server: &mut Watched,
    directory: &Directory,
    url: &str,
    log: &Path,
    deadline: Instant,
) -> Result<Start, EmbeddedError> {
    let mut refusals = 0;
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(url)).await;
        match attempt {
            Ok(Ok(connection)) => {
                // The server is up; how it takes the goodbye is of no interest.
                drop(connection.close().await);
                return Ok(Start::Ready);
            }
            Ok(Err(SqlxError::Database(error))) if error.code().as_deref() == Some("28P01") => refusals += 1,
            _ => refusals = 0,
        }
        let ended = server.ended().map_err(EmbeddedError::io("wait for the server in", directory.root()))?;
        let late = Instant::now() > deadline;
        if ended.is_some() {
            let log = log_tail(log);
            return if passes(&log) && !late { Ok(Start::Again) } else { Err(EmbeddedError::Ended { log }) };
        }
        if refusals >= REFUSALS {
            return Err(EmbeddedError::Password { dir: directory.root().to_path_buf() });
        }
        if late {
            return Err(EmbeddedError::NotReady { seconds: START_LIMIT.as_secs(), log: log_tail(log) });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the log's end tells of an obstacle that goes away: a port that was taken between the choice and
/// the start, or shared memory of backends that have yet to notice that their server was killed.
fn passes(log: &str) -> bool {
    log.contains("could not create any TCP/IP sockets") || log.contains("pre-existing shared memory block")
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Begins a new log and keeps the one before, in which the reason of a crash may stand.
fn keep_old_log(log: &Path) -> Result<(), EmbeddedError> {
    match fs::rename(log, log.with_extension("log.old")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(EmbeddedError::Io { action: "rename", path: log.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}
