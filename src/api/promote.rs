//! The promotion of a version by hand: safety checks first, each shown with its result.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::auth::Principal;
use super::etag::IfMatch;
use super::extract::Path;
use super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::problem::Problem;
use super::reply::Reply;
use super::responses::{Conflict, NotFound, PreconditionFailed};
use super::traffic::{TrafficView, revision_view};
use crate::audit::{self, AuditEvent};
use crate::models::{self, Version, VersionStatus};
use crate::pipelines;
use crate::runs::{self, CheckResult, ModelAnswer, PromotionCheck};
use crate::traffic::{self, TrafficError, WHOLE};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(promote_model_version))
}

/// Why a version is promoted, and how carefully.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PromotionRequest)]
struct Request {
    /// For the traffic revision and the audit trail. Only a dry run needs none.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 1000, example = "better tone, agreed with marketing")]
    reason: Option<String>,
    /// Overrides the checks that may be overridden. The revision is marked as forced for ever, if there were any.
    #[serde(default)]
    force: bool,
    /// Shows the checks and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What was checked, and the traffic as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Promotion)]
struct PromotionView {
    /// Every check with its result.
    checks: Vec<PromotionCheck>,
    /// Whether a check that had failed was overridden; in a dry run, whether one would be.
    forced: bool,
    /// Whether nothing was changed.
    dry_run: bool,
    /// The revision in force.
    traffic: TrafficView,
}

/// Make a version live
///
/// All traffic goes to it at once: there is no experiment to look at on the way. First it is checked that its status allows it,
/// that the provider serves its model, that its newest test decided to promote it, against the version that is live and not
/// longer ago than `deployment.decision_max_age_seconds`, that no run is proving another version, that nothing shows harm, and
/// that the kill switch is off. Where a check fails, the answer is a 409 of the type `promotion-unsafe` whose member `checks` has
/// all of them. `force` overrides what may be overridden; a run that is proving its model then gives way: its test is aborted, or its
/// watch ends. `If-Match` takes the `ETag` of the traffic that was looked at.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/models/{version}/promote", tag = "models",
    params(("pipeline" = String, Path), ("version" = String, Path, example = "1.4.0"), RequestKey, IfMatch),
    request_body = Request,
    responses(
        (status = 200, description = "What was checked, and the traffic as it is now.", body = PromotionView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
        (status = 412, response = PreconditionFailed),
    ),
)]
async fn promote_model_version(
    State(state): State<ApiState>,
    principal: Principal,
    if_match: IfMatch,
    Path((pipeline, version)): Path<(String, Version)>,
    request: Idempotent<Request>,
) -> Result<Reply, Problem> {
    // What was answered before is answered again, whatever the provider says by now. The transaction ends here: the
    // provider is not asked within one.
    if let Begin::Replay(reply) = idempotency::begin(&state.db, &principal, &request.key).await? {
        return Ok(reply);
    }
    let Request { reason, force, dry_run } = request.body;
    let reason = match reason {
        None if dry_run => String::new(),
        reason => super::required_reason(reason.unwrap_or_default())?,
    };
    let unknown = || Problem::not_found("model version", format!("{pipeline}@{version}"));
    let asked = models::by_version(&state.db, &pipeline, version).await?.ok_or_else(unknown)?;
    let model = ModelAnswer::ask(&state.trainers, &asked).await;

    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    if !dry_run {
        traffic::lock(&mut tx, &pipeline).await?;
    }
    let found = models::by_id(&mut *tx, asked.id).await?.ok_or_else(unknown)?;
    let in_force = traffic::current(&mut tx, &pipeline).await?.ok_or_else(unknown)?;
    if_match.check(in_force.revision)?;
    if found.status == VersionStatus::Live && !dry_run {
        return Err(TrafficError::AlreadyLive(version).into());
    }
    let config = pipelines::by_name(&mut *tx, &pipeline).await?.ok_or_else(unknown)?.config;
    let gathered = runs::gather_for_promotion(&mut tx, &config, &found, &in_force, model).await?;
    let checks = gathered.checks(force);
    let forced = checks.iter().any(|check| check.result == CheckResult::Skipped);
    if dry_run {
        let traffic = in_force.into();
        return tx.commit(Reply::ok(PromotionView { checks, forced, dry_run, traffic })).await;
    }
    if checks.iter().any(|check| check.result == CheckResult::Failed) {
        return Err(unsafe_promotion(&checks));
    }
    let by = principal.by();
    runs::yield_to_operator(&mut tx, &pipeline, false, &reason, &by).await?;
    let promotion = traffic::Promotion {
        version: &found,
        experiment_id: None,
        decision_id: gathered.decision_to_carry_out(),
        weight: WHOLE,
        forced,
    };
    traffic::promote(&mut tx, &pipeline, promotion, &reason, &by).await?;
    if forced {
        let skipped: Vec<_> = checks.iter().filter(|check| check.result == CheckResult::Skipped).collect();
        let event = AuditEvent {
            pipeline: Some(&pipeline),
            after: Some(json!({ "skipped": skipped })),
            reason: Some(&reason),
            ..by.event("model.force", ("model_version", found.name()))
        };
        audit::record(&mut tx, event).await?;
    }
    let traffic = revision_view(&mut tx, &pipeline).await?;
    let revision = traffic.revision;
    let view = PromotionView { checks, forced, dry_run, traffic };
    let reply = tx.commit(Reply::ok(view).version(revision)).await?;
    tracing::warn!(pipeline, version = %version, forced, reason, "promoted by an operator");
    Ok(reply)
}

fn unsafe_promotion(checks: &[PromotionCheck]) -> Problem {
    let failed = || checks.iter().filter(|check| check.result == CheckResult::Failed);
    let mut detail = failed().map(|check| &*check.message).collect::<Vec<_>>().join(" ");
    if failed().all(|check| check.can_be_forced) {
        detail.push_str(" `\"force\": true` overrides this, and is kept with the revision for ever.");
    }
    Problem::conflict("promotion-unsafe", "The promotion is not safe")
        .detail(detail)
        .member("checks", json!(checks))
}
