//! A circuit breaker: after many failures in a row a service is left alone for a while, then tried with one call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use prometheus::IntGauge;

use crate::clock::Clock;

/// So many failures in a row open the circuit.
const FAILURES: u32 = 10;
/// How long it is open at first; it doubles each time that the trial fails.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// It is never open for longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Where the circuit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// One call is on its way to find out; others do not pass.
    HalfOpen,
    /// No calls pass.
    Open,
}

/// A circuit breaker of one service. Cheap to clone; clones are one breaker.
#[derive(Debug, Clone)]
pub struct CircuitBreaker {
    service: &'static str,
    clock: Clock,
    gauge: Option<IntGauge>,
    circuit: Arc<Mutex<Circuit>>,
}

#[derive(Debug)]
struct Circuit {
    state: BreakerState,
    /// Failures in a row.
    failures: u32,
    /// Times that it was opened in a row.
    openings: u32,
    /// When the next trial may begin, or, half open, when the trial on its way is given up.
    until: DateTime<Utc>,
}

impl CircuitBreaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(service: &'static str, clock: Clock) -> Self {
        let circuit =
            Circuit { state: BreakerState::Closed, failures: 0, openings: 0, until: DateTime::UNIX_EPOCH };
        Self { service, clock, gauge: None, circuit: Arc::new(Mutex::new(circuit)) }
    }

    /// Shows the state: 0 closed, 1 half open, 2 open.
    #[must_use]
    pub fn with_gauge(mut self, gauge: IntGauge) -> Self {
        gauge.set(self.state() as i64);
        self.gauge = Some(gauge);
        self
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.circuit().state
    }

    /// Asks to make a call; `Err` with the time until the next may be made. Who may call tells how it went by
    /// [`Self::succeeded`] or [`Self::failed`].
    pub fn admit(&self) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut circuit = self.circuit();
        if circuit.state == BreakerState::Closed {
            return Ok(());
        }
        if now < circuit.until {
            return Err((circuit.until - now).to_std().unwrap_or_default());
        }
        // Also where a trial was begun and nobody told how it went.
        circuit.until = now + TimeDelta::from_std(LONGEST_PAUSE).unwrap_or(TimeDelta::MAX);
        self.enter(&mut circuit, BreakerState::HalfOpen);
        Ok(())
    }

    /// The service has answered, be it with a refusal.
    pub fn succeeded(&self) {
        let mut circuit = self.circuit();
        circuit.failures = 0;
        circuit.openings = 0;
        self.enter(&mut circuit, BreakerState::Closed);
    }

    /// The service could not be reached, did not answer in time, or could not do its work.
    pub fn failed(&self) {
        let mut circuit = self.circuit();
        circuit.failures = circuit.failures.saturating_add(1);
        let opens = match circuit.state {
            BreakerState::Closed => circuit.failures >= FAILURES,
            BreakerState::HalfOpen => true,
            // A call that was on its way before.
            BreakerState::Open => false,
        };
        if opens {
            let pause = FIRST_PAUSE.saturating_mul(1 << circuit.openings.min(16)).min(LONGEST_PAUSE);
            let pause = pause.mul_f64(0.8 + 0.4 * self.clock.fraction());
            circuit.openings += 1;
            circuit.until = self.clock.now() + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
            self.enter(&mut circuit, BreakerState::Open);
        }
    }

    fn enter(&self, circuit: &mut Circuit, state: BreakerState) {
        if circuit.state == state {
            return;
        }
        tracing::warn!(service = self.service, from = ?circuit.state, to = ?state, "circuit breaker");
        circuit.state = state;
        if let Some(gauge) = &self.gauge {
            gauge.set(state as i64);
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (CircuitBreaker, Clock) {
        let clock = Clock::fixed(DateTime::UNIX_EPOCH, 7);
        (CircuitBreaker::new("provider", clock.clone()), clock)
    }

    fn fail(breaker: &CircuitBreaker, times: u32) {
        for _ in 0..times {
            breaker.failed();
        }
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breaker, _) = breaker();
        fail(&breaker, FAILURES - 1);
        breaker.succeeded();
        fail(&breaker, FAILURES - 1);
        assert_eq!((breaker.state(), breaker.admit()), (BreakerState::Closed, Ok(())));
        breaker.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit().is_err());
    }

    #[test]
    fn after_a_pause_one_call_finds_out() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES);
        let wait = breaker.admit().unwrap_err();
        assert!(wait >= FIRST_PAUSE.mul_f64(0.8) && wait <= FIRST_PAUSE.mul_f64(1.2), "{wait:?}");
        clock.advance(TimeDelta::from_std(wait).unwrap());
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit().is_err(), "the others wait for the one");
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.admit()), (BreakerState::Closed, Ok(())));
    }

    #[test]
    fn the_pause_grows_while_trials_fail_and_ends_somewhere() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES);
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let wait = breaker.admit().unwrap_err();
            longest = longest.max(wait);
            clock.advance(TimeDelta::from_std(wait).unwrap());
            assert_eq!(breaker.admit(), Ok(()));
            breaker.failed();
        }
        assert!(
            longest > LONGEST_PAUSE.mul_f64(0.79) && longest <= LONGEST_PAUSE.mul_f64(1.2),
            "{longest:?}"
        );
    }

    #[test]
    fn a_trial_of_which_nobody_tells_is_given_up() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES);
        for _ in 0..2 {
            let wait = breaker.admit().unwrap_err();
            clock.advance(TimeDelta::from_std(wait).unwrap());
            assert_eq!(breaker.admit(), Ok(()));
        }
    }

    #[test]
    fn the_state_is_shown() {
        let (breaker, _) = breaker();
        let gauge = IntGauge::new("state", "State").unwrap();
        let breaker = breaker.with_gauge(gauge.clone());
        assert_eq!(gauge.get(), 0);
        fail(&breaker, FAILURES);
        assert_eq!(gauge.get(), 2);
    }
}
