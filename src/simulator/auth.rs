//! What happens around each request: the key and the latency.

use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::errors::ApiError;
use super::{Simulator, azure};

/// Lets requests with the right key through, and delays each answer. The delay comes after the work, so that
/// a caller that gives up waiting leaves behind what it asked for, as with a real provider.
pub(super) async fn guard(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let response = match check(&simulator, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let latency = simulator.settings().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    response
}

fn check(simulator: &Simulator, request: &Request) -> Result<(), ApiError> {
    let Some(expected) = &simulator.settings().api_key else { return Ok(()) };
    let sent = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_azure = request.uri().path().starts_with(azure::PREFIX);
    let (given, how) = if is_azure {
        (sent(HeaderName::from_static("api-key")), "'api-key: KEY'")
    } else {
        let bearer = sent(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        (bearer, "'Authorization: Bearer KEY'")
    };
    match given {
        Some(key) if key == expected => Ok(()),
        Some(_) => {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "Incorrect API key provided.")
                .code("invalid_api_key"))
        }
        None => {
            let message = format!("You didn't provide an API key. Send it in the header {how}.");
            Err(ApiError::new(StatusCode::UNAUTHORIZED, message))
        }
    }
}
