//! What is around every request: its id, its span, its metrics and its time limit.
//!
//! One middleware for all of them: each layer of its own would copy the layers inside it and put them on the heap again for
//! every request, which is dearer than what they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{Instrument, Span};

use super::metrics_layer::{HttpMetrics, Measured};
use super::{ApiState, limits, request_id, trace};
use crate::clock::Clock;

/// What it needs.
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

/// Middleware: answers a request under its id, in its span, within its time, and counts it.
pub(super) async fn answer(State(around): State<Around>, request: Request, next: Next) -> Response {
    let parts = around.0;
    let started = Instant::now();
    let id = request_id::of(request.headers(), &parts.clock);
    let span = trace::span_for(&request, &id);
    let safe = request.method().is_safe() || trace::is_assignment(&request);
    let measured = Measured::of(&request);
    let answering = async {
        let response = limits::time_out(parts.request_time, next.run(request)).await;
        let (status, took) = (response.status(), started.elapsed());
        measured.observe(&parts.http, status, took);
        trace::tell(&Span::current(), safe, status, took);
        response
    };
    request_id::scope(id, answering.instrument(span)).await
}
