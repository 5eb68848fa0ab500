//! What a connection to OpenAI, or to a service that speaks its protocol, is made from.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use thiserror::Error;

use super::dialect::Dialect;
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
    /// Which service it is.
    pub dialect: Dialect,
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
            dialect: Dialect::OpenAi,
            base_url: base_url.into(),
            api_key,
            connect_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_mins(1),
            upload_timeout: Duration::from_mins(10),
            breaker: None,
        }
    }

    /// Settings for an Azure OpenAI resource, with the same time limits. The endpoint is the resource's address,
    /// with or without the `/openai/v1` that its portal shows behind it.
    #[must_use]
    pub fn azure(endpoint: &str, api_key: ApiKey) -> Self {
        let endpoint = endpoint.trim().trim_end_matches('/').trim_end_matches("/openai/v1");
        Self { dialect: Dialect::Azure, ..Self::new(format!("{endpoint}/openai/v1"), api_key) }
    }

    /// The base URL without a slash at its end.
    pub(super) fn checked_base_url(&self) -> Result<Url, OpenAiSettingsError> {
        let (variable, example) = (self.dialect.address_variable(), self.dialect.example_address());
        let refuse = |why| Err(OpenAiSettingsError::BaseUrl { variable, why, example });
        let Ok(url) = Url::parse(self.base_url.trim().trim_end_matches('/')) else {
            return refuse("it is not a URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("it does not start with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it contains a user or password; the key belongs in a variable of its own");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("it contains ? or #");
        }
        Ok(url)
    }

    pub(super) fn check_api_key(&self) -> Result<(), OpenAiSettingsError> {
        let key = self.api_key.expose();
        let valid = !key.is_empty() && HeaderValue::from_str(key).is_ok();
        let variable = self.dialect.key_variable();
        if valid { Ok(()) } else { Err(OpenAiSettingsError::ApiKey { variable }) }
    }
}

/// Settings that cannot work, in one sentence that names the variable to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenAiSettingsError {
    /// The base URL cannot be used. The URL itself is not shown, since it may contain a password.
    #[error("{variable} cannot be used: {why}; it accepts an address such as {example}.")]
    BaseUrl {
        /// The variable that holds it.
        variable: &'static str,
        /// What is wrong with it.
        why: &'static str,
        /// An address that can be.
        example: &'static str,
    },
    /// The key cannot be sent.
    #[error("{variable} is empty or contains characters that no key has; set it to the provider's key.")]
    ApiKey {
        /// The variable that holds it.
        variable: &'static str,
    },
    /// TLS or the system's resolver could not be set up.
    #[error("The HTTP client for the provider could not be made: {0}.")]
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
        assert!(error.contains("OPENAI_BASE_URL") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn keys_are_trimmed_and_checked_before_they_reach_a_header() {
        let check = |key: &str| {
            let settings = OpenAiSettings::new(OPENAI_BASE_URL, ApiKey::new(key));
            settings.check_api_key().map(|()| settings.api_key.expose().to_owned())
        };
        assert_eq!(check("sk-secret\n").as_deref(), Ok("sk-secret"));
        for key in ["", "  ", "sk-\nsecret"] {
            assert_eq!(check(key), Err(OpenAiSettingsError::ApiKey { variable: "OPENAI_API_KEY" }));
        }
    }

    #[test]
    fn azure_is_reached_below_its_endpoint_and_names_its_own_variables() {
        for endpoint in ["https://name.openai.azure.com", "https://name.openai.azure.com/openai/v1/"] {
            let settings = OpenAiSettings::azure(endpoint, ApiKey::new("secret"));
            let url = settings.checked_base_url().map(String::from);
            assert_eq!(url.as_deref(), Ok("https://name.openai.azure.com/openai/v1"));
        }
        let settings = OpenAiSettings::azure("name", ApiKey::new(" "));
        let errors = [settings.checked_base_url().map(drop), settings.check_api_key()];
        for (error, variable) in errors.into_iter().zip(["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"]) {
            let error = error.expect_err(variable).to_string();
            assert!(error.starts_with(variable) && !error.contains(" OPENAI"), "{error}");
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        let shown = format!("{:?}", OpenAiSettings::new(OPENAI_BASE_URL, ApiKey::new("sk-secret")));
        assert!(shown.contains("redacted") && !shown.contains("sk-secret"), "{shown}");
    }
}
