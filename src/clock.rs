//! The one source of time, identifiers and randomness. Tests inject their own.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use uuid::{Builder, Uuid};

/// Time and randomness as the process sees them. Cheap to clone; clones share their state.
///
/// Stored times (leases, runs, revisions) come from the database's clock; this one serves what happens
/// outside of it: schedules, identifiers, jitter, tokens.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<Source>>);

struct Source {
    /// `None` follows the system's clock.
    fixed: Option<DateTime<Utc>>,
    random: StdRng,
}

impl Clock {
    /// The system's clock and a generator seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self::new(None, StdRng::from_rng(&mut system_random()))
    }

    /// A clock that stands at `now` until it is moved, and a generator with a seed.
    #[must_use]
    pub fn fixed(now: DateTime<Utc>, seed: u64) -> Self {
        Self::new(Some(now), StdRng::seed_from_u64(seed))
    }

    fn new(fixed: Option<DateTime<Utc>>, random: StdRng) -> Self {
        Self(Arc::new(Mutex::new(Source { fixed, random })))
    }

    /// Moves a fixed clock forward; a system clock is left alone.
    pub fn advance(&self, by: TimeDelta) {
        if let Some(now) = self.source().fixed.as_mut() {
            *now += by;
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.source().fixed.unwrap_or_else(system_now)
    }

    /// A new identifier: UUID version 7, so that keys sort by the time they were made.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or_default();
        Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }

    /// Unpredictable bytes, good enough for tokens when the clock is the system's.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.source().random.fill_bytes(&mut bytes);
        bytes
    }

    /// A number in `0.0..1.0`.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.source().random.random()
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
fn system_now() -> DateTime<Utc> {
    Utc::now()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's randomness")]
fn system_random() -> impl Rng {
    rand::rng()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_stands_until_it_is_moved() {
        let start = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let clock = Clock::fixed(start, 1);
        assert_eq!(clock.now(), start);
        clock.advance(TimeDelta::hours(1));
        assert_eq!(clock.now(), start + TimeDelta::hours(1));
    }

    #[test]
    fn identifiers_differ_and_sort_by_time() {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH + TimeDelta::days(20_000), 1);
        let first = clock.uuid();
        clock.advance(TimeDelta::milliseconds(1));
        assert!(first < clock.uuid());
    }
}
