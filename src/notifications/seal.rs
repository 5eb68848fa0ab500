//! The job that seals the audit trail, and makes notifications of what it seals.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::deliver;
use super::{events, outbox};
use crate::audit;
use crate::clock::Clock;
use crate::jobs::{self, Done, Handler, JobError, Lease};

/// The kind of the job; its subject is `all`.
const KIND: &str = "audit_seal";
/// Events sealed in one transaction.
const BATCH: i64 = 500;

/// Sees to it that events which wait are sealed.
pub(crate) async fn schedule(db: &PgPool) -> sqlx::Result<()> {
    let waiting = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM audit_unsealed u JOIN audit_events e ON e.id = u.event_id) AS "waiting!""#
    )
    .fetch_one(db)
    .await?;
    if !waiting {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    jobs::enqueue(&mut tx, KIND, "all", &Value::Null, Duration::ZERO).await?;
    tx.commit().await
}

/// Handles the job.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
}

impl Handler for Sealer {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            let mut tx = self.db.begin().await?;
            lease.fence(&mut tx).await?;
            let sealed = audit::seal(&mut tx, BATCH).await?;
            let mut told = BTreeSet::<Uuid>::new();
            for event in &sealed {
                for news in events::of(event) {
                    told.extend(outbox::put(&mut tx, &self.clock, event.event.id, &news).await?);
                }
            }
            for endpoint in told {
                jobs::wake(&mut tx, deliver::KIND, &endpoint.to_string()).await?;
            }
            // The next look is the scheduler's, so that nothing is done where nothing happens.
            if sealed.is_empty() {
                lease.finish(&mut tx).await?;
            } else {
                lease.reschedule(&mut tx, Duration::ZERO).await?;
            }
            tx.commit().await?;
            Ok(Done::Committed)
        }
        .boxed()
    }
}
