//! The service: the API, the worker and the scheduler, or those of them that a process is asked to be.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgPool;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState};
use crate::clock::Clock;
use crate::config::Roles;
use crate::database::MIGRATOR;
use crate::dataset::{DatasetStore, Sources};
use crate::housekeeping::Housekeeping;
use crate::jobs::{Handler, Worker, WorkerSettings};
use crate::model_check::ModelCheck;
use crate::notifications::{Deliver, NotificationSettings, Sealer};
use crate::outbound::{TargetRules, Targets};
use crate::outcome_judge::OutcomeJudge;
use crate::outcome_pull::OutcomePull;
use crate::preflight::PriceTable;
use crate::publication::{Publication, PublicationMetrics, Reach};
use crate::runs::{Cleanup, RunHandler, Services};
use crate::schedule::Scheduler;
use crate::standard_webhooks::WebhookSecret;
use crate::telemetry::metrics::Metrics;
use crate::tracking::{MlflowSettings, Tracking};
use crate::trainers::Trainers;

/// How long an address that users name may take to be connected to.
const TARGET_CONNECT_TIME: Duration = Duration::from_secs(5);

/// What the service is made of.
#[derive(Debug)]
pub struct Service {
    /// A database with the schema of this build.
    pub db: PgPool,
    /// Time, identifiers and randomness.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Where posts are read.
    pub sources: Sources,
    /// Where datasets are kept.
    pub datasets: DatasetStore,
    /// The providers.
    pub trainers: Trainers,
    /// What the provider signs its notices with; without it none are taken.
    pub webhook_secret: Option<WebhookSecret>,
    /// What providers charge.
    pub prices: PriceTable,
    /// How long outcomes are kept.
    pub outcome_retention: TimeDelta,
    /// What pipelines may publish to.
    pub reach: Reach,
    /// Which addresses users may name for the service to call.
    pub target_rules: TargetRules,
    /// How applications are told what happens.
    pub notifications: NotificationSettings,
    /// The MLflow server that is told of runs and versions; without it none is.
    pub mlflow: Option<MlflowSettings>,
    /// What this process does.
    pub roles: Roles,
    /// How the worker works.
    pub worker: WorkerSettings,
}

/// Why the service ended although nobody asked for it.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The metrics of a part are registered already.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The clients of addresses that users name cannot be made.
    #[error("the clients that send webhooks and publish to applications cannot be made")]
    Targets(#[from] reqwest::Error),
    /// The API cannot go on.
    #[error("the API stopped")]
    Api(#[source] io::Error),
    /// The scheduler cannot go on.
    #[error("the scheduler stopped")]
    Scheduler(#[from] tokio_cron_scheduler::JobSchedulerError),
    /// MLflow cannot be called.
    #[error("no client of MLflow can be made")]
    Tracking(#[source] reqwest::Error),
    /// A part panicked; the log has its place.
    #[error("a part of the service stopped with an internal error")]
    Panicked(#[from] tokio::task::JoinError),
    /// A part ended early.
    #[error("a part of the service ended before it was asked to")]
    Ended,
}

impl Service {
    /// Runs until `shutdown`, then lets requests and jobs in hand finish within the worker's grace. Probes and metrics are
    /// served on `listener` whatever the roles; the API only with its role.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServiceError> {
        // Parts stop together: when one ends early, the others are told.
        let stop = shutdown.child_token();
        let mut parts = JoinSet::new();
        let (db, clock, metrics) = (self.db.clone(), self.clock.clone(), self.metrics.clone());
        let mut state = ApiState::new(db, clock, metrics, self.datasets.clone(), schema_version())?;
        state.sources = self.sources.clone();
        state.webhook_secret = self.webhook_secret.clone();
        state.prices = self.prices.clone();
        state.trainers = self.trainers.clone();
        state.outcome_retention = self.outcome_retention;
        state.target_rules = self.target_rules;
        state.stop = stop.clone();
        if self.roles.api {
            let (memory, stop) = (state.memory.clone(), stop.clone());
            parts.spawn(async move {
                memory.run(stop).await;
                Ok(())
            });
        }
        let router = if self.roles.api { api::router(state) } else { api::operations(state) };
        parts.spawn(serve(listener, router, stop.clone(), self.worker.grace));
        if self.roles.worker {
            let worker = self.worker()?;
            let stop = stop.clone();
            parts.spawn(async move {
                worker.run(stop).await;
                Ok(())
            });
        }
        if self.roles.scheduler {
            let scheduler =
                Scheduler::new(self.db, self.clock, self.metrics).with_tracking(self.mlflow.is_some());
            let stop = stop.clone();
            parts.spawn(async move { Ok(scheduler.run(stop).await?) });
        }
        let mut outcome = Ok(());
        while let Some(ended) = parts.join_next().await {
            let early = !stop.is_cancelled();
            stop.cancel();
            let ended = ended.map_err(ServiceError::from).flatten();
            let ended = if early { ended.and(Err(ServiceError::Ended)) } else { ended };
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn worker(&self) -> Result<Worker, ServiceError> {
        let services = Services {
            db: self.db.clone(),
            clock: self.clock.clone(),
            sources: self.sources.clone(),
            datasets: self.datasets.clone(),
            trainers: self.trainers.clone(),
            prices: self.prices.clone(),
            metrics: self.metrics.clone(),
        };
        let targets = Targets::new(self.target_rules, TARGET_CONNECT_TIME)?;
        let mut handlers: Vec<Arc<dyn Handler>> = vec![
            Arc::new(RunHandler::new(services.clone())),
            Arc::new(Cleanup::new(services)),
            Arc::new(OutcomePull {
                db: self.db.clone(),
                clock: self.clock.clone(),
                sources: self.sources.clone(),
                retention: self.outcome_retention,
            }),
            Arc::new(OutcomeJudge {
                db: self.db.clone(),
                trainers: self.trainers.clone(),
                prices: self.prices.clone(),
            }),
            Arc::new(ModelCheck {
                db: self.db.clone(),
                clock: self.clock.clone(),
                trainers: self.trainers.clone(),
                metrics: self.metrics.clone(),
            }),
            Arc::new(Publication {
                db: self.db.clone(),
                clock: self.clock.clone(),
                reach: self.reach.clone(),
                targets: targets.clone(),
                metrics: PublicationMetrics::register(self.metrics.registry())?,
            }),
            Arc::new(Sealer { db: self.db.clone(), clock: self.clock.clone() }),
            Arc::new(Deliver {
                db: self.db.clone(),
                clock: self.clock.clone(),
                targets,
                public_url: self.notifications.public_url.clone(),
                metrics: self.metrics.clone(),
            }),
            Arc::new(Housekeeping { db: self.db.clone(), outcome_retention: self.outcome_retention }),
        ];
        let (db, clock, metrics) = (self.db.clone(), self.clock.clone(), self.metrics.clone());
        if let Some(mlflow) = &self.mlflow {
            let tracking = Tracking::new(db.clone(), clock.clone(), mlflow.clone());
            handlers.push(Arc::new(tracking.map_err(ServiceError::Tracking)?));
        }
        Ok(Worker::new(db, clock, metrics, self.worker.clone(), handlers))
    }
}

/// The newest migration of this build.
fn schema_version() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

async fn serve(
    listener: TcpListener,
    router: axum::Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), ServiceError> {
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = serving.into_future();
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServiceError::Api),
        () = stop.cancelled() => {}
    }
    // A client that does not read its answer must not hold the process.
    match tokio::time::timeout(grace, serving).await {
        Ok(ended) => ended.map_err(ServiceError::Api),
        Err(_) => Ok(()),
    }
}
