//! A client of the service's own REST API, with a key. The demo does through it what a user would do.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Secret;

/// The service answers from this machine; slower than this is not an answer.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// The API did not do what the demo asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the HTTP client of the demo cannot be made")]
    Setup(#[source] reqwest::Error),
    #[error("{method} {path} got no answer")]
    NoAnswer { method: Method, path: String, source: reqwest::Error },
    #[error("{method} {path} was answered {status}: {detail}")]
    Refused { method: Method, path: String, status: StatusCode, detail: String },
    #[error("the answer to {method} {path} cannot be read")]
    Unreadable { method: Method, path: String, source: serde_json::Error },
}

/// Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: Secret,
}

impl Client {
    /// A client of the service at `base`, such as `http://127.0.0.1:8080`.
    pub(super) fn new(base: String, key: Secret) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("tuneloop-demo/", env!("CARGO_PKG_VERSION")))
            .timeout(TIME_LIMIT)
            .no_proxy()
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, base, key })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// With `None` as its body, an action.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, body).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let no_answer =
            |source| ClientError::NoAnswer { method: method.clone(), path: path.to_owned(), source };
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method.clone(), url).bearer_auth(self.key.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(no_answer)?;
        if !status.is_success() {
            let detail = detail(&bytes);
            return Err(ClientError::Refused { method, path: path.to_owned(), status, detail });
        }
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Unreadable {
            method,
            path: path.to_owned(),
            source,
        })
    }
}

/// What a problem document says, or the answer itself where it is none.
fn detail(body: &[u8]) -> String {
    let problem = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let said = ["detail", "title"].into_iter().find_map(|field| problem.get(field)?.as_str());
    said.map_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_of_its_problem() {
        assert_eq!(
            detail(br#"{"title": "Conflict", "detail": "run 7 is in the way"}"#),
            "run 7 is in the way"
        );
        assert_eq!(detail(br#"{"title": "Conflict"}"#), "Conflict");
        assert_eq!(detail(b"bad gateway"), "bad gateway");
    }
}
