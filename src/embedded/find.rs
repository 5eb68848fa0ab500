//! Finds the server's programs on this machine: where the user says, or where systems keep them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::EmbeddedError;
use super::user::{self, Account};

/// The oldest major version whose SQL the migrations may use.
const OLDEST: u32 = 14;

/// A folder with a `postgres` and an `initdb` that run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    /// As the server prints it, `15.18`.
    pub(super) version: String,
    pub(super) major: u32,
}

/// The versions that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Any that is new enough.
    Supported,
    /// The one that made the data directory: files of one major version are closed to all others.
    Major(u32),
}

impl Wanted {
    fn accepts(self, major: u32) -> bool {
        match self {
            Self::Supported => major >= OLDEST,
            Self::Major(made_by) => major == made_by,
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Supported => write!(f, "PostgreSQL {OLDEST} or newer"),
            Self::Major(major) => write!(f, "PostgreSQL {major} (the version that made the data directory)"),
        }
    }
}

/// Folders of one packager, one per version: `PARENT/PREFIX<version>SUFFIX`.
#[derive(Clone, Debug)]
struct Family {
    parent: PathBuf,
    prefix: &'static str,
    suffix: &'static str,
}

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pg_config: OsString,
    path: OsString,
    families: Vec<Family>,
}

impl Places {
    /// The places of Debian, Red Hat, Alpine, Homebrew, `MacPorts`, `Postgres.app` and of a build from source.
    pub(super) fn of_this_system() -> Self {
        let families = [
            ("/usr/lib/postgresql", "", "bin"),
            ("/usr", "pgsql-", "bin"),
            ("/usr/libexec", "postgresql", ""),
            ("/opt/homebrew/opt", "postgresql@", "bin"),
            ("/opt/homebrew/opt", "postgresql", "bin"),
            ("/usr/local/opt", "postgresql@", "bin"),
            ("/usr/local/opt", "postgresql", "bin"),
            ("/opt/local/lib", "postgresql", "bin"),
            ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
            ("/usr/local", "pgsql", "bin"),
        ];
        Self {
            pg_config: "pg_config".into(),
            path: env::var_os("PATH").unwrap_or_default(),
            families: families
                .map(|(parent, prefix, suffix)| Family { parent: parent.into(), prefix, suffix })
                .into(),
        }
    }

    /// Nowhere at all: as on a machine without PostgreSQL.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { pg_config: "/nonexistent/pg_config".into(), path: OsString::new(), families: Vec::new() }
    }

    /// All folders that may hold a server, best first.
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        if let Ok(output) = user::command(&self.pg_config, None).arg("--bindir").output() {
            folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        folders.extend(env::split_paths(&self.path));
        folders.extend(self.families.iter().flat_map(Family::folders));
        folders.retain(|folder| folder.is_absolute());
        folders
    }
}

impl Family {
    /// The family's folders, newest version first.
    fn folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.parent) else { return Vec::new() };
        let mut found: Vec<(u32, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(self.prefix)?;
                let major = if version.is_empty() { Some(0) } else { leading_number(version) };
                Some((major?, entry.path().join(self.suffix)))
            })
            .collect();
        found.sort_by(|left, right| right.cmp(left));
        found.into_iter().map(|(_, folder)| folder).collect()
    }
}

/// The folder that the user named, or an error that says what is wrong with it.
pub(super) fn named(
    dir: &Path,
    wanted: Wanted,
    account: Option<&Account>,
) -> Result<Binaries, EmbeddedError> {
    inspect(dir, wanted, account)
        .map_err(|reason| EmbeddedError::UnfitBinaries { dir: dir.to_path_buf(), reason })
}

/// The first folder with a server that will do; else the servers that were passed over, with the reasons.
pub(super) fn search(
    places: &Places,
    wanted: Wanted,
    account: Option<&Account>,
) -> Result<Binaries, Vec<String>> {
    let mut passed_over = Vec::new();
    for folder in places.folders() {
        match inspect(&folder, wanted, account) {
            Ok(binaries) => return Ok(binaries),
            Err(reason) if folder.join("postgres").exists() => {
                let note = format!("{} {reason}", folder.display());
                if !passed_over.contains(&note) {
                    passed_over.push(note);
                }
            }
            Err(_) => {}
        }
    }
    Err(passed_over)
}

/// Looks into a folder; the error is the rest of a sentence that begins with the folder's name.
pub(super) fn inspect(dir: &Path, wanted: Wanted, account: Option<&Account>) -> Result<Binaries, String> {
    for program in ["postgres", "initdb"] {
        if !dir.join(program).is_file() {
            return Err(format!("has no `{program}`"));
        }
    }
    // A link in a folder of programs leads to the folder where the rest of the server is.
    let dir = fs::canonicalize(dir.join("postgres"))
        .ok()
        .and_then(|file| file.parent().map(Path::to_path_buf))
        .filter(|real| real.join("postgres").is_file() && real.join("initdb").is_file())
        .unwrap_or_else(|| dir.to_path_buf());
    let output = user::command(dir.join("postgres"), account).arg("--version").output().map_err(|error| {
        let who = account.map_or_else(String::new, |account| format!(" by the user `{}`", account.name));
        format!("has a `postgres` that cannot be run{who} ({error})")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (version, major) = parse_version(&text)
        .ok_or_else(|| format!("has a `postgres` that does not tell its version ({})", output.status))?;
    if !wanted.accepts(major) {
        return Err(format!("is PostgreSQL {major} where {wanted} is needed"));
    }
    Ok(Binaries { dir, version, major })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian …)`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    Some((version.to_owned(), leading_number(version)?))
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Makes `dir` look like a server's folder of programs.
    pub(crate) fn fake_server(dir: &Path, version: &str) {
        fs::create_dir_all(dir).unwrap();
        for program in ["postgres", "initdb"] {
            script(&dir.join(program), &format!("echo '{program} (PostgreSQL) {version}'"));
        }
    }

    fn script(file: &Path, body: &str) {
        fs::write(file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn readable_tempdir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn find(places: &Places, wanted: Wanted) -> Result<PathBuf, Vec<String>> {
        search(places, wanted, None).map(|binaries| binaries.dir)
    }

    #[test]
    fn versions_are_read_from_releases_and_previews() {
        let parse = |text: &str| parse_version(text).map(|(_, major)| major);
        assert_eq!(parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse("something else"), None);
    }

    #[test]
    fn pg_config_comes_first_then_path_then_the_newest_of_a_family() {
        let root = readable_tempdir();
        let root = fs::canonicalize(root.path()).unwrap();
        let folder = |name: &str| root.join(name).join("bin");
        for (name, version) in [("configured", "15.1"), ("path", "14.2"), ("9", "9.6.1"), ("16", "16.3")] {
            fake_server(&folder(name), version);
        }
        script(&root.join("pg_config"), &format!("echo {}", folder("configured").display()));
        let mut places = Places {
            pg_config: root.join("pg_config").into(),
            path: folder("path").into(),
            families: vec![Family { parent: root.clone(), prefix: "", suffix: "bin" }],
        };
        assert_eq!(find(&places, Wanted::Supported), Ok(folder("configured")));

        // Debian's pg_config without the server's package answers, but its folder has no server.
        fs::remove_file(folder("configured").join("initdb")).unwrap();
        assert_eq!(find(&places, Wanted::Supported), Ok(folder("path")));

        places.path = OsString::new();
        assert_eq!(find(&places, Wanted::Supported), Ok(folder("16")), "16 is newer than 9");

        fs::remove_dir_all(folder("16")).unwrap();
        let passed_over = find(&places, Wanted::Supported).unwrap_err();
        assert!(
            passed_over
                .iter()
                .any(|note| note.ends_with("is PostgreSQL 9 where PostgreSQL 14 or newer is needed")),
            "{passed_over:?}"
        );
    }

    #[test]
    fn a_data_directory_gets_the_version_that_made_it() {
        let root = readable_tempdir();
        let root = fs::canonicalize(root.path()).unwrap();
        fake_server(&root.join("17/bin"), "17.6");
        fake_server(&root.join("15/bin"), "15.1");
        let mut places = Places::nowhere();
        places.families = vec![Family { parent: root.clone(), prefix: "", suffix: "bin" }];
        assert_eq!(find(&places, Wanted::Supported), Ok(root.join("17/bin")));
        assert_eq!(find(&places, Wanted::Major(15)), Ok(root.join("15/bin")));
        assert!(find(&places, Wanted::Major(16)).is_err());
    }

    #[test]
    fn a_link_leads_to_the_servers_own_folder() {
        let root = readable_tempdir();
        let root = fs::canonicalize(root.path()).unwrap();
        fake_server(&root.join("real"), "16.1");
        fs::create_dir(root.join("links")).unwrap();
        for program in ["postgres", "initdb"] {
            std::os::unix::fs::symlink(root.join("real").join(program), root.join("links").join(program))
                .unwrap();
        }
        let found = named(&root.join("links"), Wanted::Supported, None).unwrap();
        assert_eq!(found.dir, root.join("real"));
    }

    #[test]
    fn a_named_folder_without_a_server_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let message = named(dir.path(), Wanted::Supported, None).unwrap_err().to_string();
        assert!(message.contains("--postgres-bin") && message.contains("has no `postgres`"), "{message}");
        fake_server(dir.path(), "13.2");
        let message = named(dir.path(), Wanted::Supported, None).unwrap_err().to_string();
        assert!(message.contains("is PostgreSQL 13 where PostgreSQL 14 or newer is needed"), "{message}");
    }

    #[test]
    fn a_server_that_the_account_cannot_reach_is_passed_over() {
        if let Some(account) = Account::for_server().unwrap() {
            let closed = tempfile::tempdir().unwrap();
            fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
            fake_server(&closed.path().join("bin"), "16.1");
            let reason = inspect(&closed.path().join("bin"), Wanted::Supported, Some(&account)).unwrap_err();
            assert!(reason.contains(&format!("by the user `{}`", account.name)), "{reason}");
        }
    }
}
