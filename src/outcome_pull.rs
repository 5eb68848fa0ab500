//! Reads the outcomes of a pipeline from its application's own database, again and again: one job per pipeline.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::dataset::{OutcomeQuery, Sources};
use crate::experiments::outcomes::{self, Outcome, PullCounts, Recording, Repeats};
use crate::jobs::{self, Done, Handler, JobError, Lease};
use crate::pipelines::{self, Pipeline, PipelineConfig, PullSettings};

/// The kind of job; its subject is the pipeline.
const KIND: &str = "outcome_pull";

/// Sees to it that the outcomes of a pipeline are pulled, if its settings say so.
pub(crate) async fn schedule(conn: &mut PgConnection, pipeline: &Pipeline) -> sqlx::Result<()> {
    if pipeline.config.outcomes.pull.is_some() {
        jobs::enqueue(conn, KIND, &pipeline.name, &Value::Null, Duration::ZERO).await?;
    }
    Ok(())
}

/// Has changed settings come into effect at once. Another query begins at the pipeline's first traffic.
pub(crate) async fn changed(
    conn: &mut PgConnection,
    before: Option<&PipelineConfig>,
    after: &Pipeline,
) -> sqlx::Result<()> {
    let before = before.and_then(|config| config.outcomes.pull.as_ref());
    let after_pull = after.config.outcomes.pull.as_ref();
    if before == after_pull {
        return Ok(());
    }
    let source = |pull: Option<&PullSettings>| pull.map(|pull| (pull.url_env.clone(), pull.query.clone()));
    if after_pull.is_some() && source(before) != source(after_pull) {
        outcomes::pull_anew(conn, &after.name).await?;
    }
    jobs::wake(conn, KIND, &after.name).await
}

/// Handles the job.
#[derive(Debug)]
pub(crate) struct OutcomePull {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) sources: Sources,
    pub(crate) retention: TimeDelta,
}

impl Handler for OutcomePull {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            let pipeline = pipelines::by_name(&self.db, &lease.subject).await?;
            let Some(settings) = pipeline.and_then(|pipeline| pipeline.config.outcomes.pull) else {
                return Ok(Done::Finished);
            };
            lease.keep(&self.db, Box::pin(self.pull(lease, &settings))).await??;
            Ok(Done::Committed)
        }
        .boxed()
    }
}

impl OutcomePull {
    async fn pull(&self, lease: &Lease, settings: &PullSettings) -> Result<(), JobError> {
        let pipeline = &lease.subject;
        let now = self.clock.now();
        let until = now - span(settings.maturity_seconds);
        let since = match outcomes::pull_state(&self.db, pipeline).await?.and_then(|state| state.watermark) {
            Some(watermark) => watermark - span(settings.revisit_seconds),
            None => first_traffic(&self.db, pipeline).await?,
        };
        let query = OutcomeQuery::new(settings.url_env.as_deref(), &settings.query, settings.timeout_seconds);
        let (batches, received) = mpsc::channel(2);
        let read = self.sources.read_outcomes(&query, since, until, batches);
        let (read, recorded) = tokio::join!(read, self.record(pipeline, received));
        let counts = recorded?;
        let mut tx = self.db.begin().await?;
        match read {
            Ok(()) => outcomes::pulled(&mut tx, pipeline, until, &counts).await?,
            // Not a failure of this service: told, and tried again in time, for as long as the settings ask for it.
            Err(error) => {
                tracing::warn!(%error, pipeline, "outcomes could not be pulled");
                outcomes::pull_failed(&mut tx, pipeline, &error.to_string()).await?;
            }
        }
        lease.reschedule(&mut tx, Duration::from_secs_f64(settings.interval_seconds)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Records batches as they come. A worker that is stopped in between has recorded some; the next one reads them again.
    async fn record(
        &self,
        pipeline: &str,
        mut batches: mpsc::Receiver<Vec<Box<RawValue>>>,
    ) -> Result<PullCounts, JobError> {
        let mut counts = PullCounts::default();
        while let Some(rows) = batches.recv().await {
            let ids: Vec<_> = rows.iter().map(|row| id_of(row)).collect();
            let batch = rows.iter().map(|row| outcome(row, pipeline)).collect();
            let how =
                Recording { now: self.clock.now(), retention: self.retention, repeats: Repeats::Replace };
            let mut tx = self.db.begin().await?;
            let recorded = outcomes::record(&mut tx, batch, how).await?;
            tx.commit().await?;
            counts.add(recorded, &ids);
        }
        Ok(counts)
    }
}

fn id_of(row: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        id: Option<String>,
    }
    serde_json::from_str::<Id>(row.get()).ok()?.id
}

/// A row as an outcome of the pipeline.
fn outcome(row: &RawValue, pipeline: &str) -> Result<Outcome, String> {
    let read = || {
        let mut fields: Map<String, Value> = serde_json::from_str(row.get())?;
        fields.insert("pipeline".into(), pipeline.into());
        serde_json::from_value(fields.into())
    };
    read().map_err(|error: serde_json::Error| format!("is not an outcome: {error}"))
}

/// When the pipeline first had traffic: nothing before that can be an outcome.
async fn first_traffic(db: &PgPool, pipeline: &str) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        r#"SELECT min(created_at) AS "at!" FROM traffic_revisions WHERE pipeline = $1"#,
        pipeline,
    )
    .fetch_one(db)
    .await
}

fn span(seconds: f64) -> TimeDelta {
    TimeDelta::from_std(Duration::from_secs_f64(seconds)).unwrap_or(TimeDelta::MAX)
}
