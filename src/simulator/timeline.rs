//! A job's way through its states, derived from the time that went by. Nothing runs in the background.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

/// The share of the work after which the files count as validated and the job is queued.
pub(super) const VALIDATED: f64 = 0.1;
/// The share of the work after which the training starts.
pub(super) const STARTED: f64 = 0.2;
/// The share of the work after which a job fails that was told to fail.
pub(super) const BROKEN: f64 = 0.6;
/// The share of the work after which a job is done.
pub(super) const DONE: f64 = 1.0;

/// The states of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// The files are being checked.
    ValidatingFiles,
    /// The job waits for its training, or is paused in it: the protocol lists no state of its own for that.
    Queued,
    /// The training is under way.
    Running,
    /// There is a model.
    Succeeded,
    /// The job ended with an error.
    Failed,
    /// The job was cancelled on request.
    Cancelled,
}

impl JobStatus {
    /// Whether a job in this state never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A time in which no work is done; without an end it lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) start: DateTime<Utc>,
    pub(super) end: Option<DateTime<Utc>>,
}

/// What happened to a job from outside, from which its state at any time follows.
#[derive(Debug)]
pub(super) struct Timeline {
    created_at: DateTime<Utc>,
    /// The time that all of the work takes.
    work: TimeDelta,
    /// The share of the work at which the job ends by itself, and the state that it ends in.
    end: (f64, JobStatus),
    pauses: Vec<Pause>,
    cancelled_at: Option<DateTime<Utc>>,
}

impl Timeline {
    pub(super) fn new(created_at: DateTime<Utc>, work: TimeDelta, end: (f64, JobStatus)) -> Self {
        Self { created_at, work, end, pauses: Vec::new(), cancelled_at: None }
    }

    pub(super) fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }

    pub(super) fn pauses(&self) -> &[Pause] {
        &self.pauses
    }

    pub(super) fn cancelled_at(&self) -> Option<DateTime<Utc>> {
        self.cancelled_at
    }

    /// When the given share of the work is done if nothing else happens; never, while the job is paused
    /// before it.
    pub(super) fn reaches(&self, share: f64) -> Option<DateTime<Utc>> {
        let micros = self.work.num_microseconds().unwrap_or(i64::MAX) as f64 * share;
        #[expect(clippy::cast_possible_truncation, reason = "a share of a number that was an i64")]
        let mut at = self.created_at + TimeDelta::microseconds(micros as i64);
        for pause in &self.pauses {
            if pause.start >= at {
                break;
            }
            at += pause.end? - pause.start;
        }
        Some(at)
    }

    /// When the job ended; `None` while it has not.
    pub(super) fn ended_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cancelled_at.or_else(|| self.reaches(self.end.0).filter(|end| *end <= now))
    }

    /// When the running job is going to end; `None` unless it is running.
    pub(super) fn estimated_end(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.status(now) == JobStatus::Running { self.reaches(DONE) } else { None }
    }

    pub(super) fn status(&self, now: DateTime<Utc>) -> JobStatus {
        let reached = |share| self.reaches(share).is_some_and(|at| at <= now);
        if self.cancelled_at.is_some() {
            JobStatus::Cancelled
        } else if reached(self.end.0) {
            self.end.1
        } else if reached(STARTED) && !self.is_paused() {
            JobStatus::Running
        } else if reached(VALIDATED) {
            JobStatus::Queued
        } else {
            JobStatus::ValidatingFiles
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|pause| pause.end.is_none())
    }

    /// Cancels an unfinished job; tells whether it was one.
    pub(super) fn cancel(&mut self, now: DateTime<Utc>) -> bool {
        let possible = !self.status(now).is_final();
        if possible {
            self.cancelled_at = Some(now);
        }
        possible
    }

    /// Pauses an unfinished job that is not paused; tells whether it was one.
    pub(super) fn pause(&mut self, now: DateTime<Utc>) -> bool {
        let possible = !self.status(now).is_final() && !self.is_paused();
        if possible {
            self.pauses.push(Pause { start: now, end: None });
        }
        possible
    }

    /// Lets a paused job continue; tells whether it was paused.
    pub(super) fn resume(&mut self, now: DateTime<Utc>) -> bool {
        if self.status(now).is_final() {
            return false;
        }
        match self.pauses.last_mut() {
            Some(pause @ Pause { end: None, .. }) => {
                pause.end = Some(now);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JobStatus::{Cancelled, Failed, Queued, Running, Succeeded, ValidatingFiles};
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    /// A job of 100 s that was created at 0.
    fn timeline(end: (f64, JobStatus)) -> Timeline {
        Timeline::new(at(0), TimeDelta::seconds(100), end)
    }

    #[test]
    fn states_follow_from_the_time() {
        let job = timeline((DONE, Succeeded));
        let states = [0, 9, 10, 19, 20, 99, 100, 1_000].map(|second| job.status(at(second)));
        assert_eq!(
            states,
            [ValidatingFiles, ValidatingFiles, Queued, Queued, Running, Running, Succeeded, Succeeded]
        );
        assert_eq!(job.ended_at(at(99)), None);
        assert_eq!(job.ended_at(at(1_000)), Some(at(100)));
        assert_eq!(job.estimated_end(at(50)), Some(at(100)));
        assert_eq!(job.estimated_end(at(15)), None);
    }

    #[test]
    fn a_bad_file_ends_the_job_after_its_validation() {
        let job = timeline((VALIDATED, Failed));
        assert_eq!([9, 10].map(|second| job.status(at(second))), [ValidatingFiles, Failed]);
    }

    #[test]
    fn a_pause_moves_what_is_left() {
        let mut job = timeline((DONE, Succeeded));
        assert!(job.pause(at(50)));
        assert!(!job.pause(at(51)));
        assert_eq!([50, 5_000].map(|second| job.status(at(second))), [Queued, Queued]);
        assert_eq!(job.estimated_end(at(60)), None);
        assert!(job.resume(at(150)));
        assert!(!job.resume(at(151)));
        assert_eq!([150, 199, 200].map(|second| job.status(at(second))), [Running, Running, Succeeded]);
        assert_eq!(job.reaches(STARTED), Some(at(20)));
        assert!(!job.pause(at(200)));
        assert!(!job.cancel(at(200)));
    }

    #[test]
    fn pauses_add_up_and_may_come_before_the_training() {
        let mut job = timeline((DONE, Succeeded));
        assert!(job.pause(at(5)) && job.resume(at(15)));
        assert!(job.pause(at(16)) && job.resume(at(26)));
        assert_eq!(
            [29, 30, 39, 40].map(|second| job.status(at(second))),
            [ValidatingFiles, Queued, Queued, Running]
        );
        assert_eq!(job.reaches(DONE), Some(at(120)));
    }

    #[test]
    fn a_cancelled_job_stays_cancelled() {
        let mut job = timeline((DONE, Succeeded));
        assert!(job.pause(at(30)));
        assert!(job.cancel(at(40)));
        assert!(!job.cancel(at(41)) && !job.resume(at(41)) && !job.pause(at(41)));
        assert_eq!([41, 5_000].map(|second| job.status(at(second))), [Cancelled, Cancelled]);
        assert_eq!(job.ended_at(at(5_000)), Some(at(40)));
    }
}
