//! An application that is called, and keeps what it gets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tuneloop::clock::Clock;
use tuneloop::standard_webhooks::{Notice, WebhookSecret};

/// What the application and the service share.
pub(crate) const SECRET: &str = "whsec_YW4gYXBwbGljYXRpb24=";

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) document: Value,
    /// Whether the signature is right; `None` without one.
    pub(crate) signed: Option<bool>,
}

#[derive(Clone)]
pub(crate) struct Application {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Application {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/traffic", listener.local_addr().unwrap());
        let application = Self { url, calls: Arc::default(), answers: Arc::default() };
        let router = Router::new().route("/traffic", post(receive)).with_state(application.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        application
    }

    /// Answers the next calls with these, and with 204 after them.
    pub(crate) fn answer(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn receive(State(application): State<Application>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let id = header("webhook-id").unwrap();
    let signed = header("webhook-signature").map(|signature| {
        let timestamp = header("webhook-timestamp").unwrap();
        let notice = Notice { id, timestamp, signature, body: &body };
        WebhookSecret::new(SECRET).unwrap().verify(notice, Clock::system().now()).is_ok()
    });
    let call = Call { id: id.to_owned(), document: serde_json::from_slice(&body).unwrap(), signed };
    application.calls.lock().unwrap().push(call);
    let status = application.answers.lock().unwrap().pop_front().unwrap_or(204);
    StatusCode::from_u16(status).unwrap()
}
