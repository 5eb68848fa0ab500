//! What a request may cost, and what is answered when it costs more or its handler breaks.

use std::any::Any;
use std::convert::Infallible;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures_util::poll;

use super::problem::Problem;

/// How large a body may be. A route that takes more has a layer of its own:
/// `routes!(record).layer(DefaultBodyLimit::max(16 * 1024 * 1024))`.
pub const BODY_BYTES: usize = 2 * 1024 * 1024;

/// How long a request may take until its answer begins; a stream may last longer.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Gives up a request after a time. Its transaction is rolled back.
pub(super) async fn time_out<R: IntoResponse>(
    limit: Duration,
    answering: impl Future<Output = Result<R, Infallible>>,
) -> Response {
    let mut answering = pin!(answering);
    // What is answered from memory is ready at once, and needs no timer.
    if let Poll::Ready(Ok(response)) = poll!(&mut answering) {
        return response.into_response();
    }
    if let Ok(Ok(response)) = tokio::time::timeout(limit, answering).await {
        return response.into_response();
    }
    tracing::error!(?limit, "a request took too long and was given up");
    Problem::try_later("timeout", "The request took too long")
        .detail("The request was given up and undone as far as possible; try again.")
        .into_response()
}

/// Answers for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer calls")]
pub(super) fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Problem::internal(&Panicked(message.to_owned())).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);
