//! Whose account the server's programs run under: the caller's, or an unprivileged one when the caller is root.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::EmbeddedError;

/// What programs of the server may see of the environment. Everything else stays out: `PG…` variables would
/// change what the server does, and the caller's keys are none of another account's business.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// An account of the operating system to step down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name, or its number where that is all that is known.
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// The account to run the server under: `None` is the caller's own, `Some` an unprivileged one because
    /// the caller is root, whom PostgreSQL refuses.
    pub(super) fn for_server() -> Result<Option<Self>, EmbeddedError> {
        if id(&["-u"])? != Some(0) {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id(&["-u", name])?, id(&["-g", name])?) {
                return Ok(Some(Self { name: name.to_owned(), uid, gid }));
            }
        }
        Err(EmbeddedError::NoAccount)
    }

    /// The account that owns a file, unless that is root or the file is missing.
    pub(super) fn owner_of(path: &Path) -> Option<Self> {
        let owner = fs::metadata(path).ok()?;
        (owner.uid() != 0).then(|| Self { name: owner.uid().to_string(), uid: owner.uid(), gid: owner.gid() })
    }
}

/// A command that runs under the account, in a small environment and with messages in English.
///
/// Its working directory is `/`: the caller's own may be closed to the account. Supplementary groups are
/// dropped by the standard library when root sets another user id.
pub(super) fn command(program: impl AsRef<OsStr>, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    for name in KEPT_VARIABLES {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Whether the account may enter the directory and make files in it.
pub(super) fn can_use(dir: &Path, account: &Account) -> Result<bool, EmbeddedError> {
    let status = command("/bin/sh", Some(account))
        .args(["-c", r#"test -x "$1" && test -w "$1""#, "sh"])
        .arg(dir)
        .status()
        .map_err(EmbeddedError::io("run /bin/sh to look at", dir))?;
    Ok(status.success())
}

/// The number that `id` prints; `None` where it knows no such user.
fn id(arguments: &[&str]) -> Result<Option<u32>, EmbeddedError> {
    let output =
        command("id", None).args(arguments).output().map_err(EmbeddedError::io("run", Path::new("id")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|_| output.status.success()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_root_steps_down_and_never_to_root() {
        let am_root = id(&["-u"]).unwrap() == Some(0);
        let account = Account::for_server().unwrap();
        assert_eq!(account.is_some(), am_root);
        assert!(account.is_none_or(|account| account.uid != 0 && account.gid != 0));
    }

    #[test]
    fn a_user_that_does_not_exist_has_no_number() {
        assert_eq!(id(&["-u", "no-such-user-of-tuneloop"]).unwrap(), None);
    }

    #[test]
    fn programs_lose_the_groups_of_root_and_its_variables() {
        let account = Account::for_server().unwrap();
        let output = command("/bin/sh", account.as_ref())
            .args(["-c", "id -u; id -G; echo \"${CARGO_MANIFEST_DIR:-none}\"; pwd"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(&lines[2..], ["none", "/"]);
        if let Some(account) = account {
            assert_eq!(&lines[..2], [account.uid.to_string(), account.gid.to_string()]);
        }
    }

    #[test]
    fn a_private_directory_of_root_is_out_of_reach() {
        if let Some(account) = Account::for_server().unwrap() {
            let closed = tempfile::tempdir().unwrap();
            fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
            assert!(!can_use(closed.path(), &account).unwrap());
            std::os::unix::fs::chown(closed.path(), Some(account.uid), Some(account.gid)).unwrap();
            assert!(can_use(closed.path(), &account).unwrap());
        }
    }
}
