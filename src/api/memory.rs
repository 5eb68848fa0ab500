//! What the API answers from memory: who serves which unit, and whose key may ask.
//!
//! A process reads it whole, as of one moment, when Postgres notifies it of a change and in any case every
//! [`POLL_INTERVAL`]; readers take the last one without a lock. While Postgres is away the last one goes on being
//! answered, marked as stale. It is lost with the process.
//!
//! A key that was revoked is refused as soon as the process has heard of it, within a second; a process that is cut off
//! from Postgres goes on accepting the keys that it knew, for assignments and for nothing else. A key that is not known
//! in memory is looked up in the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::auth;
use super::known_keys::KnownKeys;
use super::problem::Problem;
use crate::traffic::snapshot::Snapshot;

/// How often to read although nobody told of a change.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// What was not confirmed for so many intervals is stale.
const STALE_AFTER: u32 = 3;
/// A reading that takes longer is given up: a server that hangs must not hold up the next one.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the database's triggers notify on.
const CHANNEL: &str = "tuneloop_serving";

/// What is answered from memory. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    db: PgPool,
    poll_interval: Duration,
    current: ArcSwapOption<Contents>,
    /// One reading at a time, so that none replaces a later one.
    refreshing: Mutex<()>,
}

/// All of it, as of one moment.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) traffic: Snapshot,
    keys: KnownKeys,
    as_of: Instant,
}

/// What was read last.
pub(super) struct Reading {
    contents: Guard<Option<Arc<Contents>>>,
    /// Whether it was not confirmed for a while.
    pub(super) stale: bool,
}

impl Reading {
    /// `None` cannot be: see [`Memory::read`].
    pub(super) fn traffic(&self) -> Option<&Snapshot> {
        self.contents.as_ref().map(|contents| &contents.traffic)
    }
}

impl Memory {
    /// An empty memory, filled by the first who reads it or by [`Self::run`].
    #[must_use]
    pub fn new(db: PgPool) -> Self {
        Self::with_poll_interval(db, POLL_INTERVAL)
    }

    /// The same with another interval.
    #[must_use]
    pub fn with_poll_interval(db: PgPool, poll_interval: Duration) -> Self {
        let (current, refreshing) = (ArcSwapOption::empty(), Mutex::new(()));
        Self(Arc::new(Shared { db, poll_interval, current, refreshing }))
    }

    /// Adds `tuneloop_traffic_snapshot_age_seconds` to a registry. It has no value until something was read.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let age = Gauge::new(
            "tuneloop_traffic_snapshot_age_seconds",
            "Time since what assignments are answered from was last read from the database.",
        )?;
        registry.register(Box::new(Age { memory: self.clone(), age }))
    }

    /// Time since the last reading began that succeeded; `None` before the first.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.0.current.load().as_ref().map(|contents| contents.as_of.elapsed())
    }

    /// Reads it from the database.
    pub async fn refresh(&self) -> sqlx::Result<()> {
        let _one = self.0.refreshing.lock().await;
        self.refresh_alone().await
    }

    async fn refresh_alone(&self) -> sqlx::Result<()> {
        let reading = async {
            let as_of = Instant::now();
            let mut conn = self.0.db.acquire().await?;
            let earlier = self.0.current.load_full();
            let earlier = earlier.as_ref().map(|contents| &contents.traffic);
            let traffic = Snapshot::load(&mut conn, earlier).await?;
            let keys = KnownKeys::load(&mut *conn).await?;
            Ok(Contents { traffic, keys, as_of })
        };
        let contents =
            tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        self.0.current.store(Some(Arc::new(contents)));
        Ok(())
    }

    /// Keeps it up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut listener: Option<PgListener> = None;
        let mut failing = false;
        while !stop.is_cancelled() {
            let refreshed = self.refresh().await;
            match &refreshed {
                Ok(()) if failing => tracing::info!("assignments are up to date again"),
                Err(error) if !failing => {
                    tracing::warn!(%error, "what serves cannot be read; assignments go on as of the last reading");
                }
                _ => {}
            }
            failing = refreshed.is_err();
            if failing {
                // It may be broken without knowing.
                listener = None;
            } else if listener.is_none() {
                listener = self.listen().await;
                if listener.is_some() {
                    // What changed between the reading and the subscription was announced to nobody.
                    continue;
                }
            }
            let notified = async {
                match &mut listener {
                    // An error or `None` is a connection that broke: what was announced in between is lost.
                    Some(listener) => listener.try_recv().await.is_ok_and(|notice| notice.is_some()),
                    None => std::future::pending().await,
                }
            };
            let lost = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.0.poll_interval) => false,
                heard = notified => !heard,
            };
            if lost {
                listener = None;
            }
        }
    }

    async fn listen(&self) -> Option<PgListener> {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.0.db).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match tokio::time::timeout(PATIENCE, listening).await {
            Ok(Ok(listener)) => Some(listener),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot listen for changes of traffic; polling alone for now");
                None
            }
            Err(_) => None,
        }
    }

    /// What was read last. Only before the first reading does this wait for the database.
    pub(super) async fn read(&self) -> Result<Reading, Problem> {
        let mut contents = self.0.current.load();
        if contents.is_none() {
            let _one = self.0.refreshing.lock().await;
            contents = self.0.current.load();
            if contents.is_none() {
                // On the heap, because every request would carry the place that this takes.
                Box::pin(self.refresh_alone()).await?;
                contents = self.0.current.load();
            }
        }
        Ok(self.reading(contents))
    }

    /// What was read last, and read again where it does not know the pipeline: one that was created a moment ago is served at
    /// once.
    pub(super) async fn read_for(&self, pipeline: &str) -> Result<Reading, Problem> {
        let reading = self.read().await?;
        let known = reading.traffic().is_some_and(|traffic| traffic.pipeline(pipeline).is_some());
        if known || reading.stale {
            return Ok(reading);
        }
        // On the heap, because every request would carry the place that this takes.
        Box::pin(self.read_since(Instant::now())).await
    }

    /// What was read after `asked`. Of any number of callers at once few read.
    async fn read_since(&self, asked: Instant) -> Result<Reading, Problem> {
        let _one = self.0.refreshing.lock().await;
        if self.0.current.load().as_ref().is_none_or(|contents| contents.as_of < asked) {
            self.refresh_alone().await?;
        }
        Ok(self.reading(self.0.current.load()))
    }

    fn reading(&self, contents: Guard<Option<Arc<Contents>>>) -> Reading {
        let limit = self.0.poll_interval * STALE_AFTER;
        let stale = contents.as_ref().is_none_or(|contents| contents.as_of.elapsed() > limit);
        Reading { contents, stale }
    }
}

/// The memory, for a request with a key that is in force: any role may read. How handlers get at it.
///
/// An extractor and not a middleware, which would cost more than looking the key up does.
pub(super) struct Readable(pub(super) Memory);

impl FromRequestParts<Memory> for Readable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, memory: &Memory) -> Result<Self, Problem> {
        let known = {
            let contents = memory.0.current.load();
            contents.as_ref().map(|contents| contents.keys.let_in(&parts.headers)).transpose()?
        };
        if known != Some(true) {
            // On the heap, because every request would carry the place that this takes.
            Box::pin(auth::verify(&memory.0.db, &parts.headers)).await?;
        }
        Ok(Self(memory.clone()))
    }
}

/// The age at the moment of a scrape.
struct Age {
    memory: Memory,
    age: Gauge,
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.age.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(age) = self.memory.age() else { return Vec::new() };
        self.age.set(age.as_secs_f64());
        self.age.collect()
    }
}
