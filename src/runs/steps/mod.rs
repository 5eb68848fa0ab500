//! The stages of a run, one file each. A step can be run again after success or after being killed anywhere:
//! it looks for what is there before it makes anything.

pub(super) mod collect;
pub(super) mod decide;
pub(super) mod evaluate;
pub(super) mod follow;
mod judged;
pub(super) mod once;
pub(super) mod preflight;
pub(super) mod promote;
mod ramp;
pub(super) mod register;
mod rollout;
pub(super) mod test;
pub(super) mod train;
mod trials;
pub(super) mod upload;
pub(super) mod watch;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::machine::StepContext;
use super::trainings::{self, Training};
use crate::dataset::{DatasetError, RowFault, SourceError};
use crate::jobs::JobError;
use crate::traffic::TrafficError;

/// A duration of the configuration, which was validated when it was saved.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

/// How long from `now` until `time`; zero where it has passed.
fn until(now: DateTime<Utc>, time: DateTime<Utc>) -> Duration {
    (time - now).to_std().unwrap_or_default()
}

/// How long the effect of an unanswered call is looked for.
pub(super) fn settle_time(context: &StepContext<'_>) -> TimeDelta {
    TimeDelta::from_std(seconds(context.config.training.settle_seconds)).unwrap_or(TimeDelta::MAX)
}

/// The run's training, which preflight has written down.
async fn training_of(context: &StepContext<'_>) -> Result<Training, JobError> {
    let training = match context.run.training_id {
        Some(id) => trainings::by_id(&context.services.db, id).await?,
        None => None,
    };
    training.ok_or_else(|| broken("its training"))
}

/// A run in this step always has this part; without it the data was tampered with.
fn broken(part: &str) -> JobError {
    JobError::Fatal {
        code: "inconsistent_run".into(),
        message: format!("the run has lost {part}; trigger a new run"),
    }
}

impl From<DatasetError> for JobError {
    fn from(error: DatasetError) -> Self {
        match error {
            DatasetError::Altered(_) | DatasetError::Store(object_store::Error::NotFound { .. }) => {
                Self::Fatal { code: "dataset_lost".into(), message: format!("{error}; trigger a new run") }
            }
            // As they are now, source and settings do not fit, whenever it is tried again.
            DatasetError::Source(SourceError::Unusable(_)) => {
                Self::Fatal { code: "source_unusable".into(), message: error.to_string() }
            }
            DatasetError::Template(_) | DatasetError::Row { fault: RowFault::Template(_), .. } => {
                Self::Fatal { code: "template_failed".into(), message: error.to_string() }
            }
            DatasetError::Row { .. } => {
                Self::Fatal { code: "row_unusable".into(), message: error.to_string() }
            }
            other => Self::Retryable { message: other.to_string(), retry_after: None },
        }
    }
}

impl From<TrafficError> for JobError {
    fn from(error: TrafficError) -> Self {
        match error {
            TrafficError::Database(error) => error.into(),
            other => Self::Fatal { code: "traffic_refused".into(), message: other.to_string() },
        }
    }
}
