//! How long requests take, by route.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};

use super::assignment;

/// Seconds: from an assignment to the longest request that is allowed.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics of HTTP requests.
#[derive(Debug, Clone)]
pub(super) struct HttpMetrics {
    duration: HistogramVec,
    /// That of assignments that succeed, found once and not by its labels for each of them.
    assigned: Histogram,
}

impl HttpMetrics {
    /// Adds the metrics to `registry`, once per registry.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new(
            "tuneloop_http_request_duration_seconds",
            "Time from a request's head to its answer's head.",
        );
        let duration = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["method", "route", "status"])?;
        registry.register(Box::new(duration.clone()))?;
        let assigned = duration.with_label_values(&["GET", assignment::PATH, StatusCode::OK.as_str()]);
        Ok(Self { duration, assigned })
    }
}

/// What a request is counted under. Requests to unknown routes share the label `unmatched`, and uncommon methods the
/// label `other`, so that a caller cannot make up time series.
pub(super) struct Measured {
    method: &'static str,
    route: Option<MatchedPath>,
}

impl Measured {
    pub(super) fn of(request: &Request) -> Self {
        Self { method: method(request.method()), route: request.extensions().get::<MatchedPath>().cloned() }
    }

    /// Counts the request once it is answered.
    pub(super) fn observe(&self, metrics: &HttpMetrics, status: StatusCode, took: Duration) {
        let route = self.route.as_ref().map_or("unmatched", MatchedPath::as_str);
        if (self.method, route, status) == ("GET", assignment::PATH, StatusCode::OK) {
            metrics.assigned.observe(took.as_secs_f64());
            return;
        }
        let labels = [self.method, route, status.as_str()];
        metrics.duration.with_label_values(&labels).observe(took.as_secs_f64());
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
