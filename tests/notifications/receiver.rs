//! An application that takes webhooks: keeps what arrives, and answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tuneloop::clock::Clock;
use tuneloop::standard_webhooks::{NotSigned, Notice, WebhookSecret};

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Verifies as a receiver would, with the code that verifies the notices of providers.
    pub(crate) fn verify(&self, secret: &str) -> Result<(), NotSigned> {
        let notice = Notice {
            id: self.header("webhook-id"),
            timestamp: self.header("webhook-timestamp"),
            signature: self.header("webhook-signature"),
            body: &self.body,
        };
        WebhookSecret::new(secret).unwrap().verify(notice, Clock::system().now())
    }
}

#[derive(Default)]
struct Script {
    arrived: Mutex<Vec<Arrived>>,
    answers: Mutex<VecDeque<u16>>,
    /// Where set, an answer takes a permit.
    gate: Mutex<Option<Arc<Semaphore>>>,
}

pub(crate) struct Receiver {
    script: Arc<Script>,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::serve(Arc::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn serve(script: Arc<Script>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/{*path}", post(take)).with_state(script.clone());
        let serving = tokio::spawn({
            let stop = stop.clone();
            // Dropped whole: connections are cut, as when a process is killed.
            async move {
                stop.run_until_cancelled(axum::serve(listener, router).into_future()).await;
            }
        });
        Self { script, address, stop, serving }
    }

    /// Nothing listens at the address any more.
    pub(crate) async fn kill(self) -> Dead {
        self.stop.cancel();
        self.serving.await.unwrap();
        Dead { script: self.script, address: self.address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The statuses of the next answers; afterwards 200.
    pub(crate) fn answers(&self, statuses: impl IntoIterator<Item = u16>) {
        self.script.answers.lock().unwrap().extend(statuses);
    }

    /// Has answers wait for permits.
    pub(crate) fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.script.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.script.arrived.lock().unwrap().clone()
    }
}

/// A receiver that was killed.
pub(crate) struct Dead {
    script: Arc<Script>,
    address: SocketAddr,
}

impl Dead {
    pub(crate) async fn revive(self) -> Receiver {
        Receiver::serve(self.script, self.address).await
    }
}

async fn take(State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    script.arrived.lock().unwrap().push(Arrived { headers, body });
    let gate = script.gate.lock().unwrap().clone();
    if let Some(gate) = gate {
        gate.acquire().await.unwrap().forget();
    }
    let status = script.answers.lock().unwrap().pop_front().unwrap_or(200);
    (StatusCode::from_u16(status).unwrap(), format!("answered {status}"))
}
