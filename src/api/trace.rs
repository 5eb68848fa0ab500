//! One span and one log line per request, in the caller's trace when it sent one.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::request_id;

/// Middleware: runs the request in a span named after its route, and says how it ended. Reads that succeed
/// are told at level debug, since they are most of the traffic.
pub(super) async fn trace(request: Request, next: Next) -> Response {
    let span = span_for(&request);
    let safe = request.method().is_safe();
    let started = Instant::now();
    async {
        let response = next.run(request).await;
        let status = response.status();
        let latency_ms = started.elapsed().as_secs_f64() * 1000.0;
        let span = Span::current();
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        if safe && !status.is_client_error() && !status.is_server_error() {
            tracing::debug!(status = status.as_u16(), latency_ms, "answered");
        } else {
            tracing::info!(status = status.as_u16(), latency_ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// Field names are those of OpenTelemetry's conventions for HTTP servers. The query string is left out, and
/// so are headers: they may hold what does not belong into a log.
fn span_for(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = request.method();
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        request_id = request_id::current(),
    );
    let caller = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&Headers(request.headers()))
    });
    if caller.span().span_context().is_valid() {
        // Fails only where spans are not exported, and then there is no trace to join.
        let _ = span.set_parent(caller);
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
