//! `tuneloop serve`: the API, the worker and the scheduler, or those of them that are asked for.

use std::path::Path;

use chrono::TimeDelta;
use clap::Args;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::listen::listen;
use super::{Failure, shutdown_signal};
use crate::clock::Clock;
use crate::config::{ProviderArgs, ServeArgs, TrackingArgs};
use crate::dataset::{DatasetStore, Sources};
use crate::jobs::WorkerSettings;
use crate::notifications::NotificationSettings;
use crate::outbound::{CircuitBreaker, TargetRules};
use crate::preflight::PriceTable;
use crate::publication::Reach;
use crate::service::Service;
use crate::telemetry::metrics::Metrics;
use crate::tracking::{MlflowAccess, MlflowSettings};
use crate::trainers::{ApiKey, OpenAiSettings, OpenAiTrainer, Trainers};
use crate::{database, pipelines, telemetry};

/// Run the service: the API, the worker and the scheduler
///
/// The database must have the schema of this build: run `tuneloop migrate` first.
///
/// SIGTERM or Ctrl-C ends the service once the work in hand is done.
#[derive(Args, Debug)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.settings;
        settings.check().map_err(|fault| Failure::Settings(fault.to_string()))?;
        settings.tracking.check().map_err(|fault| Failure::Settings(fault.to_string()))?;
        if let Some(directory) = &settings.publication.directory {
            check_directory(directory)?;
        }
        // Before anything else, so that a process that is still connecting can be stopped.
        let stop = shutdown_signal()?;
        let telemetry = telemetry::init(&settings.telemetry)?;
        let outcome = serve(&settings, &stop).await;
        telemetry.shutdown().await;
        outcome
    }
}

async fn serve(settings: &ServeArgs, stop: &CancellationToken) -> Result<(), Failure> {
    let Some(pool) = stop.run_until_cancelled(open(settings)).await else { return Ok(()) };
    let pool = pool?;
    let clock = Clock::system();
    pipelines::seed(&pool, &clock, &settings.seed).await?;
    let metrics = Metrics::new()?;
    let service = Service {
        db: pool.clone(),
        sources: Sources::new(pool.clone()),
        trainers: trainers(&settings.provider, &clock, &metrics)?,
        datasets: DatasetStore::open(&settings.dataset_store, std::env::vars_os())?,
        metrics,
        prices: prices(settings)?,
        outcome_retention: TimeDelta::days(settings.outcome_retention_days.into()),
        target_rules: TargetRules { allow_private: settings.targets.allow_private_targets },
        notifications: NotificationSettings { public_url: settings.notifications.public_url.clone() },
        webhook_secret: settings.provider.openai_webhook_secret.clone(),
        reach: Reach { directory: settings.publication.directory.clone(), ..Reach::default() },
        mlflow: mlflow(&settings.tracking),
        roles: settings.roles,
        worker: WorkerSettings {
            slots: settings.worker.slots as usize,
            lease: settings.worker.lease,
            poll_interval: settings.worker.poll_interval,
            grace: settings.shutdown_grace,
        },
        clock,
    };
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr()?;
    tracing::info!(roles = %settings.roles, version = env!("CARGO_PKG_VERSION"), %address, "started");
    service.run(listener, stop.clone()).await?;
    pool.close().await;
    Ok(())
}

/// What pipelines publish to must be there before they do.
fn check_directory(directory: &Path) -> Result<(), Failure> {
    std::fs::read_dir(directory).map(drop).map_err(|error| {
        let directory = directory.display();
        Failure::Settings(format!(
            "The directory {directory} of --publication-dir cannot be opened ({error}): make it, and let this process read it."
        ))
    })
}

/// What providers charge, where that is written down.
fn prices(settings: &ServeArgs) -> Result<PriceTable, Failure> {
    let Some(file) = &settings.prices else { return Ok(PriceTable::default()) };
    PriceTable::read(file).map_err(|error| Failure::Settings(error.to_string()))
}

/// The MLflow server, where one is told of runs and versions.
fn mlflow(settings: &TrackingArgs) -> Option<MlflowSettings> {
    let url = settings.mlflow_tracking_uri.clone()?;
    let user = settings.mlflow_tracking_username.clone().zip(settings.mlflow_tracking_password.clone());
    let access = match (user, settings.mlflow_tracking_token.clone()) {
        (Some((user, password)), _) => MlflowAccess::Password(user, password),
        (None, Some(token)) => MlflowAccess::Token(token),
        (None, None) => MlflowAccess::Open,
    };
    Some(MlflowSettings::new(url, access))
}

/// The providers that there are keys for.
fn trainers(settings: &ProviderArgs, clock: &Clock, metrics: &Metrics) -> Result<Trainers, Failure> {
    let client = |provider, reached: OpenAiSettings| {
        let breaker = CircuitBreaker::new(provider, clock.clone());
        let limited = OpenAiSettings {
            total_timeout: settings.openai_timeout,
            upload_timeout: settings.openai_timeout * 10,
            breaker: Some(breaker.with_gauge(metrics.circuit_breaker(provider))),
            ..reached
        };
        OpenAiTrainer::new(&limited, clock).map_err(|error| Failure::Settings(error.to_string()))
    };
    let mut trainers = Trainers::new();
    if let Some(key) = &settings.openai_api_key {
        let openai = OpenAiSettings::new(settings.openai_base_url.clone(), ApiKey::new(key.expose()));
        trainers = trainers.with_openai(client("openai", openai)?);
    }
    if let (Some(endpoint), Some(key)) = (&settings.azure_openai_endpoint, &settings.azure_openai_api_key) {
        let azure = OpenAiSettings::azure(endpoint, ApiKey::new(key.expose()));
        trainers = trainers.with_azure_openai(client("azure_openai", azure)?);
    }
    Ok(trainers)
}

/// Connects to a database that has the schema of this build.
async fn open(settings: &ServeArgs) -> Result<PgPool, Failure> {
    let url = settings.database.database_url.expose();
    let pool = database::connect(url, settings.database_connections).await?;
    database::check_schema(&pool).await?;
    Ok(pool)
}
