//! The epochs of an experiment: its traffic revisions, what arrived under each, and how fast.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::statistics::PerArm;
use super::{Experiment, Phase};

/// "At the present traffic" is that of this many days.
const TRAFFIC_DAYS: i64 = 7;

/// One epoch: a traffic revision of the test or the watch.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ExperimentEpoch)]
pub struct Epoch {
    /// The traffic revision.
    pub revision: i64,
    /// The part of the experiment it belongs to.
    pub phase: Phase,
    /// Basis points of the traffic.
    pub weights: PerArm<u32>,
    /// When it came into force.
    pub started_at: DateTime<Utc>,
    /// When another took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Outcomes served under it, however late they arrived.
    pub outcomes: PerArm<u64>,
    /// Distinct units, each counted in the epoch of its first outcome.
    pub units: PerArm<u64>,
}

/// The epochs of an experiment, oldest first, without those under the kill switch, which are not analysed. Reads
/// the kept sums: its cost grows with clusters, not with outcomes.
pub async fn epochs(conn: &mut PgConnection, experiment: &Experiment) -> sqlx::Result<Vec<Epoch>> {
    let rows = sqlx::query!(
        r#"WITH weights AS (
               SELECT r.pipeline, r.revision, r.created_at,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $2), 0) AS baseline,
                      coalesce(sum(w.weight) FILTER (WHERE w.model_version_id = $3), 0) AS candidate
                 FROM traffic_revisions r JOIN traffic_weights w USING (pipeline, revision)
                WHERE r.experiment_id = $1 AND NOT r.kill_switch GROUP BY 1, 2, 3),
           sums AS (
               SELECT epoch, sum(outcomes) FILTER (WHERE candidate) AS candidate,
                      sum(outcomes) FILTER (WHERE NOT candidate) AS baseline
                 FROM experiment_sums WHERE experiment_id = $1 GROUP BY 1),
           units AS (
               SELECT epoch, sum(units) FILTER (WHERE candidate) AS candidate,
                      sum(units) FILTER (WHERE NOT candidate) AS baseline
                 FROM experiment_unit_counts WHERE experiment_id = $1 GROUP BY 1)
           SELECT w.revision, w.created_at, w.baseline AS "baseline_weight!", w.candidate AS "candidate_weight!",
                  (SELECT n.created_at FROM traffic_revisions n
                    WHERE n.pipeline = w.pipeline AND n.revision > w.revision
                    ORDER BY n.revision LIMIT 1) AS ended_at,
                  coalesce(w.revision >= (SELECT min(revision) FROM traffic_revisions
                                           WHERE experiment_id = $1 AND kind = 'promotion'), false) AS "watch!",
                  coalesce(s.baseline, 0)::bigint AS "baseline!", coalesce(s.candidate, 0)::bigint AS "candidate!",
                  coalesce(u.baseline, 0)::bigint AS "baseline_units!",
                  coalesce(u.candidate, 0)::bigint AS "candidate_units!"
             FROM weights w LEFT JOIN sums s ON s.epoch = w.revision LEFT JOIN units u ON u.epoch = w.revision
            ORDER BY w.revision"#,
        experiment.id,
        experiment.baseline_id,
        experiment.candidate_id,
    )
    .fetch_all(conn)
    .await?;
    let weight = |basis_points: i64| u32::try_from(basis_points).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| Epoch {
            revision: row.revision,
            phase: if row.watch { Phase::Watch } else { Phase::Test },
            weights: PerArm {
                baseline: weight(row.baseline_weight),
                candidate: weight(row.candidate_weight),
            },
            started_at: row.created_at,
            ended_at: row.ended_at,
            outcomes: PerArm {
                baseline: row.baseline.unsigned_abs(),
                candidate: row.candidate.unsigned_abs(),
            },
            units: PerArm {
                baseline: row.baseline_units.unsigned_abs(),
                candidate: row.candidate_units.unsigned_abs(),
            },
        })
        .collect())
}

/// Outcomes of both arms a day, in the part of the last seven days that the epochs cover; where they are older,
/// in all of their time. An epoch that reaches into the window counts in proportion, since sums have no times.
/// `None` where no time has passed.
#[must_use]
pub fn outcomes_per_day(epochs: &[Epoch], now: DateTime<Utc>) -> Option<f64> {
    let since = |from: DateTime<Utc>| {
        let (mut days, mut outcomes) = (0.0, 0.0);
        for epoch in epochs {
            let ended = epoch.ended_at.unwrap_or(now);
            let whole = in_days(ended - epoch.started_at);
            let part = in_days(ended - epoch.started_at.max(from));
            if whole > 0.0 && part > 0.0 {
                days += part;
                outcomes += (epoch.outcomes.baseline + epoch.outcomes.candidate) as f64 * part / whole;
            }
        }
        (days > 0.0).then(|| outcomes / days)
    };
    since(now - TimeDelta::days(TRAFFIC_DAYS)).or_else(|| since(DateTime::<Utc>::MIN_UTC))
}

fn in_days(span: TimeDelta) -> f64 {
    span.as_seconds_f64() / 86_400.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(now: DateTime<Utc>, from: i64, to: Option<i64>, outcomes: u64) -> Epoch {
        Epoch {
            revision: 1,
            phase: Phase::Test,
            weights: PerArm { baseline: 9_000, candidate: 1_000 },
            started_at: now - TimeDelta::days(from),
            ended_at: to.map(|days| now - TimeDelta::days(days)),
            outcomes: PerArm { baseline: outcomes - outcomes / 10, candidate: outcomes / 10 },
            units: PerArm::default(),
        }
    }

    #[test]
    fn the_traffic_is_that_of_the_last_seven_days_and_of_older_epochs_where_there_is_none() {
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let rate = |epochs: &[Epoch]| outcomes_per_day(epochs, now);
        // Ten days at 100 a day of which three are in the window, then four days at 200.
        let recent = [epoch(now, 14, Some(4), 1_000), epoch(now, 4, None, 800)];
        assert_eq!(rate(&recent), Some((300.0 + 800.0) / 7.0));
        assert_eq!(rate(&[epoch(now, 30, Some(20), 500)]), Some(50.0));
        // A pause between two epochs is no time without traffic.
        assert_eq!(rate(&[epoch(now, 6, Some(5), 100), epoch(now, 1, None, 100)]), Some(100.0));
        assert_eq!(rate(&[]), None);
        assert_eq!(rate(&[epoch(now, 0, None, 10)]), None);
    }
}
