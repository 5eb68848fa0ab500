//! The worker: polls the table, runs what is due, and settles how it ended.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::PgPool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::claim::{self, Table};
use super::completion::{self, Finished};
use super::wakeups::Wakeups;
use super::{Done, Handler, JobError, Lease, backoff};
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// What can be set of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Jobs that run at the same time, and the most that are claimed at once.
    pub slots: usize,
    /// How long a claimed job belongs to this worker.
    pub lease: Duration,
    /// The longest wait between two looks at the table.
    pub poll_interval: Duration,
    /// How long running jobs may go on after a shutdown was asked for.
    pub grace: Duration,
}

/// Claims due jobs and runs them until it is told to stop.
pub struct Worker {
    settings: WorkerSettings,
    shared: Arc<Shared>,
}

struct Shared {
    db: PgPool,
    clock: Clock,
    metrics: Metrics,
    handlers: HashMap<String, Arc<dyn Handler>>,
    /// What is running now, to be given back if the shutdown's grace runs out. With the token, because a job
    /// can be claimed again before its last attempt has left.
    running: Mutex<HashSet<(i64, Uuid)>>,
    /// Makes the claiming loop look again: a job of this worker became ready.
    nudge: Arc<Notify>,
}

impl Worker {
    /// A worker for the kinds of these handlers.
    #[must_use]
    pub fn new(
        db: PgPool,
        clock: Clock,
        metrics: Metrics,
        settings: WorkerSettings,
        handlers: Vec<Arc<dyn Handler>>,
    ) -> Self {
        let handlers = handlers.into_iter().map(|handler| (handler.kind().to_owned(), handler)).collect();
        let (running, nudge) = (Mutex::default(), Arc::default());
        Self { settings, shared: Arc::new(Shared { db, clock, metrics, handlers, running, nudge }) }
    }

    /// Works until `shutdown`, then lets running jobs finish within the grace and gives the rest back.
    pub async fn run(self, shutdown: CancellationToken) {
        let (finished, arrivals) = mpsc::channel(self.settings.slots.max(1024));
        let completer = {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                completion::run(shared.db.clone(), arrivals, 1024, &shared.nudge, |job, held| {
                    if held {
                        shared.metrics.jobs_finished(&job.kind, "done", 1);
                    } else {
                        shared.metrics.lease_lost(&job.kind);
                    }
                })
                .await;
            })
        };
        let tasks = TaskTracker::new();
        let abort = CancellationToken::new();
        self.claim_until(&shutdown, &abort, &tasks, finished).await;

        tasks.close();
        if tokio::time::timeout(self.settings.grace, tasks.wait()).await.is_err() {
            abort.cancel();
            tasks.wait().await;
        }
        if completer.await.is_err() {
            tracing::error!("the task that ends finished jobs has panicked; their leases will expire");
        }
        if let Err(error) = self.give_back_running().await {
            tracing::warn!(%error, "leases could not be given back; they will run out");
        }
    }

    async fn claim_until(
        &self,
        shutdown: &CancellationToken,
        abort: &CancellationToken,
        tasks: &TaskTracker,
        finished: mpsc::Sender<Finished>,
    ) {
        let kinds: Vec<String> = self.shared.handlers.keys().cloned().collect();
        let slots = Arc::new(Semaphore::new(self.settings.slots));
        let mut wakeups =
            Wakeups::new(self.shared.db.clone(), self.settings.poll_interval, self.shared.nudge.clone());
        // Subscribed before the first look, so that nothing falls between the two.
        wakeups.subscribe().await;
        let mut table = Table::new(self.shared.db.clone());
        let mut last_sweep: Option<Instant> = None;
        let mut failed_before = false;
        while !shutdown.is_cancelled() {
            let mut permits = tokio::select! {
                permit = slots.clone().acquire_owned() => match permit {
                    Ok(permit) => vec![permit],
                    Err(_) => return,
                },
                () = shutdown.cancelled() => return,
            };
            while let Ok(permit) = slots.clone().try_acquire_owned() {
                permits.push(permit);
            }
            let sweep = last_sweep.is_none_or(|at| at.elapsed() >= self.settings.poll_interval);
            let limit = permits.len();
            // Without an answer for that long, what it claimed would have run out by now.
            let look = tokio::time::timeout(self.settings.lease, self.look(&mut table, &kinds, limit, sweep));
            match look.await.unwrap_or_else(|_| Err(sqlx::Error::Io(ErrorKind::TimedOut.into()))) {
                Ok((leases, due)) => {
                    failed_before = false;
                    if sweep {
                        last_sweep = Some(Instant::now());
                    }
                    let more = leases.len() == limit;
                    for (lease, permit) in leases.into_iter().zip(permits) {
                        self.spawn(tasks, abort.clone(), finished.clone(), lease, permit);
                    }
                    if !more {
                        wakeups.wait(due, shutdown).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "jobs could not be claimed; trying again");
                    table.disconnect();
                    drop(permits);
                    // Most likely the connection broke while nothing was due, and a new one will do.
                    if failed_before {
                        wakeups.pause(shutdown).await;
                    }
                    failed_before = true;
                }
            }
        }
    }

    /// Claims up to `limit` jobs and, if there are fewer, tells when the next is due. With `sweep`, jobs whose
    /// worker is gone are taken back before.
    async fn look(
        &self,
        table: &mut Table,
        kinds: &[String],
        limit: usize,
        sweep: bool,
    ) -> sqlx::Result<(Vec<Lease>, Option<Duration>)> {
        let conn = table.connection().await?;
        if sweep {
            let jobs = claim::take_back_expired(conn).await?;
            if jobs > 0 {
                tracing::warn!(jobs, "took back jobs whose lease had run out");
            }
        }
        let leases = claim::claim(conn, kinds, limit, self.settings.lease, self.shared.clock.uuid()).await?;
        // The jobs just claimed are to run, whatever becomes of this.
        let due = if leases.len() < limit { claim::next_due(conn, kinds).await.ok().flatten() } else { None };
        Ok((leases, due))
    }

    fn spawn(
        &self,
        tasks: &TaskTracker,
        abort: CancellationToken,
        finished: mpsc::Sender<Finished>,
        lease: Lease,
        permit: OwnedSemaphorePermit,
    ) {
        let shared = self.shared.clone();
        let span =
            tracing::info_span!("job", kind = lease.kind, subject = lease.subject, attempt = lease.attempt);
        shared.set_running(&lease, true);
        tasks.spawn(
            async move {
                tokio::select! {
                    () = shared.work(&lease, finished) => shared.set_running(&lease, false),
                    () = abort.cancelled() => {
                        tracing::warn!("still running when the shutdown's grace ended; given back");
                    }
                }
                drop(permit);
            }
            .instrument(span),
        );
    }

    async fn give_back_running(&self) -> sqlx::Result<()> {
        let held = std::mem::take(&mut *self.shared.running());
        // Even with none held the others are told: jobs may have become ready here with nobody left to claim them.
        claim::give_back(&self.shared.db, held).await
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, HashSet<(i64, Uuid)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_running(&self, lease: &Lease, running: bool) {
        if running {
            self.running().insert((lease.job_id, lease.token));
        } else {
            self.running().remove(&(lease.job_id, lease.token));
        }
    }

    async fn work(&self, lease: &Lease, finished: mpsc::Sender<Finished>) {
        // Only kinds with a handler are claimed.
        let Some(handler) = self.handlers.get(&lease.kind) else { return };
        let error = match self.attempt(handler.as_ref(), lease).await {
            Ok(Done::Finished) => {
                let job = Finished { job_id: lease.job_id, token: lease.token, kind: lease.kind.clone() };
                // The receiver lives until every sender is gone.
                let _ = finished.send(job).await;
                return;
            }
            Ok(Done::Committed) => return self.nudge.notify_one(),
            Err(error) => error,
        };
        match self.settle(handler.as_ref(), lease, error).await {
            Ok(()) => self.nudge.notify_one(),
            Err(JobError::LeaseLost) => {
                self.metrics.lease_lost(&lease.kind);
                tracing::info!("the lease was lost; nothing was changed");
            }
            Err(problem) => {
                tracing::warn!(error = %problem, "the job's error could not be recorded; its lease will run out");
            }
        }
    }

    /// One attempt, stopped at the lease's deadline; a panic counts as an error.
    async fn attempt(&self, handler: &dyn Handler, lease: &Lease) -> Result<Done, JobError> {
        if lease.attempt > lease.max_attempts {
            return Err(JobError::Retryable {
                message: format!("the worker stopped {} times before it was done", lease.max_attempts),
                retry_after: None,
            });
        }
        let mut work = std::pin::pin!(AssertUnwindSafe(handler.run(lease)).catch_unwind());
        loop {
            let deadline = lease.deadline();
            tokio::select! {
                outcome = &mut work => return outcome.unwrap_or_else(|_| Err(JobError::Retryable {
                    message: "the step stopped with an internal error; the log has its place".into(),
                    retry_after: None,
                })),
                () = tokio::time::sleep_until(deadline.into()) => {
                    if lease.deadline() <= Instant::now() {
                        return Err(JobError::Retryable {
                            message: "the step did not finish within its lease".into(),
                            retry_after: None,
                        });
                    }
                }
            }
        }
    }

    /// Records how an attempt failed. What it records, and says, is only true while the lease holds.
    async fn settle(&self, handler: &dyn Handler, lease: &Lease, error: JobError) -> Result<(), JobError> {
        let (code, message) = match error {
            JobError::LeaseLost => return Err(JobError::LeaseLost),
            JobError::Superseded => {
                let mut tx = self.db.begin().await?;
                lease.reschedule(&mut tx, Duration::ZERO).await?;
                tx.commit().await?;
                tracing::info!("what the job is about has changed meanwhile; starting afresh");
                return Ok(());
            }
            JobError::Retryable { message, retry_after } if lease.attempt < lease.max_attempts => {
                let wait = backoff::delay(lease.attempt, retry_after, &self.clock);
                let mut tx = self.db.begin().await?;
                handler.retried(&mut tx, lease, &message, wait).await?;
                lease.retry(&mut tx, wait, &message).await?;
                tx.commit().await?;
                tracing::warn!(error = message, ?wait, "will be tried again");
                self.metrics.job_retried(&lease.kind);
                return Ok(());
            }
            JobError::Retryable { message, .. } => ("retries_exhausted".to_owned(), message),
            JobError::Fatal { code, message } => (code, message),
        };
        let mut tx = self.db.begin().await?;
        handler.failed(&mut tx, lease, &code, &message).await?;
        lease.fail(&mut tx, &message).await?;
        tx.commit().await?;
        tracing::error!(code, error = message, "failed for good");
        self.metrics.jobs_finished(&lease.kind, "failed", 1);
        Ok(())
    }
}
