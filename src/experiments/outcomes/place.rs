//! Where an outcome belongs: its version, the revision it was served under, and the experiment it is evidence in.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::outcome::CLOCK_SKEW;
use super::{Outcome, Sent};
use crate::experiments::statistics::Arm;
use crate::models::Version;

/// Where an outcome belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Uuid,
    /// The traffic revision under which it was served.
    pub(super) revision: i64,
    /// What it is evidence in, if anything.
    pub(super) arm: Option<(Uuid, Arm)>,
}

struct KnownVersion {
    id: Uuid,
    version: Version,
    provider_model_id: String,
}

struct KnownRevision {
    number: i64,
    from: DateTime<Utc>,
    /// The experiment with its candidate and baseline.
    experiment: Option<(Uuid, Uuid, Uuid)>,
    live: Uuid,
    /// Those with a share.
    versions: Vec<Uuid>,
}

impl KnownRevision {
    /// What an outcome of this version is evidence in.
    ///
    /// A version without a share was not assigned. During the test both need one, or nobody was assigned at random; the watch
    /// also compares with what is over, where there is no hold-back.
    fn arm_of(&self, version: Uuid) -> Option<(Uuid, Arm)> {
        let (experiment, candidate, baseline) = self.experiment?;
        let has_share = |version: &Uuid| self.versions.contains(version);
        let watched = self.live == candidate;
        if !has_share(&version) || !(watched || has_share(&candidate) && has_share(&baseline)) {
            return None;
        }
        match version {
            id if id == candidate => Some((experiment, Arm::Candidate)),
            id if id == baseline => Some((experiment, Arm::Baseline)),
            _ => None,
        }
    }
}

/// The versions of the pipelines that a batch names, and the revisions that it may belong to.
pub(super) struct Known(HashMap<String, (Vec<KnownVersion>, Vec<KnownRevision>)>);

impl Known {
    /// Outcomes served before `kept_since` will be refused, whatever is known.
    pub(super) async fn load(
        conn: &mut PgConnection,
        batch: impl Iterator<Item = &Outcome>,
        kept_since: DateTime<Utc>,
    ) -> sqlx::Result<Self> {
        let (mut names, mut revisions) = (HashSet::new(), HashSet::new());
        // The earliest of those that are placed by time.
        let mut from: Option<DateTime<Utc>> = None;
        for outcome in batch {
            names.insert(outcome.pipeline.as_str());
            if let Some(revision) = outcome.revision {
                revisions.insert(revision);
            } else {
                let served_at = outcome.served_at.max(kept_since);
                from = Some(from.map_or(served_at, |from| from.min(served_at)));
            }
        }
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let revisions: Vec<i64> = revisions.into_iter().collect();
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
            r#"SELECT r.pipeline, r.revision, r.created_at, r.live_version_id,
                      CASE WHEN NOT r.kill_switch THEN r.experiment_id END AS experiment_id,
                      e.candidate_id AS "candidate_id?", e.baseline_id AS "baseline_id?",
                      array_agg(w.model_version_id) FILTER (WHERE w.weight > 0) AS "versions!"
                 FROM traffic_revisions r JOIN traffic_weights w USING (pipeline, revision)
                 LEFT JOIN experiments e ON e.id = r.experiment_id
                -- Those that are named, and those in force at any time since the earliest.
                WHERE r.pipeline = ANY($1)
                  AND (r.revision = ANY($2) OR $3::timestamptz IS NOT NULL
                       AND r.revision >= (SELECT coalesce(max(f.revision), 0) FROM traffic_revisions f
                                          WHERE f.pipeline = r.pipeline AND f.created_at <= $3))
                GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY r.revision DESC"#,
            &names,
            &revisions,
            from,
        )
        .fetch_all(conn)
        .await?;
        for row in revisions {
            known.entry(row.pipeline).or_default().1.push(KnownRevision {
                number: row.revision,
                from: row.created_at,
                experiment: row
                    .experiment_id
                    .zip(row.candidate_id.zip(row.baseline_id))
                    .map(|(experiment, (candidate, baseline))| (experiment, candidate, baseline)),
                live: row.live_version_id,
                versions: row.versions,
            });
        }
        Ok(Self(known))
    }

    /// Where an outcome belongs, or why it belongs nowhere.
    pub(super) fn place(&self, outcome: &Outcome) -> Result<Place, String> {
        let (versions, revisions) = self
            .0
            .get(&outcome.pipeline)
            .ok_or_else(|| format!("there is no pipeline {:?}", outcome.pipeline))?;
        let version = match (outcome.version, &outcome.model_id) {
            (Some(wanted), model) => {
                let known = versions
                    .iter()
                    .find(|known| known.version == wanted)
                    .ok_or_else(|| format!("pipeline {} has no version {wanted}", outcome.pipeline))?;
                if model.as_ref().is_some_and(|model| *model != known.provider_model_id) {
                    return Err(format!(
                        "version {wanted} is the model {:?}: give the one that served, or only one of the two",
                        known.provider_model_id
                    ));
                }
                known
            }
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
        if outcome.served_at < revision.from - CLOCK_SKEW {
            return Err(format!("served_at is before revision {} came into force", revision.number));
        }
        Ok(Place { version: version.id, revision: revision.number, arm: revision.arm_of(version.id) })
    }
}

/// Outcomes of units that were pinned when they were served are kept, not analysed.
pub(super) async fn leave_out_pinned(conn: &mut PgConnection, sent: &mut [Sent]) -> sqlx::Result<()> {
    let pipelines: Vec<&str> = sent.iter().map(|sent| sent.outcome.pipeline.as_str()).collect();
    let units: Vec<&str> = sent.iter().map(|sent| sent.outcome.unit.as_str()).collect();
    let times: Vec<_> = sent.iter().map(|sent| sent.outcome.served_at).collect();
    let pinned = sqlx::query_scalar!(
        // The function is called only for the few units that were ever pinned.
        r#"WITH ever AS MATERIALIZED (
               SELECT sent.* FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY
                                  AS sent (pipeline, unit, served_at, position)
                WHERE EXISTS (SELECT FROM unit_pins p WHERE p.pipeline = sent.pipeline AND p.unit = sent.unit))
           SELECT position AS "position!" FROM ever WHERE unit_pinned_at(pipeline, unit, served_at)"#,
        &pipelines as &[&str],
        &units as &[&str],
        &times,
    )
    .fetch_all(conn)
    .await?;
    for position in pinned {
        if let Some(sent) = usize::try_from(position - 1).ok().and_then(|index| sent.get_mut(index)) {
            sent.place.arm = None;
        }
    }
    Ok(())
}
