//! The way a request travels: once, unless it only reads, with a time limit, and with everything its failure can tell kept.
//!
//! async-openai's own way retries POST, drops `Retry-After`, and writes bodies that it cannot read to the
//! log. This service takes its place: it reads the answer itself and hands on only a success with JSON.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use axum::http;
use reqwest::{Method, Response, StatusCode};
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

use super::content::ContentFault;
use super::dialect::Dialect;
use super::settings::ApiKey;
use crate::causes;
use crate::clock::Clock;
use crate::outbound::{CircuitBreaker, retry_after};

/// The largest answer that is read: a page of 1,000 jobs takes about 2 MB.
const LARGEST_ANSWER: usize = 32 << 20;
/// So often a read is sent.
const READS: u32 = 3;
/// The wait before it is sent again, longer each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Who asks to wait longer is left to the caller, who has other things to do.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// What stands in the place of a key.
const REDACTED: &str = "[redacted]";
/// The longest message of the provider that is kept, in characters.
const LONGEST_MESSAGE: usize = 300;

/// How a request failed, before the operation gives it a meaning.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Nothing was sent.
    #[error("no connection could be made: {0}")]
    NotSent(String),
    /// Sent in part, because our own content ended in an error: the provider cannot have taken it.
    #[error("the file could not be read to its end: {0}")]
    Content(String),
    /// Sent, at least in part, and no answer came.
    #[error("no answer came: {0}")]
    NoAnswer(String),
    /// Answered with success, but in a form that cannot be read.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
    /// Nothing was sent, because the service has failed too often: the time until it is tried again.
    #[error("the provider has failed too often; it is tried again in {} s", .0.as_secs())]
    Suspended(Duration),
    /// Answered with something other than success.
    #[error("the provider answered {}", .0.status)]
    Refused(Refusal),
}

/// An answer other than success.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Who refused.
    pub(super) dialect: Dialect,
    pub(super) status: StatusCode,
    /// The fields of the protocol's error object; `None` when the body has none.
    pub(super) error: Option<ErrorObject>,
    pub(super) retry_after: Option<Duration>,
}

/// `{"error": {"message", "type", "code", "param"}}`, each part as far as it is there.
#[derive(Debug, Default)]
pub(super) struct ErrorObject {
    pub(super) message: String,
    pub(super) kind: String,
    pub(super) code: String,
    pub(super) param: String,
}

/// The HTTP service behind async-openai's client.
#[derive(Clone)]
pub(super) struct Transport {
    pub(super) client: reqwest::Client,
    /// The limit for sending the request and reading the whole answer.
    pub(super) timeout: Duration,
    pub(super) dialect: Dialect,
    pub(super) api_key: ApiKey,
    pub(super) clock: Clock,
    pub(super) breaker: CircuitBreaker,
}

impl tower::Service<HttpRequestFactory> for Transport {
    type Response = Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let transport = self.clone();
        Box::pin(async move { transport.send(request).await })
    }
}

impl Transport {
    /// Sends a request; one that only reads is sent again where that may help and the time limit allows.
    async fn send(&self, factory: HttpRequestFactory) -> Result<Response, Failure> {
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            let request = factory.build().await.map_err(|error| Failure::NotSent(error.to_string()))?;
            let reads = request.method() == Method::GET;
            let left = self.timeout.saturating_sub(begun.elapsed());
            let failure = match self.execute(request, left, &ContentFault::default()).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if !(failure.may_pass() && reads && tries < READS) {
                return Err(failure);
            }
            let wait = failure.retry_after().unwrap_or(FIRST_WAIT * tries);
            if wait > LONGEST_WAIT {
                return Err(failure);
            }
            let wait = wait.mul_f64(1.0 + self.clock.fraction());
            if begun.elapsed() + wait >= self.timeout {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// Sends a request once and reads its answer, within a time limit. What goes wrong once the request's own
    /// content has failed says nothing of the provider.
    pub(super) async fn execute(
        &self,
        mut request: reqwest::Request,
        limit: Duration,
        content: &ContentFault,
    ) -> Result<Response, Failure> {
        let authorized = self.dialect.authorize(request.headers_mut(), &self.api_key);
        authorized.map_err(|error| Failure::NotSent(error.to_string()))?;
        *request.timeout_mut() = Some(limit);
        let permit = self.breaker.admit().map_err(Failure::Suspended)?;
        let answer = self.exchange(request).await;
        if let (Err(_), Some(why)) = (&answer, content.get()) {
            return Err(Failure::Content(why.to_owned()));
        }
        match &answer {
            Err(Failure::NotSent(_) | Failure::NoAnswer(_)) => permit.failed(),
            Err(Failure::Refused(refusal)) if refusal.status.is_server_error() => permit.failed(),
            _ => permit.succeeded(),
        }
        answer
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<Response, Failure> {
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.map_err(failure)?;
        let status = response.status();
        let request_id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        tracing::debug!(%method, path, status = status.as_u16(), request_id, "the provider answered");
        let retry_after = retry_after(response.headers(), &self.clock);
        let body = read(response).await;
        if !status.is_success() {
            // A refusal whose body is lost is still a refusal.
            let error = body.ok().and_then(|body| error_object(&body, &self.api_key));
            return Err(Failure::Refused(Refusal { dialect: self.dialect, status, error, retry_after }));
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Response::from(http::Response::new("null")));
        }
        let body = body?;
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(&body) {
            return Err(Failure::Malformed(format!("it is not JSON ({error})")));
        }
        Ok(Response::from(http::Response::new(body)))
    }
}

impl Failure {
    /// Whether the same request may succeed in a moment.
    fn may_pass(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::NoAnswer(_) | Self::Malformed(_) => true,
            Self::Refused(refusal) => {
                refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Suspended(_) | Self::Content(_) => false,
        }
    }

    /// The wait that the provider asked for.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// async-openai hands errors of its service through in a box; [`Failure::from`] takes them out again.
impl From<Failure> for OpenAIError {
    fn from(failure: Failure) -> Self {
        Self::Boxed(Box::new(failure))
    }
}

impl From<OpenAIError> for Failure {
    fn from(error: OpenAIError) -> Self {
        match error {
            OpenAIError::Boxed(boxed) => match boxed.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(other) => Self::NoAnswer(other.to_string()),
            },
            OpenAIError::InvalidArgument(why) | OpenAIError::FileReadError(why) => Self::NotSent(why),
            OpenAIError::JSONDeserialize(error, _content) => Self::Malformed(error.to_string()),
            OpenAIError::Reqwest(error) => failure(error),
            other => Self::NoAnswer(other.to_string()),
        }
    }
}

/// Only a connection that was never made is certain not to have carried the request.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let why = causes::last(&error);
    match (error.is_connect() || error.is_builder(), error.is_timeout()) {
        (true, true) => Failure::NotSent("connecting took too long".to_owned()),
        (true, false) => Failure::NotSent(why),
        (false, true) => Failure::NoAnswer("the time limit passed".to_owned()),
        (false, false) => Failure::NoAnswer(why),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Failure::Malformed(format!("it is larger than {LARGEST_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn error_object(body: &[u8], key: &ApiKey) -> Option<ErrorObject> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error").filter(|error| !error.is_null())?;
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    // The key may be repeated anywhere.
    Some(ErrorObject {
        message: presentable(error.as_str().unwrap_or_else(|| text("message")), key),
        kind: presentable(text("type"), key),
        code: presentable(text("code"), key),
        param: presentable(text("param"), key),
    })
}

/// One line, not too long, without a trailing stop, and without the key should the provider repeat it.
fn presentable(message: &str, key: &ApiKey) -> String {
    let line = redacted(message, key).replace(char::is_control, " ");
    let line: String = line.trim().trim_end_matches('.').chars().take(LONGEST_MESSAGE).collect();
    line
}

/// A text of the provider without our key, and without what looks like anybody's: `sk-` and a long word.
pub(super) fn redacted(text: &str, key: &ApiKey) -> String {
    const SHORTEST: usize = 20;
    let text = text.replace(key.expose(), REDACTED);
    let is_inner = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let mut rest = text.as_str();
    let mut kept = String::with_capacity(text.len());
    while let Some(at) = rest.find("sk-") {
        let (before, from) = rest.split_at(at);
        let word = &from[..from.find(|letter| !is_inner(letter)).unwrap_or(from.len())];
        let begins = !before.ends_with(is_inner);
        kept.push_str(before);
        kept.push_str(if begins && word.len() >= SHORTEST { REDACTED } else { word });
        rest = &from[word.len()..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_out_of_every_field_and_words_that_only_look_alike_stay() {
        let key = ApiKey::new("sk-secret");
        let body = r#"{"error": {"message": "m sk-secret", "code": "c sk-secret", "type": "t sk-secret", "param": "p sk-secret"}}"#;
        let error = error_object(body.as_bytes(), &key).expect("an error");
        let fields = [&error.message, &error.code, &error.kind, &error.param];
        assert_eq!(fields, ["m [redacted]", "c [redacted]", "t [redacted]", "p [redacted]"]);
        let other = "key 'sk-proj-0123456789abcdefABCDEF', sk-sk-";
        assert_eq!(redacted(other, &key), "key '[redacted]', sk-sk-");
        for harmless in
            ["", "a risk-averse-and-very-long-sentence", "sk-short", "task-0123456789abcdefghij ü"]
        {
            assert_eq!(redacted(harmless, &key), harmless);
        }
    }

    #[test]
    fn error_objects_are_read_as_far_as_they_go() {
        let key = ApiKey::new("sk-secret");
        let read = |body: &str| error_object(body.as_bytes(), &key);
        assert!(read("<html>").is_none() && read("{}").is_none() && read(r#"{"error": null}"#).is_none());
        assert_eq!(read(r#"{"error": "no"}"#).expect("an error").message, "no");
        let error = read(r#"{"error": {"message": "Bad\nkey sk-secret.", "code": 7, "param": "model"}}"#);
        let error = error.expect("an error");
        assert_eq!((error.message.as_str(), error.param.as_str()), ("Bad key [redacted]", "model"));
        assert_eq!(error.code, "");
    }
}
