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
    /// Grows whenever the circuit opens and whenever a trial begins.
    turn: u64,
}

impl CircuitBreaker {
    /// A closed circuit.
    #[must_use]
    pub fn new(service: &'static str, clock: Clock) -> Self {
        let circuit = Circuit {
            state: BreakerState::Closed,
            failures: 0,
            openings: 0,
            until: DateTime::UNIX_EPOCH,
            turn: 0,
        };
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

    /// Asks to make a call; `Err` with the time until the next may be made. Who may call tells by the permit how it
    /// went.
    pub fn admit(&self) -> Result<Permit, Duration> {
        let now = self.clock.now();
        let mut circuit = self.circuit();
        if circuit.state != BreakerState::Closed {
            if now < circuit.until {
                return Err((circuit.until - now).to_std().unwrap_or_default());
            }
            // Also where a trial was begun and is still on its way.
            circuit.until = now + TimeDelta::from_std(LONGEST_PAUSE).unwrap_or(TimeDelta::MAX);
            circuit.turn += 1;
            self.enter(&mut circuit, BreakerState::HalfOpen);
        }
        Ok(Permit { breaker: self.clone(), turn: circuit.turn })
    }

    /// The circuit, where it has neither opened nor begun another trial since this turn.
    fn of_turn(&self, turn: u64) -> Option<MutexGuard<'_, Circuit>> {
        Some(self.circuit()).filter(|circuit| circuit.turn == turn)
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

/// The permission to make one call. It counts only in the turn of the circuit that it was given in: a call that was on
/// its way before the circuit opened neither closes it nor keeps it open. Dropped without a word, as when the
/// call is given up, it says nothing of the service, and where it was the trial another may begin at once.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    breaker: CircuitBreaker,
    turn: u64,
}

impl Permit {
    /// The service has answered, be it with a refusal.
    pub fn succeeded(self) {
        if let Some(mut circuit) = self.breaker.of_turn(self.turn) {
            circuit.failures = 0;
            circuit.openings = 0;
            self.breaker.enter(&mut circuit, BreakerState::Closed);
        }
    }

    /// The service could not be reached, did not answer in time, or could not do its work.
    pub fn failed(self) {
        let Some(mut circuit) = self.breaker.of_turn(self.turn) else { return };
        circuit.failures = circuit.failures.saturating_add(1);
        if circuit.state == BreakerState::HalfOpen || circuit.failures >= FAILURES {
            let clock = &self.breaker.clock;
            let pause = FIRST_PAUSE.saturating_mul(1 << circuit.openings.min(16)).min(LONGEST_PAUSE);
            let pause = pause.mul_f64(0.8 + 0.4 * clock.fraction());
            circuit.openings += 1;
            circuit.turn += 1;
            circuit.until = clock.now() + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
            self.breaker.enter(&mut circuit, BreakerState::Open);
        }
    }
}

impl Drop for Permit {
    /// After [`Self::succeeded`] and [`Self::failed`] the circuit is no longer half open in this turn.
    fn drop(&mut self) {
        let Some(mut circuit) = self.breaker.of_turn(self.turn) else { return };
        if circuit.state == BreakerState::HalfOpen {
            circuit.turn += 1;
            circuit.until = self.breaker.clock.now();
            self.breaker.enter(&mut circuit, BreakerState::Open);
        }
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
            breaker.admit().unwrap().failed();
        }
    }

    /// Opens a circuit and waits until its trial may begin.
    fn open_and_wait(breaker: &CircuitBreaker, clock: &Clock) {
        fail(breaker, FAILURES);
        clock.advance(TimeDelta::from_std(breaker.admit().unwrap_err()).unwrap());
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breaker, _) = breaker();
        fail(&breaker, FAILURES - 1);
        breaker.admit().unwrap().succeeded();
        fail(&breaker, FAILURES - 1);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
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
        let trial = breaker.admit().unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit().is_err(), "the others wait for the one");
        trial.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, FAILURES - 1);
        assert_eq!(breaker.state(), BreakerState::Closed, "the failures before are forgotten");
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
            fail(&breaker, 1);
        }
        assert!(
            longest > LONGEST_PAUSE.mul_f64(0.79) && longest <= LONGEST_PAUSE.mul_f64(1.2),
            "{longest:?}"
        );
    }

    #[test]
    fn a_late_answer_of_an_older_call_changes_nothing() {
        let (breaker, clock) = breaker();
        let older = || breaker.admit().unwrap();
        let (first, second, third, fourth) = (older(), older(), older(), older());
        open_and_wait(&breaker, &clock);
        first.succeeded();
        assert_eq!(breaker.state(), BreakerState::Open);
        let trial = breaker.admit().unwrap();
        second.succeeded();
        third.failed();
        drop(fourth);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "only the trial decides");
        trial.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_dropped_trial_lets_another_begin_at_once_and_a_dropped_call_says_nothing() {
        let (breaker, clock) = breaker();
        fail(&breaker, FAILURES - 1);
        drop(breaker.admit().unwrap());
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        clock.advance(TimeDelta::from_std(breaker.admit().unwrap_err()).unwrap());
        drop(breaker.admit().unwrap());
        assert_eq!(breaker.state(), BreakerState::Open);
        let trial = breaker.admit().expect("the trial is free");
        assert!(breaker.admit().is_err(), "and again there is one");
        trial.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_trial_of_which_nobody_tells_is_given_up_and_its_word_comes_too_late() {
        let (breaker, clock) = breaker();
        open_and_wait(&breaker, &clock);
        let silent = breaker.admit().unwrap();
        let wait = breaker.admit().unwrap_err();
        assert_eq!(wait, LONGEST_PAUSE);
        clock.advance(TimeDelta::from_std(wait).unwrap());
        let next = breaker.admit().unwrap();
        silent.succeeded();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        next.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
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
