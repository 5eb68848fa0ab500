//! Rollout: in the watch the promoted version's share rises in steps, each a traffic revision of the same experiment, up
//! to all but the hold-back.

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::super::machine::StepContext;
use super::super::places;
use super::super::rollout::Rollout;
use super::judged::is_judged;
use super::seconds;
use crate::audit::By;
use crate::experiments::decision::HarmReport;
use crate::experiments::{self, Experiment};
use crate::halt;
use crate::jobs::JobError;
use crate::pipelines::config::Unjudged;
use crate::traffic::{self, Revision, TestArms};

/// What became of the rollout at a look that found no harm.
pub(super) enum Advance {
    /// It is over, or there is none; with what a person should know of it.
    Over(Option<&'static str>),
    /// It goes on later; with what holds it up, where that is not its time.
    Stands(Option<&'static str>),
    /// Its time has come and its step cannot be judged: it goes on once that changes, and no longer than the watch.
    Waits(&'static str),
    /// The promoted version got more.
    Rose { revision: i64, weight: i32, reason: String },
}

/// Raises the promoted version's share where the time of its step is over. The caller holds the pipeline's lock, and commits.
pub(super) async fn advance(
    conn: &mut PgConnection,
    context: &StepContext<'_>,
    experiment: &Experiment,
    live: &Revision,
    next: Rollout,
    look: &HarmReport,
) -> Result<Advance, JobError> {
    let weight = match next {
        Rollout::Finished => return Ok(Advance::Over(None)),
        Rollout::Left => {
            return Ok(Advance::Over(Some("A person has set the split, and the rollout leaves it.")));
        }
        Rollout::Next(weight) => weight,
    };
    if live.kill_switch {
        return Ok(Advance::Stands(Some("The kill switch is on, and the rollout waits.")));
    }
    // After the kill switch the step's time begins anew: what was served under it shows nothing.
    let deployment = &context.config.deployment;
    let Some(settings) = deployment.rollout() else { return Ok(Advance::Over(None)) };
    let step = TimeDelta::from_std(seconds(settings.step_seconds)).unwrap_or(TimeDelta::MAX);
    if context.now - live.created_at < step {
        return Ok(Advance::Stands(None));
    }
    let judged = is_judged(conn, experiment, live, look).await?;
    if !judged && settings.unjudged == Unjudged::Wait {
        return Ok(Advance::Waits("The rollout waits until this step can be judged."));
    }
    let found = if judged { "" } else { "Its time is over and this step cannot be judged: " };
    let percent = f64::from(weight) / 100.0;
    let reason = format!("the promoted version's share rises to {percent} %. {found}{}", look.reason);
    let arms = TestArms {
        experiment_id: experiment.id,
        baseline: experiment.baseline_id,
        candidate: experiment.candidate_id,
    };
    let decision = experiments::decision_of(&mut *conn, experiment.id).await?.map(|decision| decision.id);
    let revision =
        traffic::roll_out(conn, &context.run.pipeline, arms, weight, decision, &reason, &By::worker())
            .await?;
    halt::point("watch", "rolling_out");
    if deployment.above(weight, context.config.watch.hold_back_weight).is_none() {
        // The next run's test waits for the end of a rollout.
        places::wake_waiting(conn, context.run).await?;
    }
    Ok(Advance::Rose { revision, weight, reason })
}
