//! A file below the operator's directory: replaced as a whole by a rename, so that no reader ever sees half of it, with its
//! mode and owner kept.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::PublishError;
use super::payload::{Content, Payload};
use super::place::{Found, Place, Writing};
use crate::pipelines::config::FileTarget;

/// The mode of a file that was not there before.
const MODE: u32 = 0o644;
/// A traffic document has some thousand bytes: what is larger is somebody else's.
const LARGEST: u64 = 1 << 20;

/// The file, held by a lock beside it from the reading to the end of the writing.
#[derive(Debug, Clone)]
pub(super) struct FilePlace {
    directory: PathBuf,
    path: String,
}

/// The lock is given back when this is dropped, by the system if the process is killed.
pub(super) struct FileLock {
    _lock: File,
    path: PathBuf,
}

impl FilePlace {
    pub(super) fn new(directory: Option<&Path>, target: &FileTarget) -> Result<Self, PublishError> {
        let directory = directory.ok_or_else(|| {
            PublishError::failed(
                "no files are written, because the workers run without --publication-dir; set it to the directory below which \
                 pipelines may write, or remove the file from publication.targets",
            )
        })?;
        Ok(Self { directory: directory.to_owned(), path: target.path.clone() })
    }

    /// The path with what leads to it resolved: it must not lead out of the operator's directory.
    fn resolve(&self) -> Result<PathBuf, PublishError> {
        let root = fs::canonicalize(&self.directory).map_err(|error| {
            self.failed("its directory --publication-dir cannot be opened; make it for the workers", &error)
        })?;
        let path = root.join(&self.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(PublishError::failed(format!("{:?} is no path of a file", self.path)));
        };
        let parent = fs::canonicalize(parent)
            .map_err(|error| self.failed("the directory it is in cannot be opened; make it", &error))?;
        if !parent.starts_with(&root) {
            return Err(PublishError::failed(format!(
                "the file {} leads out of --publication-dir by a symbolic link; choose another path",
                self.path
            )));
        }
        Ok(parent.join(name))
    }

    fn failed(&self, what: &str, error: &io::Error) -> PublishError {
        PublishError::failed(format!("the file {}: {what} ({error})", self.path))
    }

    /// Takes the lock, without waiting for whoever has it.
    fn lock(&self) -> Result<FileLock, PublishError> {
        let path = self.resolve()?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options
            .open(beside(&path, "lock"))
            .map_err(|error| self.failed("its lock cannot be opened; let the workers write there", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(FileLock { _lock: lock, path }),
            Err(TryLockError::WouldBlock) => {
                Err(PublishError::failed(format!("another worker is writing the file {}", self.path)))
            }
            Err(TryLockError::Error(error)) => {
                Err(self.failed("it cannot be locked; use a file system with locks", &error))
            }
        }
    }

    fn load(&self, path: &Path) -> Result<Content, PublishError> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = match OpenOptions::new().read(true).open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let mut bytes = Vec::new();
            file.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        let bytes = read().map_err(|error| self.failed("it cannot be read", &error))?;
        Ok(bytes.map_or_else(Content::default, |bytes| {
            Content::alone(String::from_utf8_lossy(&bytes).into_owned())
        }))
    }

    fn replace(&self, path: &Path, document: &str) -> Result<(), PublishError> {
        let before = match fs::symlink_metadata(path) {
            Ok(before) if before.is_file() => Some(before),
            Ok(_) => {
                return Err(PublishError::failed(format!(
                    "the file {} is a symbolic link or a directory; remove it, or choose another path",
                    self.path
                )));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(self.failed("it cannot be looked at", &error)),
        };
        let new = beside(path, "new");
        let replaced =
            put(&new, document, before.as_ref()).and_then(|()| fs::rename(&new, path)).and_then(|()| {
                // The rename itself must outlast a loss of power.
                path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
            });
        replaced.map_err(|error| {
            // What is left is written over next time; the error is what counts.
            let _ = fs::remove_file(&new);
            self.failed("it cannot be replaced with its mode and owner kept; let the workers do that", &error)
        })
    }
}

/// Writes the new file whole, to the disk, as the old one is to others.
fn put(new: &Path, document: &str, before: Option<&Metadata>) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(document.as_bytes())?;
    let mode = before.map_or(MODE, |before| before.mode() & 0o7777);
    if let Some(before) = before {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A hidden file of ours beside the published one, which no target may be.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tuneloop-{what}"))
}

impl Place for FilePlace {
    type Held = FileLock;

    fn wanted(&self, payload: &Payload) -> Content {
        payload.alone()
    }

    async fn read(&self) -> Result<Found<FileLock>, PublishError> {
        let place = self.clone();
        blocking(move || {
            let held = place.lock()?;
            let content = place.load(&held.path)?;
            Ok(Found { content, changed_by: None, held })
        })
        .await
    }

    async fn write(
        &self,
        found: &Found<FileLock>,
        wanted: &Content,
        how: Writing,
    ) -> Result<(), PublishError> {
        if how.foreign && !how.overridden {
            return Err(PublishError::failed(format!(
                "the file {} holds what tuneloop did not write; move it away, or have it replaced: by POST …/publish once, \
                 by publication.correct_drift always",
                self.path
            )));
        }
        let (place, path) = (self.clone(), found.held.path.clone());
        let document = wanted.document().unwrap_or_default().to_owned();
        blocking(move || place.replace(&path, &document)).await
    }

    async fn read_back(&self) -> Result<Content, PublishError> {
        let place = self.clone();
        blocking(move || place.load(&place.resolve()?)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(PublishError::failed("writing the file stopped with an internal error")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const OURS: Writing = Writing { foreign: false, overridden: false };
    const FOREIGN: Writing = Writing { foreign: true, overridden: false };

    fn place(directory: &Path, path: &str) -> FilePlace {
        FilePlace::new(Some(directory), &FileTarget { path: path.into() }).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_replaced_whole_with_its_mode_kept_and_nothing_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "hook.json");
        let path = directory.path().join("hook.json");
        let found = place.read().await.unwrap();
        assert!(found.content.is_empty());
        place.write(&found, &Content::alone("one".into()), OURS).await.unwrap();
        drop(found);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let reader = File::open(&path).unwrap();
        // What a killed worker left.
        fs::write(beside(&path, "new"), "half").unwrap();
        let found = place.read().await.unwrap();
        assert_eq!(found.content.document(), Some("one"));
        place.write(&found, &Content::alone("two".into()), OURS).await.unwrap();
        assert_eq!(place.read_back().await.unwrap().document(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        let mut still = String::new();
        io::BufReader::new(reader).read_to_string(&mut still).unwrap();
        assert_eq!(still, "one", "whoever has the old file open reads on in it");
        assert_eq!(names(directory.path()), [".hook.json.tuneloop-lock", "hook.json"]);
    }

    #[tokio::test]
    async fn one_worker_at_a_time_writes_and_what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), "hook.json");
        let held = place.read().await.unwrap();
        let Err(error) = place.read().await else { panic!("two hold it") };
        assert!(error.to_string().contains("another worker"), "{error}");
        fs::write(directory.path().join("hook.json"), "mine").unwrap();
        let error = place.write(&held, &Content::alone("x".into()), FOREIGN).await.unwrap_err();
        assert!(error.to_string().contains("did not write"), "{error}");
        drop(held);
        assert_eq!(place.read().await.unwrap().content.document(), Some("mine"));
    }

    #[tokio::test]
    async fn no_link_leads_out_of_the_directory() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), directory.path().join("out")).unwrap();
        let Err(error) = place(directory.path(), "out/hook.json").read().await else {
            panic!("it leads out")
        };
        assert!(error.to_string().contains("leads out"), "{error}");
        let target = elsewhere.path().join("secret");
        fs::write(&target, "kept").unwrap();
        symlink(&target, directory.path().join("hook.json")).unwrap();
        let place = place(directory.path(), "hook.json");
        let found = place.read().await.unwrap();
        let error = place.write(&found, &Content::alone("x".into()), OURS).await.unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(target).unwrap(), "kept");
    }

    #[tokio::test]
    async fn without_a_directory_no_file_is_written_and_a_missing_one_is_told() {
        let target = FileTarget { path: "a/hook.json".into() };
        let error = FilePlace::new(None, &target).unwrap_err();
        assert!(error.to_string().contains("--publication-dir"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let Err(error) = place(directory.path(), "a/hook.json").read().await else {
            panic!("no such directory")
        };
        assert!(error.to_string().contains("make it"), "{error}");
    }
}
