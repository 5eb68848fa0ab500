//! A simulator whose clock stands still, called without a socket.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::clock::Clock;
use crate::simulator::{Settings, Simulator};

const BOUNDARY: &str = "part-of-a-form";

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The body of an answer that must be a success.
    pub(super) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// Status, `param` and `code` of an answer that must be an error.
    pub(super) fn error(&self) -> (u16, Value, Value) {
        let error = self.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "{}", self.text);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.text);
        (self.status.as_u16(), error["param"].clone(), error["code"].clone())
    }
}

pub(super) struct Harness {
    pub(super) simulator: Simulator,
    pub(super) clock: Clock,
    router: Router,
}

impl Harness {
    /// Jobs take 100 s.
    pub(super) fn new() -> Self {
        Self::with(Settings { training_time: Duration::from_secs(100), ..Settings::default() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH + TimeDelta::days(20_000), 7);
        let simulator = Simulator::new(settings, clock.clone());
        let router = simulator.router();
        Self { simulator, clock, router }
    }

    pub(super) fn pass(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, content_type, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(format!("/v1{path}")).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(format!("/v1{path}")).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Request::post(format!("/v1{path}")).body(Body::from(body.to_string())).unwrap()).await
    }

    pub(super) async fn upload(&self, fields: &[(&str, &str)]) -> Answer {
        let request = Request::post("/v1/files")
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(Body::from(form(fields)))
            .unwrap();
        self.send(request).await
    }

    /// Uploads a training file and gives its id.
    pub(super) async fn file(&self, content: &str) -> String {
        let answer = self.upload(&[("purpose", "fine-tune"), ("file", content)]).await.ok();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Creates a job on a file and gives its id.
    pub(super) async fn job(&self, file: &str) -> String {
        let body = json!({"model": "gpt-4o-2024-08-06", "training_file": file});
        self.post("/fine_tuning/jobs", &body).await.ok()["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn job_now(&self, id: &str) -> Value {
        self.get(&format!("/fine_tuning/jobs/{id}")).await.ok()
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let filename = if *name == "file" { "; filename=\"examples.jsonl\"" } else { "" };
        text += &[
            "--",
            BOUNDARY,
            "\r\nContent-Disposition: form-data; name=\"",
            name,
            "\"",
            filename,
            "\r\n\r\n",
            value,
            "\r\n",
        ]
        .concat();
    }
    text + "--" + BOUNDARY + "--\r\n"
}

/// A training file of so many examples, 3 + (4 + 2) + (4 + 3) = 16 tokens each.
pub(super) fn examples(count: usize) -> String {
    let line = json!({"messages": [
        {"role": "user", "content": "A topic"},
        {"role": "assistant", "content": "A good hook"},
    ]});
    format!("{line}\n").repeat(count)
}
