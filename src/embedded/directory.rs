//! The data directory: who owns it, who may use it now, and the password of its cluster.
//!
//! ```text
//! DATA_DIR/lock         held by the tuneloop that uses the directory
//! DATA_DIR/password     of the cluster's one role, readable by the owner only
//! DATA_DIR/cluster/     PostgreSQL's own files
//! DATA_DIR/server.log   of the latest start; server.log.old is the one before
//! ```

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::EmbeddedError;
use super::find::Wanted;
use super::user::{self, Account};
use crate::clock::Clock;

/// The files of a data directory; anything else in it is somebody else's.
const OWN_FILES: [&str; 7] =
    ["cluster", "password", "password.new", "lock", "initdb.log", "server.log", "server.log.old"];

/// Clusters that are being made, or were when the process was killed.
pub(super) const UNFINISHED: &str = "cluster.new-";

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    account: Option<Account>,
    /// Removes the directory when dropped.
    temporary: Option<TempDir>,
    /// The lock ends with the process, however that ends.
    _lock: File,
}

impl Directory {
    /// Takes the directory, made if missing.
    pub(super) fn open(dir: &Path) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(dir).map_err(EmbeddedError::io("create the data directory", dir))?;
        let root = fs::canonicalize(dir).map_err(EmbeddedError::io("open", dir))?;
        refuse_foreign_files(&root)?;
        // A cluster stays with the account that made it, also when root looks after it later.
        let account =
            Account::for_server()?.map(|chosen| Account::owner_of(&root.join("cluster")).unwrap_or(chosen));
        Self::take(root, account, None)
    }

    /// Makes a temporary directory, removed when dropped.
    pub(super) fn temporary(account: Option<Account>) -> Result<Self, EmbeddedError> {
        let made = make_temporary(account.as_ref())?;
        Self::take(made.path().to_path_buf(), account, Some(made))
    }

    fn take(
        root: PathBuf,
        account: Option<Account>,
        temporary: Option<TempDir>,
    ) -> Result<Self, EmbeddedError> {
        let lock = lock(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .map_err(EmbeddedError::io("make private", &root))?;
        if let Some(account) = &account {
            chown(&root, Some(account.uid), Some(account.gid))
                .map_err(EmbeddedError::io("change the owner of", &root))?;
            if !user::can_use(&root, account)? {
                return Err(EmbeddedError::Unreachable { account: account.name.clone(), dir: root });
            }
        }
        Ok(Self { root, account, temporary, _lock: lock })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// PostgreSQL's own directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// What has to go when the process ends.
    pub(super) fn to_remove(&self) -> Option<&Path> {
        self.temporary.as_ref().map(TempDir::path)
    }

    /// The versions that can work with what the directory holds.
    pub(super) fn wanted(&self) -> Result<Wanted, EmbeddedError> {
        let file = self.cluster().join("PG_VERSION");
        if !file.exists() {
            return Ok(Wanted::Supported);
        }
        let text = fs::read_to_string(&file).map_err(EmbeddedError::io("read", &file))?;
        text.trim().parse().map(Wanted::Major).map_err(|error| EmbeddedError::Io {
            action: "read the version in",
            path: file,
            source: std::io::Error::other(error),
        })
    }

    /// The file with the cluster's password, made on the first call.
    ///
    /// The password is 256 random bits: local users who can reach the port cannot guess it.
    pub(super) fn password(&self, clock: &Clock) -> Result<(PathBuf, String), EmbeddedError> {
        let file = self.root.join("password");
        if file.exists() {
            let password = fs::read_to_string(&file).map_err(EmbeddedError::io("read", &file))?;
            return Ok((file, password.trim().to_owned()));
        }
        if self.cluster().exists() {
            return Err(EmbeddedError::Password { dir: self.root.clone() });
        }
        let password = hex::encode(clock.bytes::<32>());
        self.write_private(&file, &password).map_err(EmbeddedError::io("write", &file))?;
        Ok((file, password))
    }

    /// Writes a whole file or none, readable by the server's account only.
    fn write_private(&self, file: &Path, text: &str) -> std::io::Result<()> {
        let draft = self.root.join("password.new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut output = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(output, "{text}")?;
        if let Some(account) = &self.account {
            fchown(&output, Some(account.uid), Some(account.gid))?;
        }
        output.sync_all()?;
        fs::rename(&draft, file)
    }
}

/// A temporary directory where the account can reach it: root's `TMPDIR` may be closed to others.
fn make_temporary(account: Option<&Account>) -> Result<TempDir, EmbeddedError> {
    let mut base = env::temp_dir();
    if let Some(account) = account
        && !user::can_use(&base, account)?
    {
        base = PathBuf::from("/tmp");
    }
    tempfile::Builder::new()
        .prefix("tuneloop-postgres-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&base)
        .map_err(EmbeddedError::io("create a temporary directory in", &base))
}

/// Guards against taking over, and as root giving away, a directory that is used for something else.
fn refuse_foreign_files(root: &Path) -> Result<(), EmbeddedError> {
    for entry in fs::read_dir(root).map_err(EmbeddedError::io("list", root))? {
        let name = entry.map_err(EmbeddedError::io("list", root))?.file_name();
        let name = name.to_string_lossy();
        let own = OWN_FILES.contains(&&*name) || name.starts_with(UNFINISHED) || name == "lost+found";
        if !own {
            return Err(EmbeddedError::ForeignFiles { dir: root.to_path_buf(), file: name.into_owned() });
        }
    }
    Ok(())
}

/// Takes the directory's lock, which a second process cannot.
fn lock(root: &Path) -> Result<File, EmbeddedError> {
    let path = root.join("lock");
    // Never follows a link to a file that is not there: the directory may belong to another account than ours.
    let file = File::options()
        .write(true)
        .open(&path)
        .or_else(|_| File::options().write(true).create_new(true).mode(0o600).open(&path))
        .or_else(|_| File::options().write(true).open(&path))
        .map_err(EmbeddedError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { dir: root.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(EmbeddedError::Io { action: "lock", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn base() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn a_password_is_made_once_and_kept_private() {
        let base = base();
        let dir = base.path().join("data");
        let first = Directory::open(&dir).unwrap();
        let (file, password) = first.password(&Clock::system()).unwrap();
        assert_eq!(password.len(), 64);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        drop(first);
        let second = Directory::open(&dir).unwrap();
        assert_eq!(second.password(&Clock::system()).unwrap().1, password);
        fs::remove_file(file).unwrap();
        fs::create_dir(dir.join("cluster")).unwrap();
        assert!(matches!(second.password(&Clock::system()), Err(EmbeddedError::Password { .. })));
    }

    #[test]
    fn one_process_at_a_time() {
        let base = base();
        let first = Directory::open(base.path()).unwrap();
        let message = Directory::open(base.path()).unwrap_err().to_string();
        assert!(message.starts_with("another tuneloop is running on the data directory"), "{message}");
        drop(first);
        Directory::open(base.path()).unwrap();
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let base = base();
        fs::write(base.path().join("thesis.tex"), "").unwrap();
        let before = fs::metadata(base.path()).unwrap();
        let message = Directory::open(base.path()).unwrap_err().to_string();
        assert!(message.contains("thesis.tex"), "{message}");
        let after = fs::metadata(base.path()).unwrap();
        assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    }

    #[test]
    fn root_is_told_when_the_server_could_not_reach_the_directory() {
        if Account::for_server().unwrap().is_some() {
            let closed = tempfile::tempdir().unwrap();
            fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
            let message = Directory::open(&closed.path().join("data")).unwrap_err().to_string();
            assert!(message.contains("cannot reach"), "{message}");
        }
    }

    #[test]
    fn a_cluster_keeps_its_owner() {
        if Account::for_server().unwrap().is_some() {
            let base = base();
            fs::create_dir(base.path().join("cluster")).unwrap();
            chown(base.path().join("cluster"), Some(12_345), Some(12_346)).unwrap();
            let directory = Directory::open(base.path()).unwrap();
            assert_eq!(directory.account().map(|account| (account.uid, account.gid)), Some((12_345, 12_346)));
        }
    }
}
