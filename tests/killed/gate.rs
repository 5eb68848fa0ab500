//! A gate before the provider, at which uploads wait for as long as it is shut.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn open() -> Self {
        Self { open: watch::Sender::new(true), arrived: watch::Sender::new(false) }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Waits until an upload has come to the gate.
    pub(crate) async fn arrival(&self) {
        let arrived = self.arrived.subscribe().wait_for(|arrived| *arrived).await.map(|_| ());
        arrived.unwrap();
    }

    pub(crate) fn before(&self, provider: Router) -> Router {
        provider.layer(middleware::from_fn_with_state(self.clone(), pass))
    }
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if request.method() == Method::POST && request.uri().path() == "/v1/files" {
        gate.arrived.send_replace(true);
        gate.open.subscribe().wait_for(|open| *open).await.map(|_| ()).unwrap();
    }
    next.run(request).await
}
