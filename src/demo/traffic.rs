//! Simulated traffic, by the same two endpoints an application uses: it asks which version writes a post, and
//! reports what readers made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::answers::{AssignmentAnswer, OutcomesAnswer};
use super::client::{Client, ClientError};
use super::plan;
use super::readers::Readers;
use crate::clock::Clock;
use crate::experiments::outcomes::Outcome;
use crate::models::Version;

const TICK: Duration = Duration::from_millis(50);
/// Assignments asked for at once.
const CONCURRENT: usize = 8;
/// Outcomes are sent when there are this many, or the oldest has waited this long.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_millis(250);
/// Outcomes kept while the service does not take them.
const MOST_KEPT: usize = 5_000;

/// What has been served so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    assigned: AtomicU64,
    accepted: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    /// Posts for which a version was asked.
    pub(super) fn assigned(&self) -> u64 {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Outcomes that the service recorded.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Posts that got no version, and outcomes that the service did not take.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Serves posts until it is told to stop.
pub(super) struct Traffic {
    client: Client,
    pipeline: &'static str,
    clock: Clock,
    readers: Readers,
    tally: Arc<Tally>,
    posts: u64,
    /// Outcomes that are not sent yet.
    pending: Vec<Outcome>,
    sent_at: Instant,
    /// Whether a test or a watch is on, as the latest assignments say.
    tested: bool,
}

/// A post that a version is asked for.
struct Unit {
    id: String,
    persona: usize,
}

impl Traffic {
    pub(super) fn new(client: Client, pipeline: &'static str, clock: Clock, readers: Readers) -> Self {
        Self {
            client,
            pipeline,
            clock,
            readers,
            tally: Arc::default(),
            posts: 0,
            pending: Vec::new(),
            sent_at: Instant::now(),
            tested: false,
        }
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Many posts while a test or watch is on, and few otherwise. What fails is counted and logged; the next
    /// post is served all the same.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut before) = (0.0, Instant::now());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let rate = if self.tested { plan::READS_PER_SECOND } else { plan::QUIET_READS_PER_SECOND };
            // After a stall, no more than a second's worth is made up for.
            due = (due + before.elapsed().as_secs_f64() * f64::from(rate)).min(f64::from(rate));
            before = Instant::now();
            let units = std::iter::from_fn(|| take_one(&mut due).then(|| self.next_unit())).collect();
            self.serve(units).await;
            if self.pending.len() >= BATCH || self.sent_at.elapsed() >= PATIENCE {
                self.report().await;
            }
        }
    }

    fn next_unit(&mut self) -> Unit {
        self.posts += 1;
        Unit { id: format!("post-{}", self.posts), persona: self.readers.next_persona() }
    }

    async fn serve(&mut self, units: Vec<Unit>) {
        let (client, pipeline, clock) = (&self.client, self.pipeline, &self.clock);
        let assigned: Vec<_> = stream::iter(units)
            .map(async |unit| {
                let path = format!("/v1/pipelines/{pipeline}/assignment?unit={}", unit.id);
                let answer: Result<AssignmentAnswer, ClientError> = client.get(&path).await;
                (unit, answer, clock.now())
            })
            .buffered(CONCURRENT)
            .collect()
            .await;
        for (unit, answer, served_at) in assigned {
            match answer {
                Ok(answer) => self.read(unit, &answer, served_at),
                Err(error) => {
                    self.tally.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(unit = unit.id, %error, "a simulated post was not assigned");
                }
            }
        }
    }

    /// Readers see the post.
    fn read(&mut self, unit: Unit, answer: &AssignmentAnswer, served_at: DateTime<Utc>) {
        self.tally.assigned.fetch_add(1, Ordering::Relaxed);
        self.tested = answer.experiment_id.is_some();
        let seen = self.readers.respond(unit.persona, answer.version != Version::BASE);
        self.pending.push(Outcome {
            id: unit.id.clone(),
            pipeline: self.pipeline.to_owned(),
            version: Some(answer.version),
            model_id: None,
            unit: unit.id,
            persona: Some(format!("persona-{:02}", unit.persona + 1)),
            served_at,
            revision: Some(answer.revision),
            engagement_rate: Some(seen.rate()),
            engagements: Some(seen.engagements),
            impressions: Some(seen.impressions),
            cost: None,
            quality: None,
            latency_ms: None,
            failed: None,
            text: None,
        });
    }

    /// Sends what is pending. Where no answer came it is kept and sent again, which counts nothing twice.
    async fn report(&mut self) {
        self.sent_at = Instant::now();
        if self.pending.is_empty() {
            return;
        }
        let answer: Result<OutcomesAnswer, _> = self.client.post("/v1/outcomes", Some(&self.pending)).await;
        let lost = match answer {
            Ok(answer) => {
                self.pending.clear();
                self.tally.accepted.fetch_add(answer.accepted, Ordering::Relaxed);
                if let Some(first) = answer.rejected.first() {
                    tracing::warn!(count = answer.rejected.len(), first.reason, "outcomes were refused");
                }
                answer.rejected.len()
            }
            Err(error) => {
                tracing::warn!(%error, kept = self.pending.len(), "outcomes could not be sent");
                let surplus = self.pending.len().saturating_sub(MOST_KEPT);
                self.pending.drain(..surplus);
                surplus
            }
        };
        self.tally.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }
}

/// Takes 1 off `due` where there is as much.
fn take_one(due: &mut f64) -> bool {
    let enough = *due >= 1.0;
    if enough {
        *due -= 1.0;
    }
    enough
}
