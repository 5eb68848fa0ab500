//! Traffic leaves a version whose model is gone at the provider. As every change of traffic: the caller holds the pipeline's lock
//! and commits.

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::changes::bring_back;
use super::{NewRevision, RevisionKind, TrafficError, append, current};
use crate::audit::By;
use crate::models::{self, ModelVersion, VersionStatus};

/// The versions that a lost live version can be replaced by, in the order in which they are to be asked: those that were live
/// before and did no harm, the one that was live last first.
pub async fn fallbacks(db: impl PgExecutor<'_> + Copy, pipeline: &str) -> sqlx::Result<Vec<ModelVersion>> {
    let ids = sqlx::query_scalar!(
        r#"SELECT v.id FROM model_versions v
             JOIN (SELECT live_version_id, max(revision) AS revision FROM traffic_revisions
                    WHERE pipeline = $1 GROUP BY live_version_id) was_live ON was_live.live_version_id = v.id
            WHERE v.status IN ('hold_back', 'retired') ORDER BY was_live.revision DESC"#,
        pipeline,
    )
    .fetch_all(db)
    .await?;
    let mut versions = Vec::with_capacity(ids.len());
    for id in ids {
        versions.extend(models::by_id(db, id).await?);
    }
    Ok(versions)
}

/// Puts an earlier live version in the place of the live one, which becomes `unavailable`: it did no harm, so it can come back
/// to be `retired`.
pub async fn replace_lost(
    conn: &mut PgConnection,
    pipeline: &str,
    by_version: &ModelVersion,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let in_force = current(&mut *conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?;
    if in_force.live_version_id == by_version.id {
        return Err(TrafficError::AlreadyLive(by_version.version));
    }
    Ok(bring_back(conn, &in_force, VersionStatus::Unavailable, by_version.id, reason, by).await?)
}

/// Gives the live version what another one serves, which is not under test. Salt and experiment stay, so that no other unit
/// moves. Under the kill switch it is the withheld split that changes.
///
/// Returns the new revision, or `None` where the version serves nothing.
pub async fn drop_share(
    conn: &mut PgConnection,
    pipeline: &str,
    lost: Uuid,
    reason: &str,
    by: &By,
) -> Result<Option<i64>, TrafficError> {
    let in_force = current(&mut *conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?;
    let split = if in_force.kill_switch { &in_force.withheld } else { &in_force.shares };
    let Some(freed) = split.iter().find(|share| share.model_version_id == lost && share.weight > 0) else {
        return Ok(None);
    };
    let live = in_force.live_version_id;
    let shares: Vec<(Uuid, i32)> = split
        .iter()
        .filter(|share| share.model_version_id != lost)
        .map(|share| {
            let more = if share.model_version_id == live { freed.weight } else { 0 };
            (share.model_version_id, share.weight + more)
        })
        .collect();
    let new = NewRevision {
        live,
        salt: &in_force.salt,
        experiment_id: in_force.experiment_id,
        decision_id: None,
        forced: false,
        kind: RevisionKind::Split,
        reason,
        shares: &shares,
    };
    Ok(Some(append(conn, pipeline, &new, by).await?))
}
