//! Ramp: during a test the candidate's share rises in steps, each a traffic revision of the same experiment.
//!
//! Which step stands is what the traffic in force says, and nothing else: a worker that takes over sees it there.

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::super::machine::StepContext;
use super::judged::is_judged;
use super::{broken, seconds};
use crate::audit::By;
use crate::experiments::Experiment;
use crate::experiments::decision::HarmReport;
use crate::halt;
use crate::jobs::JobError;
use crate::pipelines::config::Unjudged;
use crate::traffic::{self, RevisionKind, TestArms};

/// What became of the ramp at a look that found no harm.
pub(super) enum Ramp {
    /// There is none, it has come to its end, or its next step has not come yet.
    Stands,
    /// It could go on and does not, for this reason.
    Waits(&'static str),
    /// The candidate got more.
    Rose { revision: i64, weight: i32, reason: String },
}

/// Raises the candidate's share where the time of its step is over. The caller holds the pipeline's lock, and commits.
pub(super) async fn rise(
    conn: &mut PgConnection,
    context: &StepContext<'_>,
    experiment: &Experiment,
    look: &HarmReport,
) -> Result<Ramp, JobError> {
    let Some(settings) = &context.config.experiment.ramp else { return Ok(Ramp::Stands) };
    let pipeline = &context.run.pipeline;
    let live = traffic::current(conn, pipeline).await?.ok_or_else(|| broken("its pipeline"))?;
    if live.experiment_id != Some(experiment.id) || live.live_version_id != experiment.baseline_id {
        return Ok(Ramp::Stands);
    }
    if live.kill_switch {
        return Ok(Ramp::Waits("The kill switch is on, and the ramp waits."));
    }
    let Some(weight) = settings.above(live.weight_of(experiment.candidate_id)) else {
        return Ok(Ramp::Stands);
    };
    if traffic::last_change(conn, pipeline, experiment.id).await? == Some(RevisionKind::Split) {
        return Ok(Ramp::Waits("A person has set the split, and the ramp leaves it."));
    }
    // After the kill switch the step's time begins anew: what was served under it shows nothing.
    let step = TimeDelta::from_std(seconds(settings.step_seconds)).unwrap_or(TimeDelta::MAX);
    if context.now - live.created_at < step {
        return Ok(Ramp::Stands);
    }
    let judged = is_judged(conn, experiment, &live, look).await?;
    if !judged && settings.unjudged == Unjudged::Wait {
        return Ok(Ramp::Waits("The ramp waits until this step can be judged."));
    }
    let found = if judged { "" } else { "Its time is over and this step cannot be judged: " };
    let percent = f64::from(weight) / 100.0;
    let reason = format!("the candidate's share rises to {percent} %. {found}{}", look.reason);
    let arms = TestArms {
        experiment_id: experiment.id,
        baseline: experiment.baseline_id,
        candidate: experiment.candidate_id,
    };
    let revision = traffic::ramp(conn, pipeline, arms, weight, &reason, &By::worker()).await?;
    halt::point("test", "ramping");
    Ok(Ramp::Rose { revision, weight, reason })
}
