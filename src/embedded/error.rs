//! What can go wrong with a private cluster, each in one sentence that names what to change.

use std::io;
use std::path::{Path, PathBuf};

/// Why a private cluster could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The folder that the user named holds no usable server.
    #[error(
        "--postgres-bin names {dir}, which {reason}: \
         give the folder that holds PostgreSQL's `postgres` and `initdb`"
    )]
    UnfitBinaries {
        /// The folder as it was given.
        dir: PathBuf,
        /// What is wrong with it, as the rest of "the folder …".
        reason: String,
    },

    /// No server on this machine, and none could be downloaded.
    #[error(
        "no {wanted} was found and it could not be downloaded ({reason}): install it \
         (`apt-get install postgresql` or `brew install postgresql`), or name a running server with \
         DATABASE_URL or a folder of programs with --postgres-bin"
    )]
    NotFound {
        /// The versions that would do.
        wanted: String,
        /// Why the download failed, and what was passed over.
        reason: String,
    },

    /// Started as root on a system without an account to step down to.
    #[error(
        "PostgreSQL refuses to run as root and this system has neither a user `postgres` nor `nobody`: \
         add one of them or start tuneloop as another user"
    )]
    NoAccount,

    /// The unprivileged account cannot enter or write the directory.
    #[error(
        "the user `{account}`, under which PostgreSQL runs because it refuses root, cannot reach {dir}: \
         choose a data directory whose parent folders everyone may enter, such as /var/lib/tuneloop"
    )]
    Unreachable {
        /// The account the server would run under.
        account: String,
        /// The directory it cannot use.
        dir: PathBuf,
    },

    /// The data directory is used for something else.
    #[error("the data directory {dir} holds other files (such as {file}): choose an empty or a new one")]
    ForeignFiles {
        /// The data directory.
        dir: PathBuf,
        /// One of the files that do not belong to a cluster of tuneloop.
        file: String,
    },

    /// Another process has the data directory.
    #[error(
        "another tuneloop is running on the data directory {dir}: stop it or choose another data directory"
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },

    /// The cluster is there but nobody knows its password any more.
    #[error(
        "the password of the cluster in {dir} does not fit or its file `password` is missing: \
         restore that file, or remove the directory to begin anew"
    )]
    Password {
        /// The data directory.
        dir: PathBuf,
    },

    /// `initdb` failed.
    #[error("PostgreSQL's initdb failed in {dir} and said: {log}")]
    Initialise {
        /// The data directory.
        dir: PathBuf,
        /// The last lines of its output.
        log: String,
    },

    /// The server ended without having been asked to.
    #[error("PostgreSQL ended unexpectedly; its log ends with: {log}")]
    Ended {
        /// The last lines of the server's log.
        log: String,
    },

    /// The server runs but did not accept a connection in time.
    #[error("PostgreSQL accepted no connection within {seconds} seconds; its log ends with: {log}")]
    NotReady {
        /// The time limit.
        seconds: u64,
        /// The last lines of the server's log.
        log: String,
    },

    /// A server did not end in time.
    #[error("PostgreSQL on {dir} (process {pid}) did not stop within {seconds} seconds: end that process")]
    StillRunning {
        /// The data directory.
        dir: PathBuf,
        /// The server's process id, or `unknown`.
        pid: String,
        /// The time limit.
        seconds: u64,
    },

    /// A statement on the running cluster failed.
    #[error("PostgreSQL could not create the database `{database}`: {source}")]
    CreateDatabase {
        /// The database's name.
        database: String,
        /// The driver's error.
        source: sqlx::Error,
    },

    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted, as the rest of "cannot …".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl EmbeddedError {
    /// For `map_err`: an error of the operating system with what was attempted on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
