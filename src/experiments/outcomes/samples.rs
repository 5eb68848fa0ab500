//! The texts that a judge is to score: which outcomes are in the sample, and how long their texts are kept.

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

use super::Sent;

/// Whether an outcome is in a sample of this share, 0 to 1. By its pipeline and id alone, so that neither its arm nor its
/// version has a say in it, and a repeat is never chosen anew.
///
/// The first 4 bytes of SHA-256 of `outcome_judge`, the pipeline and the id, each followed by a zero byte but the last, are a
/// fraction of 2^32, which must be below the share. No assignment hashes such a text, so the sample is independent of it.
#[must_use]
pub fn sampled(pipeline: &str, id: &str, share: f64) -> bool {
    let mut hash = Sha256::new();
    for part in ["outcome_judge", "\0", pipeline, "\0", id] {
        hash.update(part.as_bytes());
    }
    let number = hash.finalize().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / 2_f64.powi(32) < share
}

/// Keeps the texts of new outcomes that a judge is to score: evidence without a quality, and in the sample.
pub(super) async fn keep(conn: &mut PgConnection, fresh: &[(i64, Sent)]) -> sqlx::Result<()> {
    let candidates: Vec<_> = fresh
        .iter()
        .filter(|(_, sent)| sent.place.arm.is_some() && sent.values.quality.is_none())
        .filter_map(|(number, Sent { outcome, .. })| Some((*number, outcome, outcome.text.as_ref()?)))
        .collect();
    if candidates.is_empty() {
        return Ok(());
    }
    let shares = shares(conn, candidates.iter().map(|(_, outcome, _)| outcome.pipeline.as_str())).await?;
    let (mut numbers, mut pipelines, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut prompts, mut answers) = (Vec::new(), Vec::new());
    for (number, outcome, text) in candidates {
        let share = shares.get(&outcome.pipeline).copied().unwrap_or_default();
        if !sampled(&outcome.pipeline, &outcome.id, share) {
            continue;
        }
        numbers.push(number);
        pipelines.push(outcome.pipeline.as_str());
        ids.push(outcome.id.as_str());
        prompts.push(text.prompt.as_str());
        answers.push(text.answer.as_str());
    }
    sqlx::query!(
        "INSERT INTO outcome_samples (number, pipeline, id, prompt, answer)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])",
        &numbers,
        &pipelines as &[&str],
        &ids as &[&str],
        &prompts as &[&str],
        &answers as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The shares that pipelines have scored, of those that have a judge.
async fn shares<'a>(
    conn: &mut PgConnection,
    pipelines: impl Iterator<Item = &'a str>,
) -> sqlx::Result<HashMap<String, f64>> {
    let names: HashSet<&str> = pipelines.collect();
    let names: Vec<&str> = names.into_iter().collect();
    let rows = sqlx::query!(
        r#"SELECT p.name, (c.config #>> '{outcomes,judge,sample}')::double precision AS "share!"
             FROM pipelines p JOIN pipeline_configs c ON c.pipeline = p.name AND c.version = p.config_version
            WHERE p.name = ANY($1) AND c.config #>> '{outcomes,judge,sample}' IS NOT NULL"#,
        &names as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.share)).collect())
}

/// Forgets the texts of outcomes that need no score any more. The caller has their rows locked.
pub(super) async fn forget(conn: &mut PgConnection, numbers: &[i64]) -> sqlx::Result<()> {
    if !numbers.is_empty() {
        sqlx::query!("DELETE FROM outcome_samples WHERE number = ANY($1)", numbers).execute(conn).await?;
    }
    Ok(())
}

/// Those of these outcomes whose texts are still to be scored; locked.
pub(super) async fn waiting(conn: &mut PgConnection, numbers: &[i64]) -> sqlx::Result<HashSet<i64>> {
    let rows = sqlx::query_scalar!(
        "SELECT number FROM outcome_samples WHERE number = ANY($1) ORDER BY number FOR UPDATE",
        numbers,
    );
    Ok(rows.fetch_all(conn).await?.into_iter().collect())
}

/// Deletes texts that have waited longer than `age`, and returns how many. Those that are being scored at this moment are
/// left for the next time.
pub async fn expire_samples(db: &PgPool, age: TimeDelta) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"WITH old AS MATERIALIZED (
               SELECT number FROM outcome_samples WHERE created_at < now() - make_interval(secs => $1)
                  FOR UPDATE SKIP LOCKED),
           deleted AS (
               DELETE FROM outcome_samples s USING old WHERE s.number = old.number RETURNING s.pipeline),
           counted AS (
               INSERT INTO outcome_judges AS known (pipeline, expired)
               SELECT pipeline, count(*) FROM deleted GROUP BY 1 ORDER BY 1
               ON CONFLICT (pipeline) DO UPDATE SET expired = known.expired + excluded.expired
               RETURNING 1)
           SELECT count(*) AS "count!" FROM deleted"#,
        age.as_seconds_f64(),
    )
    .fetch_one(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_share_and_a_larger_one_contains_it() {
        let ids: Vec<String> = (0..20_000).map(|id| format!("post-{id}")).collect();
        let tenth = ids.iter().filter(|id| sampled("hook", id, 0.1)).count();
        // Binomial(20000, 0.1): five standard deviations are 212.
        assert!(tenth.abs_diff(2_000) < 212, "{tenth} of 20000 in a tenth");
        for id in &ids {
            assert!(!sampled("hook", id, 0.1) || sampled("hook", id, 0.2), "{id}");
            assert!(sampled("hook", id, 1.0) && !sampled("hook", id, 0.0), "{id}");
        }
    }
}
