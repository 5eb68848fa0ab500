//! Dealing faults to calls.

use std::collections::BTreeMap;
use std::io;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::Simulator;
use super::super::errors::ApiError;
use super::super::job::JobError;
use super::{Fault, FaultPlan, FaultRates, Route};

/// The plan in force and how far it has come.
#[derive(Debug)]
pub(in crate::simulator) struct Dealer {
    pub(in crate::simulator) plan: FaultPlan,
    random: StdRng,
    /// Calls by kind.
    pub(super) calls: BTreeMap<Route, u64>,
    /// Faults dealt by kind.
    pub(super) dealt: BTreeMap<Fault, u64>,
}

impl Default for Dealer {
    fn default() -> Self {
        Self {
            plan: FaultPlan::default(),
            random: StdRng::seed_from_u64(0),
            calls: BTreeMap::new(),
            dealt: BTreeMap::new(),
        }
    }
}

impl Dealer {
    /// Starts a plan. What was counted stays.
    pub(in crate::simulator) fn start(&mut self, plan: FaultPlan) {
        self.random = StdRng::seed_from_u64(plan.seed);
        self.plan = plan;
    }

    pub(in crate::simulator) fn calls(&self, route: Route) -> u64 {
        self.calls.get(&route).copied().unwrap_or_default()
    }

    fn next(&mut self, route: Route) -> Fault {
        *self.calls.entry(route).or_default() += 1;
        let scripted =
            self.plan.scripts.iter_mut().find(|script| script.route == route && !script.faults.is_empty());
        let fault = match scripted.and_then(|script| script.faults.pop_front()) {
            Some(fault) => fault,
            None => self.rates(route).map_or(Fault::None, |rates| self.draw(rates)),
        };
        if fault != Fault::None {
            *self.dealt.entry(fault).or_default() += 1;
        }
        fault
    }

    /// The rates for a kind of call: its own, else those of all that are named.
    fn rates(&self, route: Route) -> Option<FaultRates> {
        let named = self.plan.routes.is_empty() || self.plan.routes.contains(&route);
        self.plan.route_rates.get(&route).copied().or(named.then_some(self.plan.rates))
    }

    fn draw(&mut self, rates: FaultRates) -> Fault {
        let mut left: f64 = self.random.random();
        for (fault, rate) in rates.each() {
            if left < rate {
                return fault;
            }
            left -= rate;
        }
        Fault::None
    }

    /// The error that the next job with valid files ends with, if it is to fail.
    pub(in crate::simulator) fn failure(&mut self) -> Option<JobError> {
        let fails = self.random.random::<f64>() < self.plan.jobs.failure_rate;
        fails.then(|| {
            self.plan.jobs.failure.clone().unwrap_or_else(|| JobError {
                code: "server_error".into(),
                message: "The job failed due to an internal error.".into(),
                param: None,
            })
        })
    }

    pub(in crate::simulator) fn jobs(&self) -> &super::JobFaults {
        &self.plan.jobs
    }

    /// Whether lists already tell of what was created then.
    pub(in crate::simulator) fn shows(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "at most an hour")]
        let hidden = TimeDelta::milliseconds((self.plan.jobs.hidden_seconds * 1e3) as i64);
        now - created_at >= hidden
    }
}

fn route(request: &Request) -> Route {
    let path = request.uri().path();
    match *request.method() {
        Method::GET if path.ends_with("/events") || path.ends_with("/checkpoints") => Route::Report,
        Method::GET => Route::Read,
        Method::DELETE => Route::Delete,
        _ if path.ends_with("/files") => Route::Upload,
        _ if path.ends_with("/jobs") => Route::Create,
        _ if path.ends_with("/completions") => Route::Complete,
        _ if path.ends_with("/cancel") => Route::Cancel,
        _ => Route::Pause,
    }
}

/// Lets a call pass, or fail as the plan has it.
pub(in crate::simulator) async fn deal(
    State(simulator): State<Simulator>,
    request: Request,
    next: Next,
) -> Response {
    let (fault, late, retry_after, call) = {
        let mut store = simulator.open().0;
        let dealer = &mut store.dealer;
        let fault = dealer.next(route(&request));
        let calls: u64 = dealer.calls.values().sum();
        (fault, dealer.plan.late(), dealer.plan.retry_after_seconds, calls)
    };
    let refused = |status, message: &str| ApiError::new(status, message).into_response();
    match fault {
        Fault::None => next.run(request).await,
        Fault::DroppedBefore => dropped(),
        Fault::DroppedAfter => {
            next.run(request).await;
            dropped()
        }
        Fault::Late => {
            let response = next.run(request).await;
            tokio::time::sleep(late).await;
            response
        }
        Fault::Conflict => refused(StatusCode::CONFLICT, "Another request is at work on this."),
        Fault::RateLimited => {
            let mut response = refused(StatusCode::TOO_MANY_REQUESTS, "Rate limit reached.");
            let (name, value) = retry_after_header(retry_after, call, simulator.clock().now());
            response.headers_mut().insert(name, value);
            response
        }
        Fault::ServerError => refused(StatusCode::INTERNAL_SERVER_ERROR, "The server had an error."),
        Fault::ServerErrorAfter => {
            next.run(request).await;
            refused(StatusCode::INTERNAL_SERVER_ERROR, "The server had an error.")
        }
        Fault::Unavailable => refused(StatusCode::SERVICE_UNAVAILABLE, "The engine is overloaded."),
        Fault::Malformed => {
            next.run(request).await;
            (StatusCode::OK, "{\"id\": <html>").into_response()
        }
        Fault::Truncated => truncated(next.run(request).await).await,
    }
}

/// Ends the connection without an answer: what serves it is unwound, which nobody needs to hear of.
fn dropped() -> ! {
    std::panic::resume_unwind(Box::new("the fault plan ends this connection"))
}

/// Half of the answer, and then the connection ends.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let pieces = [Ok::<Bytes, io::Error>(half), Err(io::Error::other("the fault plan ends this answer"))];
    Response::from_parts(parts, Body::from_stream(stream::iter(pieces)))
}

/// `Retry-After` in one of its forms, each in its turn: seconds, OpenAI's milliseconds, a date.
fn retry_after_header(seconds: f64, call: u64, now: DateTime<Utc>) -> (HeaderName, HeaderValue) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour")]
    let whole = seconds.ceil() as u64;
    match call % 3 {
        0 => (header::RETRY_AFTER, HeaderValue::from(whole)),
        1 => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour")]
            let milliseconds = (seconds * 1e3) as u64;
            (HeaderName::from_static("retry-after-ms"), HeaderValue::from(milliseconds))
        }
        _ => {
            let at = now + TimeDelta::seconds(i64::try_from(whole).unwrap_or_default());
            let date = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let value = HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("1"));
            (header::RETRY_AFTER, value)
        }
    }
}
