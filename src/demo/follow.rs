//! Follows a run to its end, by its events.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::DemoError;
use super::answers::{EventsAnswer, RunAnswer};
use super::client::Client;
use super::plan;
use super::screen::Screen;
use super::traffic::Tally;
use crate::experiments::decision::thousands;
use crate::runs::Step;

const LOOK: Duration = Duration::from_millis(200);
/// A run of the demo takes under half a minute; on a machine under load, this is still enough.
const LIMIT: Duration = Duration::from_mins(5);

/// Shows the events of a run as they come and returns it once it has settled.
pub(super) async fn follow(
    client: &Client,
    run: Uuid,
    tally: &Tally,
    screen: &mut Screen,
) -> Result<RunAnswer, DemoError> {
    let begun = Instant::now();
    let mut after = 0;
    while begun.elapsed() < LIMIT {
        // Looked at before the events, so that none is left to show once the run has settled.
        let state: RunAnswer = client.get(&format!("/v1/runs/{run}")).await?;
        let path = format!("/v1/runs/{run}/events?after={after}&limit=100");
        let news: EventsAnswer = client.get(&path).await?;
        let quiet = news.items.is_empty();
        for event in news.items {
            after = event.id;
            if event.kind == "entered" && event.step == Step::Watch {
                screen.note(event.step, &watch_began())?;
                continue;
            }
            let aside = format!(" ({} outcomes accepted so far)", thousands(tally.accepted()));
            screen.event(&event, &aside)?;
        }
        if state.settled() && quiet {
            screen.erase()?;
            return Ok(state);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(DemoError::TooSlow { seconds: LIMIT.as_secs() })
}

/// The first look of a watch comes before anything was served, and has nothing to say.
fn watch_began() -> String {
    format!(
        "the watch began: {} % of the traffic stays on the former version for {} s, to compare",
        plan::CANDIDATE_WEIGHT / 100,
        plan::WATCH_SECONDS
    )
}
