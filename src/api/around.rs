//! What is around every request: its id, its span, its metrics and its time limit.
//!
//! One service for all of them, and not one of axum's middleware functions: those copy the services inside them for every
//! request and put them on the heap again, which is dearer than what they do.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tower::{Layer, Service};
use tracing::Instrument;

use super::metrics_layer::{HttpMetrics, Measured};
use super::{ApiState, limits, request_id, trace};
use crate::clock::Clock;

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Around(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    clock: Clock,
    http: HttpMetrics,
    request_time: Duration,
}

impl Around {
    pub(super) fn of(state: &ApiState) -> Self {
        let (clock, http) = (state.clock.clone(), state.http.clone());
        Self(Arc::new(Parts { clock, http, request_time: state.request_time }))
    }
}

impl<S> Layer<S> for Around {
    type Service = Surrounded<S>;

    fn layer(&self, inner: S) -> Surrounded<S> {
        Surrounded { parts: Arc::clone(&self.0), inner }
    }
}

/// A service with all of it around.
#[derive(Debug, Clone)]
pub(super) struct Surrounded<S> {
    parts: Arc<Parts>,
    inner: S,
}

impl<S> Service<Request> for Surrounded<S>
where
    S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let parts = Arc::clone(&self.parts);
        let started = Instant::now();
        let id = request_id::of(request.headers(), &parts.clock);
        let span = trace::span_for(&request, &id);
        let safe = request.method().is_safe() || trace::is_assignment(&request);
        let measured = Measured::of(&request);
        // Handlers begin when this is polled, which is within the span and the scope of the id.
        let inner = self.inner.call(request);
        let told = span.clone();
        let answering = async move {
            let response = limits::time_out(parts.request_time, inner).await;
            let (status, took) = (response.status(), started.elapsed());
            measured.observe(&parts.http, status, took);
            trace::tell(&told, safe, status, took);
            response
        };
        Box::pin(async { Ok(request_id::scope(id, answering.instrument(span)).await) })
    }
}
