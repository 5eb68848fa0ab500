//! The kill switch of a pipeline: one revision sends everything to the live version, pinned units too; another
//! one restores the split that was in force, or what has become of it since.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{NewRevision, Revision, RevisionKind, TrafficError, WHOLE, append, current};
use crate::audit::By;

/// Switches it on or off and returns the revision in force, which is a new one only if anything changed. The
/// caller holds the pipeline's lock and commits.
///
/// Salt and experiment stay those of the revision in force, so that no unit moves when the split is restored. Whatever
/// changes the traffic meanwhile changes what is restored, see [`append`].
pub async fn set_kill_switch(
    conn: &mut PgConnection,
    pipeline: &str,
    enabled: bool,
    reason: &str,
    by: &By,
) -> Result<i64, TrafficError> {
    let in_force = current(&mut *conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?;
    if in_force.kill_switch == enabled {
        return Ok(in_force.revision);
    }
    let (kind, shares) = if enabled {
        let shares = in_force.shares.iter().map(|share| (share.model_version_id, share.weight)).collect();
        (RevisionKind::KillSwitchOn, shares)
    } else {
        (RevisionKind::KillSwitchOff, restored(&in_force))
    };
    let new = NewRevision {
        live: in_force.live_version_id,
        salt: &in_force.salt,
        experiment_id: in_force.experiment_id,
        decision_id: None,
        forced: false,
        kind,
        reason,
        shares: &shares,
    };
    Ok(append(conn, pipeline, &new, by).await?)
}

/// The withheld split without the versions that cannot serve any more; the live version takes their weight.
fn restored(in_force: &Revision) -> Vec<(Uuid, i32)> {
    let live = in_force.live_version_id;
    let serves = |share: &&super::Share| share.model_version_id == live || share.status.can_serve();
    let mut shares: Vec<(Uuid, i32)> =
        in_force.withheld.iter().filter(serves).map(|share| (share.model_version_id, share.weight)).collect();
    let missing = WHOLE - shares.iter().map(|(_, weight)| weight).sum::<i32>();
    match shares.iter_mut().find(|(version, _)| *version == live) {
        Some((_, weight)) => *weight += missing,
        None => shares.push((live, missing)),
    }
    shares
}
