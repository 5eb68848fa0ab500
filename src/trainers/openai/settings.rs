//! What a connection to OpenAI, or to a service that speaks its protocol, is made from.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use thiserror::Error;

use crate::outbound::CircuitBreaker;

/// OpenAI's own address.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// A secret key. Its debug output does not show it, and it has no other output.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key, without the white space that files and variables tend to add around it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().to_owned())
    }

    /// The key itself, for the request's header.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// How to reach the provider.
#[derive(Debug, Clone)]
pub struct OpenAiSettings {
    /// The address in front of `/files` and `/fine_tuning/jobs`, such as [`OPENAI_BASE_URL`].
    pub base_url: String,
    /// The key that is sent with each request.
    pub api_key: ApiKey,
    /// The longest time to establish a connection.
    pub connect_timeout: Duration,
    /// The longest time for a request with its answer.
    pub total_timeout: Duration,
    /// The same for the upload of a file, whose size decides.
    pub upload_timeout: Duration,
    /// Keeps calls from a service that fails; one of its own where absent.
    pub breaker: Option<CircuitBreaker>,
}

impl OpenAiSettings {
    /// Settings with time limits that suit OpenAI: 10 seconds to connect, 60 per request, 10 minutes per
    /// upload (512 MB, the largest file it takes, at 1 MB/s would need 9).
    pub fn new(base_url: impl Into<String>, api_key: ApiKey) -> Self {
        Self {
            base_url: base_url.into(),
            api_key,
            connect_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_mins(1),
            upload_timeout: Duration::from_mins(10),
            breaker: None,
        }
    }

    /// The base URL without a slash at its end.
    pub(super) fn checked_base_url(&self) -> Result<Url, OpenAiSettingsError> {
        let refuse = |why| Err(OpenAiSettingsError::BaseUrl { why });
        let Ok(url) = Url::parse(self.base_url.trim().trim_end_matches('/')) else {
            return refuse("it is not a URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it does not start with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it contains a user or password; the key belongs in OPENAI_API_KEY");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("it contains ? or #");
        }
        Ok(url)
    }

    pub(super) fn checked_api_key(&self) -> Result<&str, OpenAiSettingsError> {
        let key = self.api_key.expose();
        let valid = !key.is_empty() && HeaderValue::from_str(key).is_ok();
        valid.then_some(key).ok_or(OpenAiSettingsError::ApiKey)
    }
}

/// Settings that cannot work, in one sentence that names the variable to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenAiSettingsError {
    /// The base URL cannot be used. The URL itself is not shown, since it may contain a password.
    #[error("OPENAI_BASE_URL cannot be used: {why}; it accepts an address such as {OPENAI_BASE_URL}.")]
    BaseUrl {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key cannot be sent.
    #[error("OPENAI_API_KEY is empty or contains characters that no key has; set it to the provider's key.")]
    ApiKey,
    /// TLS or the system's resolver could not be set up.
    #[error("The HTTP client for OpenAI could not be made: {0}.")]
    HttpClient(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_url(url: &str) -> Result<String, String> {
        let settings = OpenAiSettings::new(url, ApiKey::new("sk-secret"));
        settings.checked_base_url().map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn base_urls_lose_their_last_slash() {
        assert_eq!(base_url("https://api.openai.com/v1/").as_deref(), Ok("https://api.openai.com/v1"));
        assert_eq!(base_url(" http://127.0.0.1:9/v1\n").as_deref(), Ok("http://127.0.0.1:9/v1"));
    }

    #[test]
    fn base_urls_that_cannot_work_are_refused_without_showing_their_secrets() {
        for url in ["", "api.openai.com/v1", "ftp://host/v1", "https://host/v1?key=hunter2"] {
            let error = base_url(url).expect_err(url);
            assert!(error.contains("OPENAI_BASE_URL") && !error.contains("hunter2"), "{error}");
        }
        let error = base_url("https://user:hunter2@host/v1").expect_err("it has a password");
        assert!(error.contains("OPENAI_API_KEY") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn keys_are_trimmed_and_checked_before_they_reach_a_header() {
        let check = |key: &str| {
            let settings = OpenAiSettings::new(OPENAI_BASE_URL, ApiKey::new(key));
            settings.checked_api_key().map(str::to_owned)
        };
        assert_eq!(check("sk-secret\n").as_deref(), Ok("sk-secret"));
        for key in ["", "  ", "sk-\nsecret"] {
            assert_eq!(check(key), Err(OpenAiSettingsError::ApiKey));
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        let shown = format!("{:?}", OpenAiSettings::new(OPENAI_BASE_URL, ApiKey::new("sk-secret")));
        assert!(shown.contains("redacted") && !shown.contains("sk-secret"), "{shown}");
    }
}
