//! Recording what was observed of served versions, a batch at a time.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::models::Version;

/// The most outcomes in one call.
pub const MAX_BATCH: usize = 10_000;
/// How far ahead of the service's clock an outcome's time may be.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// Costs (dollars) and latencies (milliseconds) above this are mistakes; their squares would not fit a sum.
const MOST: f64 = 1e12;
/// Below this a number is zero for every purpose, and its square would underflow.
const LEAST: f64 = 1e-100;
/// The times that can be stored and compared.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;

/// One observation of a served version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The caller's id of this observation, unique in the pipeline; a repeat is counted, never doubled.
    #[schema(min_length = 1, max_length = 200)]
    pub id: String,
    /// The pipeline.
    pub pipeline: String,
    /// The version that served, such as `1.4.0`; or give `model_id`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub version: Option<Version>,
    /// The provider's model id that served; or give `version`.
    #[serde(default)]
    pub model_id: Option<String>,
    /// What was assigned: a post, a request, a user.
    pub unit: String,
    /// Whom the outcomes of several units belong to; the statistics treat them as dependent.
    #[serde(default)]
    pub persona: Option<String>,
    /// When it was served.
    pub served_at: DateTime<Utc>,
    /// The traffic revision that the assignment named; found by `served_at` where absent.
    #[serde(default)]
    pub revision: Option<i64>,
    /// Engagements per impression, 0 to 1.
    #[serde(default)]
    pub engagement_rate: Option<f64>,
    /// How many people engaged.
    #[serde(default)]
    pub engagements: Option<i64>,
    /// How many people saw it.
    #[serde(default)]
    pub impressions: Option<i64>,
    /// What serving it cost, in dollars.
    #[serde(default)]
    pub cost: Option<f64>,
    /// A score, 0 to 1.
    #[serde(default)]
    pub quality: Option<f64>,
    /// Milliseconds to the answer.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// Whether serving failed.
    #[serde(default)]
    pub failed: Option<bool>,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Recorded {
    /// Newly recorded.
    pub accepted: u64,
    /// Known already, and left as they are.
    pub duplicates: u64,
    /// Left out, each with its reason.
    pub rejected: Vec<Rejected>,
}

/// An outcome that was left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What to change, in one sentence.
    pub reason: String,
}

/// Records the valid outcomes of a batch; those that are not are told with their index.
pub async fn record(
    conn: &mut PgConnection,
    batch: Vec<Outcome>,
    now: DateTime<Utc>,
) -> sqlx::Result<Recorded> {
    let known = Known::load(conn, &batch).await?;
    let mut recorded = Recorded::default();
    let mut rows = Rows::default();
    let mut seen = HashSet::new();
    for (index, outcome) in batch.into_iter().enumerate() {
        match known.place(&outcome, now) {
            Ok(place) if seen.insert((outcome.pipeline.clone(), outcome.id.clone())) => {
                rows.push(outcome, &place);
            }
            Ok(_) => recorded.duplicates += 1,
            Err(reason) => recorded.rejected.push(Rejected { index, reason }),
        }
    }
    let sent = rows.id.len() as u64;
    recorded.accepted = rows.insert(conn).await?;
    recorded.duplicates += sent - recorded.accepted;
    Ok(recorded)
}

/// Where an outcome belongs.
struct Place {
    version: Uuid,
    revision: i64,
    experiment: Option<Uuid>,
}

struct KnownVersion {
    id: Uuid,
    version: Version,
    provider_model_id: String,
}

struct KnownRevision {
    number: i64,
    from: DateTime<Utc>,
    experiment: Option<Uuid>,
    versions: Vec<Uuid>,
}

/// The versions and revisions of the pipelines that a batch names.
struct Known(HashMap<String, (Vec<KnownVersion>, Vec<KnownRevision>)>);

impl Known {
    async fn load(conn: &mut PgConnection, batch: &[Outcome]) -> sqlx::Result<Self> {
        let names: HashSet<&str> = batch.iter().map(|outcome| outcome.pipeline.as_str()).collect();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut known: HashMap<String, (Vec<_>, Vec<_>)> = HashMap::new();
        let versions = sqlx::query!(
            "SELECT pipeline, id, major, minor, patch, provider_model_id FROM model_versions
              WHERE pipeline = ANY($1) ORDER BY major DESC, minor DESC, patch DESC",
            &names,
        )
        .fetch_all(&mut *conn)
        .await?;
        for row in versions {
            known.entry(row.pipeline).or_default().0.push(KnownVersion {
                id: row.id,
                version: Version { major: row.major, minor: row.minor, patch: row.patch },
                provider_model_id: row.provider_model_id,
            });
        }
        let revisions = sqlx::query!(
            // What was served under the kill switch is kept, not analysed.
            r#"SELECT r.pipeline, r.revision, r.created_at,
                      CASE WHEN NOT r.kill_switch THEN r.experiment_id END AS experiment_id,
                      array_agg(w.model_version_id) FILTER (WHERE w.weight > 0) AS "versions!"
                 FROM traffic_revisions r JOIN traffic_weights w USING (pipeline, revision)
                WHERE r.pipeline = ANY($1) GROUP BY 1, 2, 3, 4 ORDER BY r.revision DESC"#,
            &names,
        )
        .fetch_all(conn)
        .await?;
        for row in revisions {
            known.entry(row.pipeline).or_default().1.push(KnownRevision {
                number: row.revision,
                from: row.created_at,
                experiment: row.experiment_id,
                versions: row.versions,
            });
        }
        Ok(Self(known))
    }

    /// Where a valid outcome belongs, or what is wrong with it.
    fn place(&self, outcome: &Outcome, now: DateTime<Utc>) -> Result<Place, String> {
        check_values(outcome, now)?;
        let (versions, revisions) = self
            .0
            .get(&outcome.pipeline)
            .ok_or_else(|| format!("there is no pipeline {:?}", outcome.pipeline))?;
        let version = match (outcome.version, &outcome.model_id) {
            (Some(wanted), _) => versions
                .iter()
                .find(|known| known.version == wanted)
                .ok_or_else(|| format!("pipeline {} has no version {wanted}", outcome.pipeline))?,
            (None, Some(model)) => {
                versions.iter().find(|known| known.provider_model_id == *model).ok_or_else(|| {
                    format!("no version of pipeline {} is the model {model:?}", outcome.pipeline)
                })?
            }
            (None, None) => return Err("give the version or the model_id that served".into()),
        };
        let revision = match outcome.revision {
            Some(number) => revisions
                .iter()
                .find(|known| known.number == number)
                .ok_or_else(|| format!("pipeline {} has no traffic revision {number}", outcome.pipeline))?,
            None => revisions
                .iter()
                .find(|known| known.from <= outcome.served_at)
                .ok_or("served_at is before the pipeline had any traffic")?,
        };
        // A version that the revision did not send traffic to was not assigned by it: kept, not analysed.
        let experiment = revision.experiment.filter(|_| revision.versions.contains(&version.id));
        Ok(Place { version: version.id, revision: revision.number, experiment })
    }
}

fn check_values(outcome: &Outcome, now: DateTime<Utc>) -> Result<(), String> {
    let text = |name: &str, value: &str| {
        if value.is_empty() || value.len() > 200 || value.contains('\0') {
            Err(format!("{name} must have 1 to 200 bytes and no NUL"))
        } else {
            Ok(())
        }
    };
    text("id", &outcome.id)?;
    text("unit", &outcome.unit)?;
    outcome.persona.as_deref().map_or(Ok(()), |persona| text("persona", persona))?;
    if outcome.served_at > now + CLOCK_SKEW {
        return Err("served_at is in the future; give the time at which it was served, in UTC".into());
    }
    for (name, value, most) in [
        ("engagement_rate", outcome.engagement_rate, 1.0),
        ("quality", outcome.quality, 1.0),
        ("cost", outcome.cost, MOST),
        ("latency_ms", outcome.latency_ms, MOST),
    ] {
        if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
            return Err(format!("{name} must be between 0 and {most}"));
        }
    }
    if !YEARS.contains(&outcome.served_at.year()) {
        return Err(format!("served_at must be between the years {} and {}", YEARS.start(), YEARS.end()));
    }
    for (name, value) in [("engagements", outcome.engagements), ("impressions", outcome.impressions)] {
        if value.is_some_and(|value| value < 0) {
            return Err(format!("{name} must be 0 or more"));
        }
    }
    Ok(())
}

fn not_tiny(value: f64) -> f64 {
    if value < LEAST { 0.0 } else { value }
}

/// The valid outcomes of a batch, by column.
#[derive(Default)]
struct Rows {
    pipeline: Vec<String>,
    id: Vec<String>,
    version: Vec<Uuid>,
    revision: Vec<i64>,
    experiment: Vec<Option<Uuid>>,
    unit: Vec<String>,
    persona: Vec<Option<String>>,
    served_at: Vec<DateTime<Utc>>,
    engagement_rate: Vec<Option<f64>>,
    engagements: Vec<Option<i64>>,
    impressions: Vec<Option<i64>>,
    cost: Vec<Option<f64>>,
    quality: Vec<Option<f64>>,
    latency_ms: Vec<Option<f64>>,
    failed: Vec<Option<bool>>,
}

impl Rows {
    fn push(&mut self, outcome: Outcome, place: &Place) {
        self.pipeline.push(outcome.pipeline);
        self.id.push(outcome.id);
        self.version.push(place.version);
        self.revision.push(place.revision);
        self.experiment.push(place.experiment);
        self.unit.push(outcome.unit);
        self.persona.push(outcome.persona);
        self.served_at.push(outcome.served_at);
        self.engagement_rate.push(outcome.engagement_rate.map(not_tiny));
        self.engagements.push(outcome.engagements);
        self.impressions.push(outcome.impressions);
        self.cost.push(outcome.cost.map(not_tiny));
        self.quality.push(outcome.quality.map(not_tiny));
        self.latency_ms.push(outcome.latency_ms.map(not_tiny));
        self.failed.push(outcome.failed);
    }

    /// Inserts what is not known yet and returns how many rows that was.
    async fn insert(self, conn: &mut PgConnection) -> sqlx::Result<u64> {
        if self.id.is_empty() {
            return Ok(0);
        }
        let done = sqlx::query!(
            "INSERT INTO outcomes (pipeline, id, model_version_id, revision, experiment_id, unit, persona,
                    served_at, engagement_rate, engagements, impressions, cost, quality, latency_ms, failed)
             SELECT pipeline, id, version, revision,
                    CASE WHEN NOT unit_pinned_at(pipeline, unit, served_at) THEN experiment END, unit, persona,
                    served_at, engagement_rate, engagements, impressions, cost, quality, latency_ms, failed
               FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::uuid[], $6::text[],
                    $7::text[], $8::timestamptz[], $9::float8[], $10::bigint[], $11::bigint[], $12::float8[],
                    $13::float8[], $14::float8[], $15::boolean[])
                 AS sent (pipeline, id, version, revision, experiment, unit, persona, served_at, engagement_rate,
                    engagements, impressions, cost, quality, latency_ms, failed)
             ON CONFLICT (pipeline, id) DO NOTHING",
            &self.pipeline,
            &self.id,
            &self.version,
            &self.revision,
            &self.experiment as &[Option<Uuid>],
            &self.unit,
            &self.persona as &[Option<String>],
            &self.served_at,
            &self.engagement_rate as &[Option<f64>],
            &self.engagements as &[Option<i64>],
            &self.impressions as &[Option<i64>],
            &self.cost as &[Option<f64>],
            &self.quality as &[Option<f64>],
            &self.latency_ms as &[Option<f64>],
            &self.failed as &[Option<bool>],
        )
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }
}
