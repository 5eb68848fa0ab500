//! How long a failed job waits before it is tried again.

use std::time::Duration;

use crate::clock::Clock;

const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer than this.
pub const CAP: Duration = Duration::from_mins(5);

/// Exponential with "equal jitter": half of the step is certain, half is random, so that workers which failed
/// together do not come back together. `attempt` counts from 1. A wait that the other side asked for
/// (`Retry-After`) is kept when it is longer, up to an hour.
#[must_use]
pub fn delay(attempt: u32, asked: Option<Duration>, clock: &Clock) -> Duration {
    let step = FIRST.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(CAP);
    let jittered = step.mul_f64(0.5 + 0.5 * clock.fraction());
    jittered.max(asked.unwrap_or_default().min(Duration::from_hours(1)))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn grows_with_each_attempt_within_its_bounds_and_is_capped() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH, 7);
        for attempt in 1..200 {
            let full = FIRST.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(CAP);
            let wait = delay(attempt, None, &clock);
            assert!(wait >= full / 2 && wait <= full, "attempt {attempt}: {wait:?} of {full:?}");
        }
    }

    #[test]
    fn jitter_spreads_equal_attempts() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH, 7);
        assert_ne!(delay(5, None, &clock), delay(5, None, &clock));
    }

    #[test]
    fn a_longer_wait_asked_for_is_kept() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH, 7);
        assert_eq!(delay(1, Some(Duration::from_secs(90)), &clock), Duration::from_secs(90));
        assert_eq!(delay(1, Some(Duration::from_hours(30)), &clock), Duration::from_hours(1));
    }
}
