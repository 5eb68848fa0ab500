//! Promote: the candidate becomes the live version, in one transaction with its traffic revision.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::machine::StepContext;
use super::super::transition::Transition;
use super::super::{RunStatus, Step, wind_down};
use super::{broken, seconds};
use crate::audit::By;
use crate::experiments::decision::Verdict;
use crate::experiments::{self, Metric, Phase, Planned};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, VersionStatus};
use crate::traffic::{self, Promotion, WHOLE};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let run = context.run;
    let candidate = run.model_version_id.ok_or_else(|| broken("its model version"))?;

    let experiment = run.experiment_id.ok_or_else(|| broken("its experiment"))?;
    // Outside of the pipeline's lock: it may read many outcomes.
    let planned = planned_errors(context).await?;
    let mut tx = context.begin_with_pipeline().await?;
    let experiment =
        experiments::by_id(&mut *tx, experiment).await?.ok_or_else(|| broken("its experiment"))?;
    let live = traffic::current(&mut tx, &run.pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    if live.live_version_id != experiment.baseline_id {
        // The evidence is against another version than the one that would be replaced.
        let reason = "another version went live since the test; trigger a new run to test against it";
        wind_down::end_test(&mut tx, run, VersionStatus::Candidate, reason, &By::worker()).await?;
        return Ok(Transition::finish(tx, RunStatus::Cancelled, "overtaken", reason));
    }
    if live.kill_switch {
        // It would send everything to the candidate, which is what the switch may be on against.
        let reason = "the kill switch is on; the promotion waits until it is off";
        let wait = seconds(context.config.experiment.interval_seconds);
        return Ok(Transition::wait(tx, wait, "kill_switch", reason));
    }
    experiments::freeze_planned_errors(&mut tx, experiment.id, Phase::Watch, &planned).await?;
    let candidate = models::by_id(&mut *tx, candidate).await?.ok_or_else(|| broken("its model version"))?;
    let name = candidate.name();
    let decision =
        experiments::decision_of(&mut *tx, experiment.id).await?.ok_or_else(|| broken("its decision"))?;
    let earned = decision.record.decision.verdict == Verdict::Promote;
    let reason = if earned {
        format!("run {} earned it", run.id)
    } else {
        let who = run.approved_by.as_deref().unwrap_or("somebody");
        let why = run.approval_reason.as_deref().unwrap_or("no reason was given");
        format!("{who} approved {name} although its test was inconclusive: {why}")
    };
    let hold_back = context.config.watch.hold_back_weight;
    let promotion = Promotion {
        version: &candidate,
        experiment_id: Some(experiment.id),
        decision_id: Some(decision.id),
        weight: context.config.deployment.first_weight(live.weight_of(candidate.id), hold_back),
        forced: !earned,
    };
    let revision = traffic::promote(&mut tx, &run.pipeline, promotion, &reason, &By::worker()).await?;
    halt::point("promote", "promoted");
    Ok(Transition::next(tx, Step::Watch, format!("{name} is live"))
        .with(json!({"version": candidate.version, "revision": revision, "weight": promotion.weight})))
}

/// What the looks of the watch are planned for. Without a hold-back they compare with what is over, and the first look fixes it.
async fn planned_errors(context: &StepContext<'_>) -> Result<BTreeMap<Metric, f64>, JobError> {
    let watch = &context.config.watch;
    if watch.hold_back_weight == 0 {
        return Ok(BTreeMap::new());
    }
    let candidate_share = 1.0 - f64::from(watch.hold_back_weight) / f64::from(WHOLE);
    let planned = Planned { candidate_share, seconds: watch.duration_seconds };
    let mut conn = context.services.db.acquire().await?;
    let (pipeline, rules) = (&context.run.pipeline, &context.config.experiment.rules);
    Ok(experiments::planned_errors(&mut conn, pipeline, rules, planned, context.now).await?)
}
