//! MLflow is told of runs and model versions. It is never in the way: nothing waits for it, and what it was not told while it was away
//! it is told afterwards, once.
//!
//! One job per pipeline compares what the database holds with what was delivered and delivers the difference: runs by
//! creation, versions by number, aliases last. It reads state, not events, so that whatever was missed is
//! found at the next look. Before anything is created it is looked for by a tag, and adopted.

mod aliases;
mod client;
mod delivered;
mod error;
mod facts;
mod flatten;
mod job;
mod look;
mod record;
mod runs;
mod settings;
mod store;
mod versions;
mod wire;

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;

use crate::jobs;

pub use job::Tracking;
pub use settings::{MlflowAccess, MlflowSettings};
pub use store::{TrackingState, TrackingStatus, state};

/// The kind of job; its subject is the pipeline.
const KIND: &str = "tracking";

/// Sees to it that MLflow is told of whatever is new. A job that waits for its next attempt is left to wait.
pub(crate) async fn schedule(db: &PgPool) -> sqlx::Result<()> {
    for pipeline in store::due(db).await? {
        let mut tx = db.begin().await?;
        jobs::enqueue(&mut tx, KIND, &pipeline, &Value::Null, Duration::ZERO).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The name of a pipeline's experiment and registered model in MLflow.
#[must_use]
pub fn name_of(pipeline: &str) -> String {
    record::name_of(pipeline)
}
