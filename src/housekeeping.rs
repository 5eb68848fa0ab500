//! What is deleted because nobody needs it any more: answers to old requests, finished jobs.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgPool;

use crate::api::idempotency;
use crate::experiments::outcomes;
use crate::jobs::{self, Done, Handler, JobError, Lease};
use crate::notifications;
use crate::schedule::HOUSEKEEPING;

/// Finished jobs are kept this long, for those who look for what happened.
const FINISHED_JOBS: Duration = Duration::from_hours(7 * 24);

/// A notice is refused when it is older than five minutes: this is long enough not to act on one twice.
const WEBHOOK_RECEIPTS: Duration = Duration::from_hours(24);

/// What endpoints answered is kept this long.
const WEBHOOK_DELIVERIES: Duration = Duration::from_hours(30 * 24);

/// Texts that wait for a judge are deleted after this long, scored or not.
const OUTCOME_TEXTS: TimeDelta = TimeDelta::days(2);

/// Handles the job that the scheduler inserts every hour.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    pub(crate) db: PgPool,
    pub(crate) outcome_retention: TimeDelta,
}

impl Handler for Housekeeping {
    fn kind(&self) -> &'static str {
        HOUSEKEEPING
    }

    fn run<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            let keys = idempotency::expire(&self.db).await?;
            let jobs = jobs::delete_finished(&self.db, FINISHED_JOBS).await?;
            let receipts = sqlx::query!(
                "DELETE FROM webhook_receipts WHERE received_at < now() - make_interval(secs => $1)",
                WEBHOOK_RECEIPTS.as_secs_f64(),
            )
            .execute(&self.db)
            .await?
            .rows_affected();
            let deliveries = notifications::expire(&self.db, WEBHOOK_DELIVERIES).await?;
            let texts = outcomes::expire_samples(&self.db, OUTCOME_TEXTS).await?;
            // Last, because it gives up where the tables are busy.
            let months = outcomes::drop_older_than(&self.db, self.outcome_retention).await?;
            tracing::info!(
                keys,
                jobs,
                receipts,
                deliveries,
                months,
                texts,
                "deleted old idempotency keys, finished jobs, webhook receipts, webhook deliveries, months of outcomes and texts that waited for a judge"
            );
            Ok(Done::Finished)
        }
        .boxed()
    }
}
