//! Makes the cluster: initdb in a directory beside it, then a rename, so that a cluster is whole or absent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;

use super::directory::{Directory, UNFINISHED};
use super::error::EmbeddedError;
use super::find::Binaries;
use super::log_tail;
use super::watchdog::Watched;
use crate::clock::Clock;

/// The cluster's one role.
pub(super) const ROLE: &str = "tuneloop";

/// Character classes of Unicode where the system has that locale, else of ASCII. Everything is sorted by
/// code point, so that the order of texts does not depend on the machine.
const LOCALES: [&[&str]; 2] = [&["--locale=C", "--lc-ctype=C.UTF-8"], &["--locale=C"]];

/// Makes the cluster unless it is there. Cancelling it stops initdb and leaves no cluster.
pub(super) async fn initialise(
    directory: &Directory,
    binaries: &Binaries,
    password: &Path,
    fast: bool,
    clock: &Clock,
) -> Result<(), EmbeddedError> {
    if directory.cluster().exists() {
        return Ok(());
    }
    let root = directory.root();
    remove_unfinished(root);
    let log = root.join("initdb.log");
    // The random name keeps this one apart from an initdb of a killed process that is still on its way out.
    let draft = root.join(format!("{UNFINISHED}{}", hex::encode(clock.bytes::<8>())));
    for locale in LOCALES {
        let mut arguments: Vec<OsString> =
            ["--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions", "--username", ROLE]
                .map(Into::into)
                .into();
        arguments.extend(locale.iter().map(Into::into));
        arguments.extend(["--pwfile".into(), password.into(), "--pgdata".into(), draft.clone().into()]);
        if fast {
            arguments.push("--no-sync".into());
        }
        let program = binaries.dir.join("initdb");
        let mut initdb =
            Watched::spawn(&program, &arguments, &[], &log, directory.to_remove(), directory.account())
                .map_err(EmbeddedError::io("run", &program))?;
        let status = initdb.finished().await.map_err(EmbeddedError::io("wait for", &program))?;
        if status.success() {
            let cluster = directory.cluster();
            fs::rename(&draft, &cluster).map_err(EmbeddedError::io("put in place", &cluster))?;
            return File::open(root)
                .and_then(|dir| dir.sync_all())
                .map_err(EmbeddedError::io("write the directory", root));
        }
        if !log_tail(&log).contains("invalid locale") {
            break;
        }
    }
    Err(EmbeddedError::Initialise { dir: root.to_path_buf(), log: log_tail(&log) })
}

/// Clears away what killed processes left. What cannot be removed yet costs space, nothing else.
fn remove_unfinished(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!("cannot remove {}: {error}", entry.path().display());
        }
    }
}
