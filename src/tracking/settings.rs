//! Which MLflow server, and who we are to it.

use std::time::Duration;

use reqwest::Url;

use crate::config::Secret;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is told of runs and versions.
#[derive(Clone, Debug)]
pub struct MlflowSettings {
    /// Its address, with the path that stands in front of MLflow's own.
    pub url: Url,
    /// How calls are authenticated.
    pub access: MlflowAccess,
    /// How long one call may take.
    pub timeout: Duration,
    /// After an unanswered create, how long what it may have made is looked for before it is sent again.
    pub settle: Duration,
}

impl MlflowSettings {
    /// The server at `url`, with the usual times.
    #[must_use]
    pub fn new(url: Url, access: MlflowAccess) -> Self {
        Self { url, access, timeout: Duration::from_secs(30), settle: Duration::from_mins(1) }
    }

    pub(super) const fn connect_timeout() -> Duration {
        CONNECT_TIMEOUT
    }
}

/// How calls are authenticated.
#[derive(Clone, Debug)]
pub enum MlflowAccess {
    /// Not at all.
    Open,
    /// By user and password.
    Password(String, Secret),
    /// By a bearer token.
    Token(Secret),
}
