//! What serves, in memory: everything that is needed to assign a unit of any pipeline, as of one moment.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::assignment::{bucket, share_of};
use crate::models::{Version, VersionStatus};

/// The traffic of all pipelines at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pipelines: HashMap<String, PipelineTraffic>,
}

/// The traffic of a pipeline.
#[derive(Debug)]
pub struct PipelineTraffic {
    /// The revision in force.
    pub revision: i64,
    /// The experiment that the traffic belongs to, through its watch.
    pub experiment: Option<ServingExperiment>,
    /// Whether everything goes to the live version.
    pub kill_switch: bool,
    salt: String,
    /// In the order in which weights are accumulated.
    shares: Vec<(ServingVersion, i32)>,
    pins: Arc<Pins>,
    /// The versions that units are pinned to and that can serve.
    pinned_versions: HashMap<Uuid, ServingVersion>,
}

/// An experiment and its two versions.
#[derive(Debug, Clone, Copy)]
pub struct ServingExperiment {
    /// The experiment.
    pub id: Uuid,
    /// The version that was live when it began.
    pub baseline: Uuid,
    /// The version under test.
    pub candidate: Uuid,
}

/// A version as callers know it.
#[derive(Debug, Clone)]
pub struct ServingVersion {
    /// Its key.
    pub id: Uuid,
    /// Its name within the pipeline.
    pub version: Version,
    /// What applications call at the provider.
    pub provider_model_id: String,
}

/// What decided who serves a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedBy {
    /// The traffic split.
    Split,
    /// A pin of the unit.
    Pin,
    /// The kill switch.
    KillSwitch,
}

/// The pins of a pipeline: read again only when its `pins_revision` has moved.
#[derive(Debug, Default)]
struct Pins {
    revision: i64,
    versions: HashMap<Box<str>, Uuid>,
}

impl Snapshot {
    /// Reads what serves, all of it as of one moment. `earlier` lends the pins that have not changed since.
    pub async fn load(conn: &mut PgConnection, earlier: Option<&Self>) -> sqlx::Result<Self> {
        let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let mut shares = shares(&mut tx).await?;
        let revisions = sqlx::query!(
            r#"SELECT p.name, p.pins_revision, r.revision, r.salt, r.kill_switch, e.id AS "experiment?",
                      e.baseline_id AS "baseline?", e.candidate_id AS "candidate?"
                 FROM pipelines p
                 JOIN traffic_revisions r ON r.pipeline = p.name AND r.revision = p.traffic_revision
                 LEFT JOIN experiments e ON e.id = r.experiment_id"#
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut pipelines = HashMap::with_capacity(revisions.len());
        for row in revisions {
            let known = earlier.and_then(|earlier| earlier.pipelines.get(&row.name));
            let pins = match known.map(|traffic| &traffic.pins) {
                Some(pins) if pins.revision == row.pins_revision => pins.clone(),
                _ => Arc::new(Pins::load(&mut tx, &row.name, row.pins_revision).await?),
            };
            let experiment = match (row.experiment, row.baseline, row.candidate) {
                (Some(id), Some(baseline), Some(candidate)) => {
                    Some(ServingExperiment { id, baseline, candidate })
                }
                _ => None,
            };
            let traffic = PipelineTraffic {
                revision: row.revision,
                experiment,
                kill_switch: row.kill_switch,
                salt: row.salt,
                shares: shares.remove(&row.name).unwrap_or_default(),
                pinned_versions: pins.serving_versions(&mut tx).await?,
                pins,
            };
            pipelines.insert(row.name, traffic);
        }
        tx.commit().await?;
        Ok(Self { pipelines })
    }

    /// The traffic of a pipeline; `None` when there was no such pipeline.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<&PipelineTraffic> {
        self.pipelines.get(name)
    }
}

impl PipelineTraffic {
    /// The version that serves a unit, and what decided it: the kill switch before a pin before the split. A pin to a
    /// version that cannot serve any more is passed over.
    ///
    /// `None` only if the weights do not reach 10,000, which the database forbids.
    #[must_use]
    pub fn assign(&self, unit: &str) -> Option<(&ServingVersion, AssignedBy)> {
        if !self.kill_switch
            && let Some(version) = self.pins.versions.get(unit)
            && let Some(version) = self.pinned_versions.get(version)
        {
            return Some((version, AssignedBy::Pin));
        }
        let weights = self.shares.iter().map(|(_, weight)| *weight);
        let (version, _) = share_of(bucket(&self.salt, unit), weights).and_then(|i| self.shares.get(i))?;
        Some((version, if self.kill_switch { AssignedBy::KillSwitch } else { AssignedBy::Split }))
    }
}

impl Pins {
    async fn load(conn: &mut PgConnection, pipeline: &str, revision: i64) -> sqlx::Result<Self> {
        let rows = sqlx::query!(
            "SELECT unit, model_version_id FROM unit_pins WHERE pipeline = $1 AND released_at IS NULL",
            pipeline,
        )
        .fetch_all(conn)
        .await?;
        let versions = rows.into_iter().map(|row| (row.unit.into_boxed_str(), row.model_version_id));
        Ok(Self { revision, versions: versions.collect() })
    }

    /// The statuses of versions change without the pins.
    async fn serving_versions(&self, conn: &mut PgConnection) -> sqlx::Result<HashMap<Uuid, ServingVersion>> {
        if self.versions.is_empty() {
            return Ok(HashMap::new());
        }
        let mut ids: Vec<Uuid> = self.versions.values().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = sqlx::query!(
            r#"SELECT id, major, minor, patch, provider_model_id, status AS "status: VersionStatus"
                 FROM model_versions WHERE id = ANY($1)"#,
            &ids,
        )
        .fetch_all(conn)
        .await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.status.can_serve())
            .map(|row| {
                let version = Version { major: row.major, minor: row.minor, patch: row.patch };
                let provider_model_id = row.provider_model_id;
                (row.id, ServingVersion { id: row.id, version, provider_model_id })
            })
            .collect())
    }
}

/// The shares of the revisions in force, by pipeline, each in its order of accumulation.
async fn shares(conn: &mut PgConnection) -> sqlx::Result<HashMap<String, Vec<(ServingVersion, i32)>>> {
    let rows = sqlx::query!(
        "SELECT w.pipeline, w.weight, v.id, v.major, v.minor, v.patch, v.provider_model_id
           FROM pipelines p
           JOIN traffic_weights w ON w.pipeline = p.name AND w.revision = p.traffic_revision
           JOIN model_versions v ON v.id = w.model_version_id
          ORDER BY w.pipeline, w.position"
    )
    .fetch_all(conn)
    .await?;
    let mut shares: HashMap<String, Vec<_>> = HashMap::new();
    for row in rows {
        let version = Version { major: row.major, minor: row.minor, patch: row.patch };
        let serving = ServingVersion { id: row.id, version, provider_model_id: row.provider_model_id };
        shares.entry(row.pipeline).or_default().push((serving, row.weight));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests;
