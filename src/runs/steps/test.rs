//! Test: the candidate meets the live version on real traffic, until the horizon or until it does harm.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::PgConnection;

use super::super::machine::StepContext;
use super::super::transition::{Transition, set_place};
use super::super::{Place, RunStatus, Step, places};
use super::ramp::{self, Ramp};
use super::{broken, seconds, until};
use crate::audit::By;
use crate::experiments::decision::{Decision, HarmReport, Metric, Verdict, decide};
use crate::experiments::{self, Experiment, NewExperiment, Phase, Planned};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, VersionStatus};
use crate::traffic::{self, TestArms};

pub(in crate::runs) async fn run(context: &StepContext<'_>) -> Result<Transition, JobError> {
    match context.run.experiment_id {
        None => start(context).await,
        Some(id) => {
            let experiment = experiments::by_id(&context.services.db, id).await?;
            look(context, &experiment.ok_or_else(|| broken("its experiment"))?).await
        }
    }
}

/// Takes the proving place and gives the candidate its share, in one transaction.
async fn start(context: &StepContext<'_>) -> Result<Transition, JobError> {
    let run = context.run;
    let settings = &context.config.experiment;
    let candidate = run.model_version_id.ok_or_else(|| broken("its model version"))?;

    // Outside of the pipeline's lock: it may read many outcomes.
    let planned = planned_errors(context).await?;
    let mut tx = context.begin_with_pipeline().await?;
    let live = traffic::current(&mut tx, &run.pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    if live.kill_switch {
        // Its clock would run without an outcome, and the watch of an older run would have ended for nothing.
        let reason = "the kill switch is on; the test begins when it is off";
        return Ok(Transition::wait(tx, seconds(settings.interval_seconds), "kill_switch", reason));
    }
    if let Some(other) = places::vacate(&mut tx, run).await? {
        let reason = format!("run {other} is proving its model; this one follows");
        return Ok(Transition::wait(tx, seconds(settings.interval_seconds), "proving_place_taken", reason));
    }
    let version = models::by_id(&mut *tx, candidate).await?.ok_or_else(|| broken("its model version"))?;
    if version.status != VersionStatus::Candidate {
        // An operator promoted it, or took it back, while this run was waiting.
        let reason = format!("{} is {} and cannot be tested any more", version.name(), version.status);
        return Ok(Transition::finish(tx, RunStatus::Cancelled, "candidate_not_testable", reason));
    }
    set_place(&mut tx, run, Place::Proving).await?;
    let arms =
        TestArms { experiment_id: context.services.clock.uuid(), baseline: live.live_version_id, candidate };
    let experiment = NewExperiment {
        id: arms.experiment_id,
        pipeline: &run.pipeline,
        run_id: run.id,
        baseline_id: arms.baseline,
        candidate_id: arms.candidate,
        rules: &settings.rules,
        horizon_seconds: settings.horizon_seconds,
    };
    experiments::start(&mut tx, &experiment, &By::worker()).await?;
    experiments::freeze_planned_errors(&mut tx, arms.experiment_id, Phase::Test, &planned).await?;
    sqlx::query!("UPDATE runs SET experiment_id = $2 WHERE id = $1", run.id, arms.experiment_id)
        .execute(&mut *tx)
        .await?;
    let weight = settings.first_weight();
    let revision = traffic::start_test(&mut tx, &run.pipeline, arms, weight, &By::worker()).await?;
    halt::point("test", "starting");
    let wait = settings.interval_seconds.min(settings.horizon_seconds);
    let reason = format!(
        "the test began: {} % of the traffic for {} s",
        f64::from(weight) / 100.0,
        settings.horizon_seconds
    );
    Ok(Transition::wait(tx, seconds(wait), "testing", reason)
        .with(json!({"experiment": arms.experiment_id, "revision": revision, "weight": weight})))
}

/// What the looks of this test are planned for. Nothing is read where another run is still proving its model.
async fn planned_errors(context: &StepContext<'_>) -> Result<BTreeMap<Metric, f64>, JobError> {
    let settings = &context.config.experiment;
    let planned = Planned { candidate_share: settings.mean_share(), seconds: settings.horizon_seconds };
    let mut conn = context.services.db.acquire().await?;
    if places::proving(&mut conn, &context.run.pipeline).await?.is_some_and(|run| run.step != Step::Watch) {
        return Ok(BTreeMap::new());
    }
    Ok(experiments::planned_errors(&mut conn, &context.run.pipeline, &settings.rules, planned, context.now)
        .await?)
}

/// One look: on to the decision at the horizon, or earlier where the candidate does harm.
async fn look(context: &StepContext<'_>, experiment: &Experiment) -> Result<Transition, JobError> {
    // A ramp may change the traffic.
    let mut tx = match context.config.experiment.ramp {
        Some(_) => context.begin_with_pipeline().await?,
        None => context.begin().await?,
    };
    let decision = evaluate(&mut tx, context, experiment).await?;
    if decision.verdict != Verdict::Collecting {
        // A look that ends the test is made once more by the decision, which then stores it.
        halt::point("test", "ending");
        return Ok(Transition::next(tx, Step::Decide, "the test is over")
            .with(json!({"horizon": experiment.horizon_at})));
    }
    if let Some(look) = decision.early_look {
        experiments::spend_look(&mut tx, experiment.id, look).await?;
    }
    let interval = seconds(context.config.experiment.interval_seconds);
    let wait = until(context.now, experiment.horizon_at).min(interval);
    let counts = decision.estimate.as_ref().map(|estimate| estimate.counts).unwrap_or_default();
    let report = HarmReport::from_looks(decision.harm);
    let ramp = ramp::rise(&mut tx, context, experiment, &report).await?;
    if let Ramp::Rose { revision, weight, reason } = ramp {
        return Ok(Transition::wait(tx, wait, "testing", reason)
            .with(json!({"revision": revision, "weight": weight, "look": report})));
    }
    let mut reason = format!(
        "collecting outcomes: {} of the baseline, {} of the candidate",
        counts.baseline.outcomes, counts.candidate.outcomes
    );
    if let Ramp::Waits(why) = ramp {
        reason = format!("{reason}. {why}");
    }
    Ok(Transition::wait(tx, wait, "testing", reason).with(json!({
        "baseline": counts.baseline.outcomes, "candidate": counts.candidate.outcomes,
        "horizon": experiment.horizon_at,
    })))
}

/// What the rules say of the outcomes so far. The first look that has enough data fixes the standard error
/// that all later ones are planned for.
pub(super) async fn evaluate(
    conn: &mut PgConnection,
    context: &StepContext<'_>,
    experiment: &Experiment,
) -> Result<Decision, JobError> {
    experiments::hold_still(conn).await?;
    let evidence = experiments::evidence(conn, experiment, context.now).await?;
    let decision = decide(&evidence, &experiment.rules);
    let planned = &decision.planned_standard_errors;
    experiments::freeze_planned_errors(conn, experiment.id, Phase::Test, planned).await?;
    experiments::record_look(conn, experiment, context.now, &decision).await?;
    Ok(decision)
}
