//! How settings are read from text. Each parser's error says what the setting accepts, as the end of the
//! sentence "it takes …"; `commands::parse` puts the setting's name and value in front of it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use crate::standard_webhooks::{WebhookSecret, WebhookSecretError};

/// A value that must not appear in logs, such as a key or a URL with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a process does. At least one is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Answers HTTP requests of `/v1`.
    pub api: bool,
    /// Claims jobs and advances runs.
    pub worker: bool,
    /// Turns pipelines' schedules into runs.
    pub scheduler: bool,
}

impl FromStr for Roles {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ACCEPTED: &str = "one or more of api, worker and scheduler, separated by commas";
        let mut roles = Self { api: false, worker: false, scheduler: false };
        for name in text.split(',') {
            match name.trim() {
                "api" => roles.api = true,
                "worker" => roles.worker = true,
                "scheduler" => roles.scheduler = true,
                _ => return Err(ACCEPTED),
            }
        }
        Ok(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.api, "api"), (self.worker, "worker"), (self.scheduler, "scheduler")];
        let names: Vec<_> = all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        f.write_str(&names.join(","))
    }
}

/// A whole number within `range`.
pub(super) fn whole(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| match range.end() {
            &u32::MAX => format!("a whole number of at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        })
    }
}

/// Whole seconds within `range`.
pub(super) fn seconds(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let whole = whole(range);
    move |text| whole(text).map(|number| Duration::from_secs(number.into()))
}

/// Whole milliseconds within `range`.
pub(super) fn milliseconds(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let whole = whole(range);
    move |text| whole(text).map(|number| Duration::from_millis(number.into()))
}

/// An engagement threshold: a rate such as 0.06, or a score such as 50.
pub(super) fn threshold(text: &str) -> Result<f64, &'static str> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or("a number of at least 0, such as 0.06")
}

/// A provider's name of a model.
pub(super) fn model(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("the name of a provider's model, such as gpt-4o, without spaces");
    }
    Ok(text.to_owned())
}

/// A provider's key, as it is sent in a header.
pub(super) fn api_key(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a provider's key: visible ASCII characters, without spaces or line ends");
    }
    Ok(Secret::new(text))
}

/// A password.
pub(super) fn password(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() { Err("a password that is not empty") } else { Ok(Secret::new(text)) }
}

/// What a provider signs its webhooks with.
pub(super) fn webhook_secret(text: &str) -> Result<WebhookSecret, WebhookSecretError> {
    WebhookSecret::new(text)
}

/// The URL of a Postgres database. It is a secret because it may carry a password.
pub(super) fn database_url(text: &str) -> Result<Secret, &'static str> {
    let is_postgres = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    if !is_postgres || PgConnectOptions::from_str(text).is_err() {
        return Err("the URL of a Postgres database, such as postgres://user@host/database");
    }
    Ok(Secret::new(text))
}

/// The base of an HTTP interface, to which paths are appended: kept without a slash at its end.
pub(super) fn base_url(text: &str) -> Result<String, &'static str> {
    const ACCEPTED: &str = "an http or https URL without query, such as https://host.example/v1";
    let url = http_url(text).map_err(|_| ACCEPTED)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ACCEPTED);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// An http or https URL.
pub(super) fn http_url(text: &str) -> Result<Url, &'static str> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or("an http or https URL, such as http://localhost:5000")
}

/// The URL of an MLflow server. A password in it would be shown in logs and in lists of processes.
pub(super) fn tracking_url(text: &str) -> Result<Url, &'static str> {
    const ACCEPTED: &str =
        "an http or https URL, such as http://localhost:5000, without user, password or query";
    let url = http_url(text)?;
    let bare = url.username().is_empty() && url.password().is_none();
    if bare && url.query().is_none() && url.fragment().is_none() { Ok(url) } else { Err(ACCEPTED) }
}

/// The URL of a collector that speaks OTLP over gRPC.
pub(super) fn otlp_endpoint(text: &str) -> Result<Url, &'static str> {
    http_url(text)
        .map_err(|_| "the http or https URL of an OTLP gRPC collector, such as http://localhost:4317")
}

/// An address to listen at.
///
/// # Errors
///
/// What is accepted, as the end of the sentence "it takes …".
pub fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080")
}

/// Where datasets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory.
    Directory(PathBuf),
    /// Objects of an S3-compatible bucket whose names begin with a prefix, which may be empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix, without a slash at either end.
        prefix: String,
    },
}

/// A directory, given as its path or as a `file://` URL, or a bucket as `s3://bucket/prefix`.
pub(super) fn store_location(text: &str) -> Result<StoreLocation, &'static str> {
    const ACCEPTED: &str =
        "the path of a directory, its file:// URL with an absolute path, or a bucket as s3://bucket/prefix";
    if text.is_empty() {
        return Err(ACCEPTED);
    }
    if !text.contains("://") {
        return Ok(StoreLocation::Directory(PathBuf::from(text)));
    }
    let url = Url::parse(text).map_err(|_| ACCEPTED)?;
    if url.scheme() == "file" {
        return url.to_file_path().map(StoreLocation::Directory).map_err(|()| ACCEPTED);
    }
    // Keys do not belong here: the URL is shown in logs and in lists of processes.
    let bare = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    let bare = bare && url.query().is_none() && url.fragment().is_none();
    match url.host_str() {
        Some(bucket) if url.scheme() == "s3" && bare => Ok(StoreLocation::S3 {
            bucket: bucket.to_owned(),
            prefix: url.path().trim_matches('/').to_owned(),
        }),
        _ => Err(ACCEPTED),
    }
}

/// Directives that say which log events are written.
pub(super) fn log_filter(text: &str) -> Result<String, &'static str> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|_| "log directives, such as info or info,tuneloop=debug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Some(Secret::new("sk-1"))), "Some(Secret(…))");
    }

    #[test]
    fn roles_are_a_set_with_at_least_one_member() {
        let some: Roles = "worker, api,worker".parse().unwrap();
        assert_eq!(some, Roles { api: true, worker: true, scheduler: false });
        assert_eq!(some.to_string(), "api,worker");
        for bad in ["", ",", "api,", "apis", "API"] {
            assert!(bad.parse::<Roles>().unwrap_err().contains("api, worker and scheduler"), "{bad}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        let slots = whole(1..=64);
        assert_eq!(slots("64"), Ok(64));
        for bad in ["0", "65", "-1", "1.5", "", " 1", "99999999999"] {
            assert_eq!(slots(bad), Err("a whole number from 1 to 64".to_owned()), "{bad}");
        }
        assert_eq!(whole(10..=u32::MAX)("9"), Err("a whole number of at least 10".to_owned()));
        assert_eq!(milliseconds(1..=9)("7"), Ok(Duration::from_millis(7)));
        assert_eq!(seconds(1..=9)("7"), Ok(Duration::from_secs(7)));
    }

    #[test]
    fn a_threshold_is_a_rate_or_a_score() {
        assert_eq!(threshold("0.06"), Ok(0.06));
        assert_eq!(threshold("50"), Ok(50.0));
        assert_eq!(threshold("0"), Ok(0.0));
        for bad in ["-0.1", "NaN", "inf", "6%", ""] {
            assert!(threshold(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_url_names_postgres() {
        assert!(database_url("postgres://me:pw@localhost:5433/shop").is_ok());
        assert!(database_url("postgresql:///shop?host=/run/postgresql").is_ok());
        for bad in ["", "shop", "mysql://localhost/shop", "postgres://localhost:port/shop"] {
            assert!(database_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_url_ends_without_a_slash() {
        assert_eq!(base_url("https://api.openai.com/v1/").unwrap(), "https://api.openai.com/v1");
        assert_eq!(base_url("http://localhost:9000").unwrap(), "http://localhost:9000");
        for bad in
            ["api.openai.com/v1", "ftp://host/v1", "https://host/v1?a=1", "https://host/#x", "localhost:1"]
        {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn datasets_are_kept_in_a_directory_or_a_bucket() {
        let directory = |path: &str| Ok(StoreLocation::Directory(PathBuf::from(path)));
        assert_eq!(store_location("./data/datasets"), directory("./data/datasets"));
        assert_eq!(store_location("file:///var/lib/t%20l"), directory("/var/lib/t l"));
        let bucket = |prefix: &str| Ok(StoreLocation::S3 { bucket: "shop".into(), prefix: prefix.into() });
        assert_eq!(store_location("s3://shop"), bucket(""));
        assert_eq!(store_location("s3://shop/train/sets/"), bucket("train/sets"));
        for bad in
            ["", "file://host/share", "gs://bucket", "s3://", "s3://key:secret@shop/x", "s3://shop?region=x"]
        {
            assert!(store_location(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_can_be_sent_in_a_header() {
        assert!(api_key("sk-proj-1_2").is_ok());
        for bad in ["", "sk 1", "sk-1\n", "schlüssel"] {
            assert!(api_key(bad).is_err(), "{bad:?}");
        }
    }
}
