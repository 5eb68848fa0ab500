//! Delivering model versions, by number.

use super::client::NewModelVersion;
use super::delivered::DeliveredVersion;
use super::error::MlflowError;
use super::facts::VersionFacts;
use super::job::Stop;
use super::look::{Look, Refused, restored, stored};
use super::record::{VersionRecord, name_of};
use super::store;
use super::wire::Alias;
use crate::halt;

/// The tag that a version is found by: MLflow counts versions itself.
const TAG: &str = "tuneloop.version_id";

/// A version as MLflow knows it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: String,
    /// Absent where it was refused or deleted.
    pub(super) mlflow_version: Option<String>,
}

/// MLflow's number of a version that was not known here.
enum Held {
    /// It was there, and what it says is to be compared.
    Adopted(String),
    /// It was made just now, with all there is to say.
    Created(String),
}

impl Look<'_> {
    /// The aliases of the pipeline's registered model, which is made where there is none.
    pub(super) async fn model(&self) -> Result<Vec<Alias>, Stop> {
        let name = name_of(self.pipeline);
        let mut found = self.client.model(&name).await?;
        if found.is_none() {
            self.lease.check_deadline()?;
            let description = format!("The models of tuneloop's pipeline {}.", self.pipeline);
            self.client.create_model(&name, &description, &[("tuneloop.pipeline", self.pipeline)]).await?;
            found = self.client.model(&name).await?;
        }
        let Some(model) = found else {
            return Err(Stop::Said(format!("MLflow registered the model {name} and does not show it")));
        };
        let told = store::identity(self.db, self.pipeline).await?;
        if told.model_created_at != Some(model.creation_timestamp) {
            let mut tx = self.begin().await?;
            store::meet_model(&mut tx, self.pipeline, model.creation_timestamp).await?;
            tx.commit().await?;
        }
        Ok(model.aliases)
    }

    /// Delivers what is left of each version. What MLflow refuses of one does not hold up the others.
    pub(super) async fn versions(&self, refused: &mut Refused) -> Result<Vec<Told>, Stop> {
        let mut told = Vec::new();
        for facts in store::versions(self.db, self.pipeline, self.settle()).await? {
            let (id, status) = (facts.id, facts.status.clone());
            let name = format!("{}@{}", facts.pipeline, facts.version);
            let mlflow_version = match self.version(facts).await {
                Err(Stop::Mlflow(error)) if error.is_about_the_content() => {
                    let mut tx = self.begin().await?;
                    store::refused_version(&mut tx, id, &error.to_string()).await?;
                    tx.commit().await?;
                    refused.note(&name, &error.to_string());
                    None
                }
                outcome => outcome?,
            };
            told.push(Told { status, mlflow_version });
        }
        Ok(told)
    }

    async fn version(&self, facts: VersionFacts) -> Result<Option<String>, Stop> {
        if facts.gone {
            return Ok(None);
        }
        let record = VersionRecord::of(&facts);
        let model = name_of(self.pipeline);
        let mut delivered: DeliveredVersion = restored(facts.delivered.clone())?;
        let number = match facts.mlflow_version.clone() {
            Some(number) => number,
            None => match self.find_or_create_version(&model, &facts, &record).await? {
                Held::Adopted(number) => number,
                Held::Created(number) => return Ok(Some(number)),
            },
        };
        let (tags, described) = (delivered.tags_left(&record), delivered.description == record.description);
        if facts.mlflow_version.is_some() && tags.is_empty() && described {
            return Ok(Some(number));
        }
        for (name, value) in &tags {
            match self.client.set_version_tag(&model, &number, name, value).await {
                Err(error) if error.is_missing() => {
                    let mut tx = self.begin().await?;
                    store::forsake_version(&mut tx, facts.id).await?;
                    tx.commit().await?;
                    return Ok(None);
                }
                outcome => outcome?,
            }
            halt::point("tracking", "version_tagged");
        }
        if !described {
            self.client.describe_version(&model, &number, &record.description).await?;
        }
        delivered.tags.extend(tags);
        delivered.description.clone_from(&record.description);
        let mut tx = self.begin().await?;
        store::keep_version(&mut tx, facts.id, &number, &stored(&delivered)?).await?;
        tx.commit().await?;
        Ok(Some(number))
    }

    /// MLflow's number of the version, which is kept.
    async fn find_or_create_version(
        &self,
        model: &str,
        facts: &VersionFacts,
        record: &VersionRecord,
    ) -> Result<Held, Stop> {
        let version_id = facts.id.to_string();
        let found = self.client.versions_with_tag(model, TAG, &version_id).await?;
        // Should there be two after all, the first is the one.
        let first = found.into_iter().min_by_key(|found| found.version.parse().unwrap_or(u64::MAX));
        let (held, delivered) = match first {
            Some(found) => (Held::Adopted(found.version), DeliveredVersion::default()),
            None if facts.unsettled => {
                let name = format!("{}@{}", facts.pipeline, facts.version);
                let what = format!("whether it created {name} before the connection was lost");
                return Err(Stop::Said(format!("MLflow is given time to show {what}")));
            }
            None => {
                let number = self.create_version(model, facts, record).await?;
                let (tags, description) = (record.tags.clone(), record.description.clone());
                (Held::Created(number), DeliveredVersion { tags, description })
            }
        };
        let (Held::Adopted(number) | Held::Created(number)) = &held;
        let mut tx = self.begin().await?;
        store::keep_version(&mut tx, facts.id, number, &stored(&delivered)?).await?;
        tx.commit().await?;
        Ok(held)
    }

    async fn create_version(
        &self,
        model: &str,
        facts: &VersionFacts,
        record: &VersionRecord,
    ) -> Result<String, Stop> {
        let mut tx = self.begin().await?;
        store::mark_version(&mut tx, facts.id).await?;
        tx.commit().await?;
        halt::point("tracking", "version_marked");
        self.lease.check_deadline()?;
        let created = self
            .client
            .create_version(&NewModelVersion {
                model,
                source: &record.source,
                run_id: facts.mlflow_run_id.as_deref(),
                description: &record.description,
                tags: record.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            })
            .await;
        halt::point("tracking", "version_created");
        if created.as_ref().is_err_and(MlflowError::changed_nothing) {
            let mut tx = self.begin().await?;
            store::unmark_version(&mut tx, facts.id).await?;
            tx.commit().await?;
        }
        Ok(created?.version)
    }
}
