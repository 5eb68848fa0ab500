//! One span and one log line per request, in the caller's trace when it sent one.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{assignment, request_id};

/// The header of W3C's trace context, without which there is no trace to join.
const TRACE_PARENT: &str = "traceparent";

/// The span of a request, named after its route.
///
/// Field names are those of OpenTelemetry's conventions for HTTP servers. The query string is left out, and
/// so are headers: they may hold what does not belong into a log.
///
/// An assignment takes less time than its span at level info would: it has one at level debug, unless its caller sent a
/// trace to be part of.
pub(super) fn span_for(request: &Request, id: &str) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = request.method();
    let path = request.uri().path();
    let traced = request.headers().contains_key(TRACE_PARENT);
    if is_assignment(request) && !traced {
        return tracing::debug_span!(
            "request",
            http.request.method = %method,
            http.route = route,
            url.path = path,
            http.response.status_code = Empty,
            request_id = id,
        );
    }
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        url.path = path,
        http.response.status_code = Empty,
        request_id = id,
    );
    if traced {
        let caller = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&Headers(request.headers()))
        });
        if caller.span().span_context().is_valid() {
            // Fails only where spans are not exported, and then there is no trace to join.
            let _ = span.set_parent(caller);
        }
    }
    span
}

/// Whether this is an assignment, which only reads, whatever its method.
pub(super) fn is_assignment(request: &Request) -> bool {
    request.extensions().get::<MatchedPath>().is_some_and(|route| route.as_str() == assignment::PATH)
}

/// Says within the span how the request ended. Reads that succeed are told at level debug, since they are most of the
/// traffic.
pub(super) fn tell(span: &Span, safe: bool, status: StatusCode, took: Duration) {
    let latency_ms = took.as_secs_f64() * 1000.0;
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    if safe && !status.is_client_error() && !status.is_server_error() {
        tracing::debug!(status = status.as_u16(), latency_ms, "answered");
    } else if span.is_disabled() {
        // Nothing else names the request.
        let request_id = request_id::current();
        tracing::info!(status = status.as_u16(), latency_ms, request_id, "answered");
    } else {
        tracing::info!(status = status.as_u16(), latency_ms, "answered");
    }
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
