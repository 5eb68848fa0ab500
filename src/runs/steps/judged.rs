//! Whether a step of a ramp or a rollout was looked at, so that the next one may follow.

use sqlx::PgConnection;

use crate::experiments::decision::HarmReport;
use crate::experiments::{self, Experiment};
use crate::traffic::Revision;

/// Whether every watched metric can be judged, with outcomes of both versions under this revision among them: a look at those
/// of the steps before says nothing of this one.
pub(super) async fn is_judged(
    conn: &mut PgConnection,
    experiment: &Experiment,
    live: &Revision,
    look: &HarmReport,
) -> sqlx::Result<bool> {
    if !look.looks.iter().all(|look| look.enough) {
        return Ok(false);
    }
    let least = experiment.rules.harm_minimum_outcomes;
    let epochs = experiments::epochs(conn, experiment).await?;
    let step = epochs.iter().find(|epoch| epoch.revision == live.revision);
    Ok(step.is_some_and(|step| step.outcomes.both(|outcomes| *outcomes >= least)))
}
