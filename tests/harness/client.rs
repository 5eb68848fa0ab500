//! A client of the REST API, as an application would write it.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Calls the API with one key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Client {
    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn new(base: String, key: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("makes a client");
        Self { http, base, key }
    }

    /// The same service, called with another key.
    pub(crate) fn with_key(&self, key: String) -> Self {
        Self { key, ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send(Method::PUT, path, headers, Some(body)).await
    }

    /// The body of a successful `GET`.
    pub(crate) async fn read(&self, path: &str) -> Value {
        self.get(path).await.expect(200)
    }

    /// The body of a successful `GET` as text, read to its end.
    pub(crate) async fn text(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let response = self.request(Method::GET, path, headers).send().await.expect("the service answers");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.expect("the answer ends")
    }

    /// A request; a body of `null` is no body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.request(method, path, headers);
        if let Some(body) = body.filter(|body| !body.is_null()) {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        answer(path, request).await
    }

    /// A `POST` whose body is sent as it is.
    pub(crate) async fn send_bytes(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        answer(path, self.request(Method::POST, path, headers).body(body)).await
    }

    fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }
}

async fn answer(path: &str, request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("the service answers");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("the answer ends");
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} answered {text}"))
    };
    Answer { status, headers, body }
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The problem of an answer that must have this status and type.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, kind: &str) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["type"], format!("urn:tuneloop:problem:{kind}"), "{}", self.body);
        self.expect(status)
    }

    /// A header that must be there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("a header in ASCII")
    }
}
