//! How long the other side asks to wait.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::clock::Clock;

/// How long an answer asks to wait: `retry-after-ms` (OpenAI's own), else `Retry-After` in seconds or as a date (RFC 9110,
/// section 10.2.3).
#[must_use]
pub fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |text: &str| text.trim().parse::<f64>().ok();
    if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(value) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    Some(date.to_utc().signed_duration_since(clock.now()).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn wait(headers: &[(&'static str, &str)]) -> Option<Duration> {
        // 1994-11-06T08:49:37Z
        let clock = Clock::fixed(DateTime::UNIX_EPOCH + TimeDelta::seconds(784_111_777), 1);
        let headers = headers.iter().map(|(name, value)| {
            ((*name).parse().expect("a header name"), value.parse().expect("a header value"))
        });
        retry_after(&headers.collect(), &clock)
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:40:00 GMT")]), Some(Duration::ZERO));
        assert_eq!(
            wait(&[("retry-after", "7"), ("retry-after-ms", "1250")]),
            Some(Duration::from_millis(1250))
        );
        for nonsense in ["soon", "-3", "inf", "NaN", ""] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }
}
