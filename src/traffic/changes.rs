//! The changes that move traffic. Each sets the statuses of the versions it touches and writes one revision;
//! the caller holds the pipeline's lock and commits.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{NewRevision, Revision, RevisionKind, Share, TrafficError, WHOLE, append, current};
use crate::audit::By;
use crate::models::{self, ModelVersion, Version, VersionStatus};

/// The versions of a test.
#[derive(Debug, Clone, Copy)]
pub struct TestArms {
    /// The experiment; its id is the salt of the assignment through its watch.
    pub experiment_id: Uuid,
    /// The live version.
    pub baseline: Uuid,
    /// The version under test.
    pub candidate: Uuid,
}

/// Gives the candidate its weight and the baseline the rest. A hold-back of an earlier watch ends, and so does a split that a
/// person had set: the reason names who loses a share. Only a version with the status `candidate` can be tested: one that was
/// live and was taken back must not come back like this.
pub async fn start_test(
    conn: &mut PgConnection,
    pipeline: &str,
    arms: TestArms,
    weight: i32,
    by: &By,
) -> Result<i64, TrafficError> {
    let candidate = models::by_id(&mut *conn, arms.candidate).await?.ok_or(sqlx::Error::RowNotFound)?;
    if candidate.status != VersionStatus::Candidate {
        return Err(TrafficError::NotACandidate { version: candidate.version, status: candidate.status });
    }
    let tested = |share: &Share| [arms.baseline, arms.candidate].contains(&share.model_version_id);
    let others =
        live(conn, pipeline).await?.shares.into_iter().filter(|share| share.weight > 0 && !tested(share));
    let lost = others.map(|share| format!("; {} loses its {} %", share.version, percent(share.weight)));
    let lost: String = lost.collect();
    let reason = format!("the test gives the candidate {} % of the traffic{lost}", percent(weight));
    retire_hold_back(conn, pipeline, None, &reason, by).await?;
    models::set_status(conn, arms.candidate, VersionStatus::Testing, &reason, by).await?;
    let new = NewRevision {
        live: arms.baseline,
        salt: &arms.experiment_id.to_string(),
        experiment_id: Some(arms.experiment_id),
        decision_id: None,
        forced: false,
        kind: RevisionKind::TestStarted,
        reason: &reason,
        shares: &[(arms.candidate, weight), (arms.baseline, WHOLE - weight)],
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// Gives the candidate of a running test another weight. Salt and order stay, so that with a larger weight no unit leaves
/// the candidate.
pub async fn ramp(
    conn: &mut PgConnection,
    pipeline: &str,
    arms: TestArms,
    weight: i32,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let new = NewRevision {
        live: arms.baseline,
        salt: &arms.experiment_id.to_string(),
        experiment_id: Some(arms.experiment_id),
        decision_id: None,
        forced: false,
        kind: RevisionKind::Ramp,
        reason,
        shares: &[(arms.candidate, weight), (arms.baseline, WHOLE - weight)],
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// Ends a test without a promotion: everything goes to the baseline, the candidate gets `status`. `decision_id` is the
/// decision that this carries out; a test that is cut short carries out none.
pub async fn end_test(
    conn: &mut PgConnection,
    pipeline: &str,
    arms: TestArms,
    status: VersionStatus,
    decision_id: Option<Uuid>,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    models::set_status(conn, arms.candidate, status, reason, by).await?;
    let new = NewRevision {
        live: arms.baseline,
        salt: pipeline,
        experiment_id: None,
        decision_id,
        forced: false,
        kind: RevisionKind::TestEnded,
        reason,
        shares: &[(arms.baseline, WHOLE)],
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// A version that is to be live.
#[derive(Debug, Clone, Copy)]
pub struct Promotion<'a> {
    /// The version.
    pub version: &'a ModelVersion,
    /// The experiment that keeps the units where the test had put them, through its watch; none for a promotion by hand.
    pub experiment_id: Option<Uuid>,
    /// The decision that is carried out.
    pub decision_id: Option<Uuid>,
    /// Its share of the traffic, in basis points. The version that was live keeps the rest, as the concurrent
    /// baseline of a watch.
    pub weight: i32,
    /// Whether a person overrode a safety check that had failed. Only then may a version come back that was rejected
    /// or rolled back.
    pub forced: bool,
}

/// Makes a version live.
pub async fn promote(
    conn: &mut PgConnection,
    pipeline: &str,
    promotion: Promotion<'_>,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let version = promotion.version;
    let live = live(conn, pipeline).await?;
    if live.live_version_id == version.id {
        return Err(TrafficError::AlreadyLive(version.version));
    }
    let overridden = promotion.forced && version.status != VersionStatus::Unavailable;
    if !version.status.can_serve() && !overridden {
        return Err(TrafficError::CannotServe { version: version.version, status: version.status });
    }
    retire_hold_back(conn, pipeline, Some(version.id), reason, by).await?;
    retire_testing(conn, pipeline, Some(version.id), reason, by).await?;
    let rest = WHOLE - promotion.weight;
    let former = if rest > 0 { VersionStatus::HoldBack } else { VersionStatus::Retired };
    models::set_status(conn, live.live_version_id, former, reason, by).await?;
    models::set_status(conn, version.id, VersionStatus::Live, reason, by).await?;
    // The candidate first and the baseline last, as during the test: no unit moves back.
    let both = [(version.id, promotion.weight), (live.live_version_id, rest)];
    let salt = promotion.experiment_id.map_or_else(|| pipeline.to_owned(), |id| id.to_string());
    let new = NewRevision {
        live: version.id,
        salt: &salt,
        experiment_id: promotion.experiment_id,
        decision_id: promotion.decision_id,
        forced: promotion.forced,
        kind: RevisionKind::Promotion,
        reason,
        shares: if rest > 0 { &both } else { &both[..1] },
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// Gives the promoted candidate of an experiment a larger share, during its watch. Salt and order stay, so that no unit
/// leaves it. With the whole of the traffic the former version is retired.
pub async fn roll_out(
    conn: &mut PgConnection,
    pipeline: &str,
    arms: TestArms,
    weight: i32,
    decision_id: Option<Uuid>,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let both = [(arms.candidate, weight), (arms.baseline, WHOLE - weight)];
    if weight == WHOLE {
        retire_hold_back(conn, pipeline, None, reason, by).await?;
    }
    let new = NewRevision {
        live: arms.candidate,
        salt: &arms.experiment_id.to_string(),
        experiment_id: Some(arms.experiment_id),
        decision_id,
        forced: false,
        kind: RevisionKind::Rollout,
        reason,
        shares: if weight < WHOLE { &both } else { &both[..1] },
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// Ends a watch: the hold-back is retired and the live version serves everything.
pub async fn end_watch(
    conn: &mut PgConnection,
    pipeline: &str,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let revision = live(conn, pipeline).await?;
    retire_hold_back(conn, pipeline, None, reason, by).await?;
    let new = NewRevision {
        live: revision.live_version_id,
        salt: pipeline,
        experiment_id: None,
        decision_id: None,
        forced: false,
        kind: RevisionKind::WatchEnded,
        reason,
        shares: &[(revision.live_version_id, WHOLE)],
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// Puts an earlier live version back: the named one, or the newest that was neither rolled back nor is
/// unavailable. What was live becomes `rolled_back`, so that a second rollback never brings it back.
///
/// Returns the revision and the version that is live now.
pub async fn rollback(
    conn: &mut PgConnection,
    pipeline: &str,
    to: Option<Version>,
    reason: &str,
    by: &By,
) -> Result<(i64, ModelVersion), TrafficError> {
    let revision = live(conn, pipeline).await?;
    let target = match to {
        Some(version) => named_target(conn, pipeline, &revision, version).await?,
        None => newest_target(conn, pipeline, revision.live_version_id).await?,
    };
    let number = bring_back(conn, &revision, VersionStatus::RolledBack, target.id, reason, by).await?;
    Ok((number, ModelVersion { status: VersionStatus::Live, ..target }))
}

/// Gives an earlier live version all of the traffic; what was live gets the status `former`. A test or a watch has no traffic
/// any more.
pub(super) async fn bring_back(
    conn: &mut PgConnection,
    in_force: &Revision,
    former: VersionStatus,
    target: Uuid,
    reason: &str,
    by: &By,
) -> sqlx::Result<i64> {
    let pipeline = &in_force.pipeline;
    retire_hold_back(conn, pipeline, Some(target), reason, by).await?;
    retire_testing(conn, pipeline, Some(target), reason, by).await?;
    models::set_status(conn, in_force.live_version_id, former, reason, by).await?;
    models::set_status(conn, target, VersionStatus::Live, reason, by).await?;
    let new = NewRevision {
        live: target,
        salt: pipeline,
        experiment_id: None,
        decision_id: None,
        forced: false,
        kind: RevisionKind::Rollback,
        reason,
        shares: &[(target, WHOLE)],
    };
    append(conn, pipeline, &new, by).await
}

/// Sets the weights as a person asked. The live version stays live and must have a share, or it would be live in name only; the order
/// of accumulation and the salt stay those of the revision in force, so that no unit moves needlessly.
pub async fn set_split(
    conn: &mut PgConnection,
    pipeline: &str,
    weights: &[(Version, i32)],
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let in_force = live(conn, pipeline).await?;
    let sum: i64 = weights.iter().map(|(_, weight)| i64::from(*weight)).sum();
    let mut versions = Vec::with_capacity(weights.len());
    for &(version, weight) in weights {
        if !(0..=WHOLE).contains(&weight) {
            return Err(TrafficError::Weight { version, weight });
        }
        let found = models::by_version(&mut *conn, pipeline, version)
            .await?
            .ok_or(TrafficError::UnknownVersion(version))?;
        if weight > 0 && !found.status.can_serve() {
            return Err(TrafficError::CannotServe { version, status: found.status });
        }
        versions.push((found, weight));
    }
    if sum != i64::from(WHOLE) {
        return Err(TrafficError::Sum(sum));
    }
    if !versions.iter().any(|(version, weight)| version.id == in_force.live_version_id && *weight > 0) {
        let live =
            models::by_id(&mut *conn, in_force.live_version_id).await?.ok_or(sqlx::Error::RowNotFound)?;
        return Err(TrafficError::LiveMissing(live.version));
    }
    let shares = in_order(arms(conn, &in_force).await?, versions);
    let new = NewRevision {
        live: in_force.live_version_id,
        salt: &in_force.salt,
        experiment_id: in_force.experiment_id,
        decision_id: None,
        forced: false,
        kind: RevisionKind::Split,
        reason,
        shares: &shares,
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// The candidate and the baseline of the experiment that the traffic belongs to.
async fn arms(conn: &mut PgConnection, in_force: &Revision) -> sqlx::Result<Option<(Uuid, Uuid)>> {
    let Some(experiment) = in_force.experiment_id else { return Ok(None) };
    let row = sqlx::query!("SELECT candidate_id, baseline_id FROM experiments WHERE id = $1", experiment)
        .fetch_one(conn)
        .await?;
    Ok(Some((row.candidate_id, row.baseline_id)))
}

/// The order of accumulation. During an experiment and its watch: its candidate first, its baseline last,
/// others between them, newest first. Otherwise: newest first.
fn in_order(arms: Option<(Uuid, Uuid)>, mut versions: Vec<(ModelVersion, i32)>) -> Vec<(Uuid, i32)> {
    let rank = |version: &ModelVersion| match arms {
        Some((candidate, _)) if candidate == version.id => 0,
        Some((_, baseline)) if baseline == version.id => 2,
        _ => 1,
    };
    versions.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then(b.version.cmp(&a.version)));
    versions.into_iter().map(|(version, weight)| (version.id, weight)).collect()
}

async fn live(conn: &mut PgConnection, pipeline: &str) -> Result<Revision, TrafficError> {
    Ok(current(conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?)
}

async fn named_target(
    conn: &mut PgConnection,
    pipeline: &str,
    in_force: &Revision,
    version: Version,
) -> Result<ModelVersion, TrafficError> {
    let target = models::by_version(&mut *conn, pipeline, version)
        .await?
        .ok_or(TrafficError::UnknownVersion(version))?;
    if target.id == in_force.live_version_id {
        return Err(TrafficError::AlreadyLive(version));
    }
    let was_live = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM traffic_revisions WHERE pipeline = $1 AND live_version_id = $2) AS "was!""#,
        pipeline,
        target.id,
    )
    .fetch_one(conn)
    .await?;
    if !was_live {
        return Err(TrafficError::NeverLive(version));
    }
    if !target.status.can_serve() {
        return Err(TrafficError::CannotServe { version, status: target.status });
    }
    Ok(target)
}

async fn newest_target(
    conn: &mut PgConnection,
    pipeline: &str,
    live: Uuid,
) -> Result<ModelVersion, TrafficError> {
    let target = sqlx::query_scalar!(
        "SELECT r.live_version_id FROM traffic_revisions r JOIN model_versions v ON v.id = r.live_version_id
          WHERE r.pipeline = $1 AND v.id <> $2 AND v.status NOT IN ('rolled_back', 'unavailable', 'rejected')
          ORDER BY r.revision DESC LIMIT 1",
        pipeline,
        live,
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(TrafficError::NothingToRollBackTo)?;
    Ok(models::by_id(conn, target).await?.ok_or(sqlx::Error::RowNotFound)?)
}

/// The former live version has served its time, unless it is `but`, which becomes something else.
async fn retire_hold_back(
    conn: &mut PgConnection,
    pipeline: &str,
    but: Option<Uuid>,
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    move_all(conn, pipeline, but, (VersionStatus::HoldBack, VersionStatus::Retired), reason, by).await
}

/// A version whose test is cut short is a candidate again, unless it is `but`, which becomes something else.
async fn retire_testing(
    conn: &mut PgConnection,
    pipeline: &str,
    but: Option<Uuid>,
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    move_all(conn, pipeline, but, (VersionStatus::Testing, VersionStatus::Candidate), reason, by).await
}

async fn move_all(
    conn: &mut PgConnection,
    pipeline: &str,
    but: Option<Uuid>,
    (from, to): (VersionStatus, VersionStatus),
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    for version in models::list(&mut *conn, pipeline, Some(from), None, i64::MAX).await? {
        if Some(version.id) != but {
            models::set_status(conn, version.id, to, reason, by).await?;
        }
    }
    Ok(())
}

fn percent(weight: i32) -> f64 {
    f64::from(weight) / 100.0
}
