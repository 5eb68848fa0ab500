//! Names each request, so that an answer, a log line and an audit event can be brought together.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::clock::Clock;

/// The header a caller may send, and every answer carries.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids than this are replaced: they end up in every log line.
const MAX_LENGTH: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that the current task answers; `None` outside of a request.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The id of a request: a sane one of the caller's, or a new one.
pub(super) fn of(headers: &HeaderMap, clock: &Clock) -> String {
    accepted(headers).unwrap_or_else(|| clock.uuid().to_string())
}

/// Answers a request under its id, which [`current`] tells meanwhile and the answer carries.
pub(super) async fn scope(id: String, answering: impl Future<Output = Response>) -> Response {
    let header = HeaderValue::from_str(&id);
    let mut response = CURRENT.scope(id, answering).await;
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response
}

/// The caller's id if it cannot garble a log line: letters, digits, `-`, `_`, `.`.
fn accepted(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    ((1..=MAX_LENGTH).contains(&id.len()) && id.chars().all(sane)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &'static str) -> Option<String> {
        accepted(&HeaderMap::from_iter([(HEADER, HeaderValue::from_static(id))]))
    }

    #[test]
    fn only_sane_ids_are_taken_over() {
        assert_eq!(sent("a-B_1.2"), Some("a-B_1.2".to_owned()));
        assert_eq!(sent(""), None);
        assert_eq!(sent("two words"), None);
        assert_eq!(sent("x\"y"), None);
        let longest = "a".repeat(MAX_LENGTH).leak();
        assert_eq!(sent(longest).as_deref(), Some(&*longest));
        assert_eq!(sent("a".repeat(MAX_LENGTH + 1).leak()), None);
        assert_eq!(accepted(&HeaderMap::new()), None);
    }
}
