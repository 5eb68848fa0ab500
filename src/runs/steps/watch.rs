//! Watch: the promoted version is compared with the hold-back for a while longer, and taken back on harm. Without a
//! hold-back it is compared with what the test observed of the baseline. Where it is rolled out in steps, they are made here.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::super::machine::StepContext;
use super::super::rollout;
use super::super::transition::Transition;
use super::super::{RunStatus, Step};
use super::rollout::{Advance, advance};
use super::{broken, seconds, until};
use crate::audit::By;
use crate::experiments::decision::HarmReport;
use crate::experiments::{self, Experiment, Phase};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, ModelVersion};
use crate::traffic::{self, TrafficError};

/// The promoted version does harm and cannot be taken back.
const NOTHING_TO_ROLL_BACK_TO: &str = "nothing_to_roll_back_to";

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let run = context.run;
    let id = run.experiment_id.ok_or_else(|| broken("its experiment"))?;
    let mut tx = context.begin_with_pipeline().await?;
    let experiment = experiments::by_id(&mut *tx, id).await?.ok_or_else(|| broken("its experiment"))?;
    let live = traffic::current(&mut tx, &run.pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    if live.live_version_id != experiment.candidate_id {
        // What harm the candidate did must not take back the version that replaced it.
        let reason = "another version went live since the promotion; there is nothing left to watch";
        return Ok(Transition::finish(tx, RunStatus::Cancelled, "overtaken", reason));
    }
    experiments::hold_still(&mut tx).await?;
    let next = rollout::next(&mut tx, context.config, &experiment, &live).await?;
    // Beside it as long as the former version has a share: until a rollout has come to its end, and then where there is a
    // hold-back that nobody took away. What the kill switch withholds comes back.
    let split = if live.kill_switch { &live.withheld } else { &live.shares };
    let beside =
        split.iter().any(|share| share.model_version_id == experiment.baseline_id && share.weight > 0);
    let look = if beside {
        experiments::harm_look(&mut tx, &experiment).await?
    } else {
        experiments::harm_look_before_after(&mut tx, &experiment).await?
    };
    experiments::freeze_planned_errors(&mut tx, id, Phase::Watch, &look.planned_standard_errors()).await?;
    experiments::record_look(&mut tx, &experiment, context.now, &look).await?;
    if look.harmed {
        return take_back(context, tx, &experiment, look).await;
    }
    let interval = seconds(context.config.watch.interval_seconds);
    let standing = match advance(&mut tx, context, &experiment, &live, next, &look).await? {
        Advance::Rose { revision, weight, reason } => {
            return Ok(Transition::wait(tx, interval, "watching", reason)
                .with(json!({"revision": revision, "weight": weight, "look": look})));
        }
        // The watch does not end before the rollout has.
        Advance::Stands(why) => {
            let reason = told(&look, why);
            return Ok(Transition::wait(tx, interval, "watching", reason).with(json!({"look": look})));
        }
        Advance::Over(why) => told(&look, why),
        Advance::Waits(why) => told(&look, Some(why)),
    };
    let ends_at = end(context, &watch_began(context, &mut tx).await?);
    if context.now >= ends_at {
        let (code, found) = if look.enough {
            ("watched", "the watch ended without harm")
        } else {
            ("watched_without_evidence", "the watch ended and harm could not be judged")
        };
        let reason = format!("{found}. {}", look.reason);
        // Also without a hold-back: units and outcomes belong to the experiment no longer.
        traffic::end_watch(&mut tx, &run.pipeline, &reason, &By::worker()).await?;
        halt::point("watch", "ending");
        return Ok(Transition::finish(tx, RunStatus::Succeeded, code, reason).with(json!({"look": look})));
    }
    let wait = until(context.now, ends_at).min(interval);
    Ok(Transition::wait(tx, wait, "watching", standing).with(json!({"look": look})))
}

/// What a look found, and why the rollout does not go on, where it does not.
fn told(look: &HarmReport, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("{} {why}", look.reason),
        None => look.reason.clone(),
    }
}

/// Rolls back: one more traffic revision, in the transaction that ends the run.
async fn take_back(
    context: &StepContext<'_>,
    mut tx: Transaction<'static, Postgres>,
    experiment: &Experiment,
    look: HarmReport,
) -> Result<Transition, JobError> {
    let run = context.run;
    let harmful = models::by_id(&mut *tx, experiment.candidate_id).await?;
    let harmful = harmful.ok_or_else(|| broken("its model version"))?;
    let (revision, version) =
        match traffic::rollback(&mut tx, &run.pipeline, None, &look.reason, &By::worker()).await {
            Err(TrafficError::NothingToRollBackTo) => return Ok(stays_live(context, tx, &harmful, &look)),
            rolled_back => rolled_back?,
        };
    halt::point("watch", "rolling_back");
    let reason = format!(
        "ROLLED BACK: {} did harm and serves no more. {} {} is live again.",
        harmful.name(),
        look.reason,
        version.name()
    );
    Ok(Transition::finish(tx, RunStatus::RolledBack, "harm", reason).with(
        json!({"look": look, "revision": revision, "live": version.version, "rolled_back": harmful.version}),
    ))
}

/// The worst end: there is harm, and nothing to go back to.
fn stays_live(
    context: &StepContext<'_>,
    tx: Transaction<'static, Postgres>,
    harmful: &ModelVersion,
    look: &HarmReport,
) -> Transition {
    let reason = format!(
        "HARM: {} does harm and stays live, because no earlier version can take its place: promote another one. {}",
        harmful.name(),
        look.reason
    );
    tracing::error!(pipeline = context.run.pipeline, reason, "the live version does harm");
    Transition::finish(tx, RunStatus::Failed, NOTHING_TO_ROLL_BACK_TO, reason).with(json!({"look": look}))
}

/// When the run entered this step.
async fn watch_began(
    context: &StepContext<'_>,
    tx: &mut Transaction<'static, Postgres>,
) -> Result<DateTime<Utc>, JobError> {
    let started = sqlx::query_scalar!(
        "SELECT started_at FROM run_steps WHERE run_id = $1 AND step = $2",
        context.run.id,
        Step::Watch as Step,
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(started.unwrap_or(context.now))
}

fn end(context: &StepContext<'_>, started: &DateTime<Utc>) -> DateTime<Utc> {
    let duration = TimeDelta::from_std(seconds(context.config.watch.duration_seconds));
    duration
        .ok()
        .and_then(|duration| started.checked_add_signed(duration))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
