//! What changed between two traffic revisions, and who changed it.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::models::Version;
use crate::traffic::{self, Revision, RevisionKind, Share};

/// So many changes are told at most; the history has all of them.
const MOST_CHANGES: i64 = 200;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(diff_traffic))
}

/// Which revisions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    /// The number of the earlier revision.
    #[param(minimum = 1)]
    from: i64,
    /// The number of the later revision.
    #[param(minimum = 1)]
    to: i64,
}

/// What changed from one revision to a later one. What is the same in both is absent.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(PartialEq))]
struct TrafficDiff {
    /// The pipeline.
    pipeline: String,
    /// The earlier revision.
    from: i64,
    /// The later revision.
    to: i64,
    /// The live version.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<TextChange>,
    /// Versions that serve more or less, newest first. Under the kill switch the live version serves everything.
    weights: Vec<WeightChange>,
    /// Versions whose share that the kill switch withholds is larger or smaller, newest first. It comes back when the switch is off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<WeightChange>,
    /// What units are hashed with: where it changed, units may have moved whatever the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<TextChange>,
    /// The experiment that the traffic belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: Option<ExperimentChange>,
    /// Whether the kill switch is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    kill_switch: Option<SwitchChange>,
    /// The revisions after `from` up to `to`, oldest first: who changed something, and why. At most the newest 200 of them.
    changes: Vec<TrafficChange>,
    /// How many older ones are left out of `changes`: `traffic/history` has them.
    changes_left_out: i64,
}

/// A text before and after.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TrafficTextChange)]
struct TextChange {
    /// In the earlier revision.
    before: String,
    /// In the later revision.
    after: String,
}

/// A version's weight before and after.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TrafficWeightChange)]
struct WeightChange {
    /// The version.
    #[schema(example = "1.4.0")]
    version: String,
    /// Basis points in the earlier revision; 0 where it was no part of it.
    before: i32,
    /// Basis points in the later revision; 0 where it is no part of it.
    after: i32,
}

/// The experiment before and after; absent where there was none.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TrafficExperimentChange)]
struct ExperimentChange {
    /// In the earlier revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Uuid>,
    /// In the later revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Uuid>,
}

/// The kill switch before and after.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = KillSwitchChange)]
struct SwitchChange {
    /// In the earlier revision.
    before: bool,
    /// In the later revision.
    after: bool,
}

/// Who changed the traffic, and why.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(PartialEq))]
struct TrafficChange {
    /// The revision.
    revision: i64,
    /// Why it was written.
    kind: RevisionKind,
    /// The same in one sentence.
    reason: String,
    /// Who wrote it.
    #[schema(example = "key:ops")]
    actor: String,
    /// Whether somebody overrode a safety check that had failed.
    forced: bool,
    /// The decision that it carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<Uuid>,
    /// When it came into force.
    created_at: DateTime<Utc>,
}

impl From<Revision> for TrafficChange {
    fn from(revision: Revision) -> Self {
        Self {
            revision: revision.revision,
            kind: revision.kind,
            reason: revision.reason,
            actor: revision.actor,
            forced: revision.forced,
            decision_id: revision.decision_id,
            created_at: revision.created_at,
        }
    }
}

/// Compare two traffic revisions
///
/// What changed from one to the other as a whole, and each change between them with who made it and why.
#[utoipa::path(
    get, path = "/v1/pipelines/{pipeline}/traffic/diff", tag = "traffic",
    params(("pipeline" = String, Path), DiffQuery),
    responses(
        (status = 200, description = "What changed.", body = TrafficDiff),
        (status = 404, response = NotFound),
    ),
)]
async fn diff_traffic(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<TrafficDiff>, Problem> {
    if query.from >= query.to {
        let message = "must be a later revision than `from`";
        return Err(Problem::invalid([FieldError::new(Place::Query, "to", message)]));
    }
    super::pipelines::find(&state, &name).await?;
    let mut conn = state.db.acquire().await?;
    let mut revision = async |number: i64| -> Result<Revision, Problem> {
        let found = traffic::by_number(&mut conn, &name, number).await?;
        found.ok_or_else(|| Problem::not_found("traffic revision", number))
    };
    let (from, to) = (revision(query.from).await?, revision(query.to).await?);
    let most = (query.to - query.from).min(MOST_CHANGES);
    let changes = traffic::history(&mut conn, &name, Some(query.to.saturating_add(1)), most).await?;
    Ok(Json(diff(&from, &to, changes)))
}

/// `changes` are the revisions after `from` up to `to`, newest first.
fn diff(from: &Revision, to: &Revision, changes: Vec<Revision>) -> TrafficDiff {
    let live =
        |revision: &Revision| revision.live().map(|share| share.version.to_string()).unwrap_or_default();
    let text = |before: String, after: String| (before != after).then_some(TextChange { before, after });
    let experiment = (from.experiment_id != to.experiment_id)
        .then_some(ExperimentChange { before: from.experiment_id, after: to.experiment_id });
    let kill_switch = (from.kill_switch != to.kill_switch)
        .then_some(SwitchChange { before: from.kill_switch, after: to.kill_switch });
    TrafficDiff {
        pipeline: to.pipeline.clone(),
        from: from.revision,
        to: to.revision,
        live: text(live(from), live(to)),
        weights: weight_changes(&from.shares, &to.shares),
        withheld: weight_changes(&from.withheld, &to.withheld),
        salt: text(from.salt.clone(), to.salt.clone()),
        experiment_id: experiment,
        kill_switch,
        changes_left_out: (to.revision - from.revision)
            .saturating_sub(changes.len().try_into().unwrap_or(i64::MAX)),
        changes: changes.into_iter().rev().map(TrafficChange::from).collect(),
    }
}

fn weight_changes(before: &[Share], after: &[Share]) -> Vec<WeightChange> {
    let mut weights: BTreeMap<Version, (i32, i32)> = BTreeMap::new();
    for share in before {
        weights.entry(share.version).or_default().0 = share.weight;
    }
    for share in after {
        weights.entry(share.version).or_default().1 = share.weight;
    }
    let changed = weights.into_iter().rev().filter(|(_, (before, after))| before != after);
    changed
        .map(|(version, (before, after))| WeightChange { version: version.to_string(), before, after })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::VersionStatus;

    fn share(version: &str, weight: i32) -> Share {
        let version: Version = version.parse().unwrap();
        Share {
            model_version_id: Uuid::from_u128(version.minor.unsigned_abs().into()),
            version,
            status: VersionStatus::Retired,
            provider_model_id: String::new(),
            weight,
        }
    }

    fn revision(number: i64, live: u128, shares: Vec<Share>) -> Revision {
        Revision {
            pipeline: "hook".into(),
            revision: number,
            live_version_id: Uuid::from_u128(live),
            salt: "hook".into(),
            experiment_id: None,
            decision_id: None,
            forced: false,
            kind: RevisionKind::Split,
            reason: format!("reason {number}"),
            actor: "key:ops".into(),
            created_at: DateTime::<Utc>::UNIX_EPOCH,
            shares,
            kill_switch: false,
            withheld: Vec::new(),
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let from = revision(3, 1, vec![share("1.3.0", 500), share("1.2.0", 500), share("1.1.0", 9_000)]);
        let same = Revision { revision: 4, ..from.clone() };
        let nothing = diff(&from, &same, Vec::new());
        assert_eq!(
            (nothing.live, nothing.salt, nothing.experiment_id, nothing.kill_switch),
            (None, None, None, None)
        );
        assert_eq!((nothing.weights, nothing.withheld), (vec![], vec![]));

        let experiment = Some(Uuid::from_u128(7));
        let to = Revision {
            salt: "other".into(),
            experiment_id: experiment,
            kill_switch: true,
            withheld: vec![share("1.2.0", 4_000), share("1.1.0", 6_000)],
            ..revision(5, 3, vec![share("1.3.0", 9_500), share("1.2.0", 500)])
        };
        let changed = diff(&from, &to, vec![to.clone(), same]);
        let change = |version: &str, before, after| WeightChange { version: version.into(), before, after };
        assert_eq!(changed.weights, [change("1.3.0", 500, 9_500), change("1.1.0", 9_000, 0)]);
        assert_eq!(changed.withheld, [change("1.2.0", 0, 4_000), change("1.1.0", 0, 6_000)]);
        assert_eq!(changed.live, Some(TextChange { before: "1.1.0".into(), after: "1.3.0".into() }));
        assert_eq!(changed.salt, Some(TextChange { before: "hook".into(), after: "other".into() }));
        assert_eq!(changed.experiment_id, Some(ExperimentChange { before: None, after: experiment }));
        assert_eq!(changed.kill_switch, Some(SwitchChange { before: false, after: true }));
        assert_eq!((changed.changes_left_out, diff(&from, &to, vec![to.clone()]).changes_left_out), (0, 1));
        assert_eq!(changed.changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn what_changed_under_the_kill_switch_is_told() {
        let under = |number, newer| Revision {
            kill_switch: true,
            withheld: vec![share("1.2.0", newer), share("1.1.0", 10_000 - newer)],
            ..revision(number, 1, vec![share("1.1.0", 10_000)])
        };
        let changed = diff(&under(3, 500), &under(4, 2_000), Vec::new());
        let change = |version: &str, before, after| WeightChange { version: version.into(), before, after };
        assert_eq!(changed.withheld, [change("1.2.0", 500, 2_000), change("1.1.0", 9_500, 8_000)]);
        assert_eq!((changed.weights, changed.kill_switch), (vec![], None));
    }
}
