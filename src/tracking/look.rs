//! One look at a pipeline: everything that MLflow lacks is delivered, in order.

use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};

use super::client::Client;
use super::job::Stop;
use super::record::name_of;
use super::store;
use crate::jobs::Lease;

/// What a look works with.
pub(super) struct Look<'a> {
    pub(super) db: &'a PgPool,
    pub(super) client: &'a Client,
    pub(super) lease: &'a Lease,
    pub(super) pipeline: &'a str,
}

/// What MLflow refused: the rest is delivered all the same, and then this is told.
#[derive(Debug, Default)]
pub(super) struct Refused {
    first: Option<String>,
    count: usize,
}

impl Refused {
    pub(super) fn note(&mut self, what: &str, error: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{what}: {error}"));
    }

    fn into_result(self) -> Result<(), Stop> {
        match (self.first, self.count) {
            (None, _) => Ok(()),
            (Some(first), 1) => Err(Stop::Said(first)),
            (Some(first), count) => Err(Stop::Said(format!("{first} (and {} more)", count - 1))),
        }
    }
}

impl Look<'_> {
    /// Brings MLflow up to date and ends the job.
    pub(super) async fn deliver(&self) -> Result<(), Stop> {
        // Before anything else is read, so that whatever comes later is found to be new.
        let newest_event = store::identity(self.db, self.pipeline).await?.newest_event;
        let experiment = self.experiment().await?;
        let mut refused = Refused::default();
        self.runs(&experiment, &mut refused).await?;
        let aliases = self.model().await?;
        let versions = self.versions(&mut refused).await?;
        self.aliases(&aliases, &versions).await?;
        refused.into_result()?;
        let mut tx = self.db.begin().await?;
        self.lease.finish(&mut tx).await?;
        store::delivered(&mut tx, self.pipeline, newest_event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A transaction in which this worker holds the job.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Stop> {
        let mut tx = self.db.begin().await?;
        self.lease.fence(&mut tx).await?;
        Ok(tx)
    }

    /// How long an unanswered create is waited for, in seconds.
    pub(super) fn settle(&self) -> f64 {
        self.client.settle().as_secs_f64()
    }

    /// The pipeline's experiment, made where there is none. Where it is not the one that was told before, all is told anew.
    async fn experiment(&self) -> Result<String, Stop> {
        let name = name_of(self.pipeline);
        let mut found = self.client.experiment(&name).await?;
        if found.is_none() {
            self.lease.check_deadline()?;
            self.client.create_experiment(&name, &[("tuneloop.pipeline", self.pipeline)]).await?;
            found = self.client.experiment(&name).await?;
        }
        let Some(experiment) = found else {
            return Err(Stop::Said(format!("MLflow created the experiment {name} and does not show it")));
        };
        if experiment.lifecycle_stage == "deleted" {
            return Err(Stop::Said(format!(
                "the experiment {name} was deleted in MLflow: restore it there, or delete it for good with `mlflow gc`"
            )));
        }
        let told = store::identity(self.db, self.pipeline).await?;
        let same = told.server.as_deref() == Some(self.client.server())
            && told.experiment_id.as_deref() == Some(experiment.id.as_str())
            && told.experiment_created_at == Some(experiment.creation_time);
        if !same {
            let mut tx = self.begin().await?;
            let (id, created_at) = (&experiment.id, experiment.creation_time);
            store::meet_server(&mut tx, self.pipeline, self.client.server(), id, created_at).await?;
            tx.commit().await?;
        }
        Ok(experiment.id)
    }
}

/// What is kept of what was delivered, as it is stored.
pub(super) fn stored(delivered: &impl serde::Serialize) -> Result<Value, Stop> {
    serde_json::to_value(delivered).map_err(|error| sqlx::Error::Encode(error.into()).into())
}

/// What was stored of what was delivered.
pub(super) fn restored<T: serde::de::DeserializeOwned>(stored: Value) -> Result<T, Stop> {
    serde_json::from_value(stored).map_err(|error| sqlx::Error::Decode(error.into()).into())
}
