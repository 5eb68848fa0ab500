//! Outcomes that were recorded before and are told with other values: the last ones count, once.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::outcome::{Values, not_tiny};
use super::rows::ValueColumns;
use super::{Recorded, Rejected, Sent, samples};

/// An outcome whose values have changed.
#[derive(Debug)]
pub(super) struct Correction {
    number: i64,
    /// The experiment it is evidence in, and whether the candidate served it.
    pub(super) arm: Option<(Uuid, bool)>,
    pub(super) revision: i64,
    pub(super) unit: String,
    pub(super) persona: Option<String>,
    served_at: chrono::DateTime<chrono::Utc>,
    pub(super) before: Values,
    pub(super) after: Values,
    /// Whether the quality is a judge's, before and after.
    judged: (bool, bool),
}

#[derive(Debug, Default)]
pub(super) struct Corrections(pub(super) Vec<Correction>);

/// Writes the values of outcomes that are known, where they differ. What would move an outcome elsewhere is refused.
pub(super) async fn replace(
    conn: &mut PgConnection,
    repeats: Vec<Sent>,
    recorded: &mut Recorded,
) -> sqlx::Result<Corrections> {
    if repeats.is_empty() {
        return Ok(Corrections::default());
    }
    let keys = repeats.iter().map(|sent| (sent.outcome.pipeline.as_str(), sent.outcome.id.as_str()));
    let mut known = load(conn, keys).await?;
    let mut corrections = Vec::new();
    for Sent { index, outcome, values, place } in repeats {
        // Not there: so old that it was deleted.
        let Some(mut row) = known.remove(&(outcome.pipeline.clone(), outcome.id.clone())) else {
            recorded.duplicates += 1;
            continue;
        };
        let same_place = row.version == place.version
            && row.correction.unit == outcome.unit
            && row.correction.persona == outcome.persona
            // The database keeps microseconds.
            && (row.correction.served_at - outcome.served_at).num_microseconds() == Some(0);
        if !same_place {
            recorded.rejected.push(Rejected { index, reason: elsewhere(&outcome.id) });
            continue;
        }
        // A rate grows for days and is told again, without what has not changed or what only a judge knows.
        row.correction.after = values.or(row.correction.before);
        row.correction.judged.1 &= values.quality.is_none();
        if row.correction.changes() {
            recorded.corrected += 1;
            corrections.push(row.correction);
        } else {
            recorded.duplicates += 1;
        }
    }
    store(conn, &corrections).await?;
    // What has a quality now needs no judge.
    let told = corrections.iter().filter(|correction| correction.after.quality.is_some());
    let told: Vec<i64> = told.map(|correction| correction.number).collect();
    samples::forget(conn, &told).await?;
    Ok(Corrections(corrections))
}

/// Why a known id with another place is refused.
fn elsewhere(id: &str) -> String {
    format!(
        "outcome {id:?} was recorded with another version, unit, persona or served_at, and only what was measured can be \
         corrected"
    )
}

/// Writes a judge's scores, by number with their ids, as the qualities of outcomes of a pipeline that have none.
pub(super) async fn judged(
    conn: &mut PgConnection,
    pipeline: &str,
    scores: &HashMap<i64, (String, f64)>,
) -> sqlx::Result<Corrections> {
    let known = load(conn, scores.values().map(|(id, _)| (pipeline, id.as_str()))).await?;
    // Asked for with the outcomes locked: a score that somebody else has written is not written again.
    let numbers: Vec<i64> = scores.keys().copied().collect();
    let waiting = samples::waiting(conn, &numbers).await?;
    let mut corrections = Vec::new();
    for Known { mut correction, .. } in known.into_values() {
        let Some((_, score)) = scores.get(&correction.number) else { continue };
        if correction.before.quality.is_none() && waiting.contains(&correction.number) {
            correction.after.quality = Some(not_tiny(*score));
            correction.judged.1 = true;
            corrections.push(correction);
        }
    }
    store(conn, &corrections).await?;
    Ok(Corrections(corrections))
}

impl Correction {
    fn changes(&self) -> bool {
        self.after != self.before || self.judged.0 != self.judged.1
    }
}

struct Known {
    version: Uuid,
    correction: Correction,
}

/// The rows as they are, locked.
async fn load(
    conn: &mut PgConnection,
    keys: impl Iterator<Item = (&str, &str)>,
) -> sqlx::Result<HashMap<(String, String), Known>> {
    let (pipelines, ids): (Vec<&str>, Vec<&str>) = keys.unzip();
    let rows = sqlx::query!(
        "SELECT o.* FROM unnest($1::text[], $2::text[]) AS sent (pipeline, id)
           JOIN outcome_keys k USING (pipeline, id)
           JOIN outcomes o ON o.number = k.number AND o.served_at = k.served_at
          ORDER BY o.number FOR UPDATE OF o",
        &pipelines as &[&str],
        &ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let known = rows.into_iter().map(|row| {
        let values = Values {
            engagement_rate: row.engagement_rate,
            engagements: row.engagements,
            impressions: row.impressions,
            cost: row.cost,
            quality: row.quality,
            latency_ms: row.latency_ms,
            failed: row.failed,
        };
        let correction = Correction {
            number: row.number,
            arm: row.experiment_id.zip(row.candidate),
            revision: row.revision,
            unit: row.unit,
            persona: row.persona,
            served_at: row.served_at,
            before: values,
            after: values,
            judged: (row.judged, row.judged),
        };
        ((row.pipeline, row.id), Known { version: row.model_version_id, correction })
    });
    Ok(known.collect())
}

async fn store(conn: &mut PgConnection, corrections: &[Correction]) -> sqlx::Result<()> {
    if corrections.is_empty() {
        return Ok(());
    }
    let mut values = ValueColumns::default();
    for correction in corrections {
        values.push(&correction.after);
    }
    let numbers: Vec<i64> = corrections.iter().map(|correction| correction.number).collect();
    let judged: Vec<bool> = corrections.iter().map(|correction| correction.judged.1).collect();
    let times: Vec<_> = corrections.iter().map(|correction| correction.served_at).collect();
    sqlx::query!(
        "UPDATE outcomes o
            SET engagement_rate = n.engagement_rate, engagements = n.engagements, impressions = n.impressions,
                cost = n.cost, quality = n.quality, latency_ms = n.latency_ms, failed = n.failed, judged = n.judged,
                corrected_at = now()
           FROM unnest($1::bigint[], $2::timestamptz[], $3::float8[], $4::bigint[], $5::bigint[], $6::float8[],
                       $7::float8[], $8::float8[], $9::boolean[], $10::boolean[])
                AS n (number, served_at, engagement_rate, engagements, impressions, cost, quality, latency_ms, failed,
                      judged)
          WHERE o.number = n.number AND o.served_at = n.served_at",
        &numbers,
        &times,
        &values.engagement_rate as &[Option<f64>],
        &values.engagements as &[Option<i64>],
        &values.impressions as &[Option<i64>],
        &values.cost as &[Option<f64>],
        &values.quality as &[Option<f64>],
        &values.latency_ms as &[Option<f64>],
        &values.failed as &[Option<bool>],
        &judged,
    )
    .execute(conn)
    .await?;
    Ok(())
}
