//! The service as it runs in production, with logs and all of its middleware, in this process.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tuneloop::api::auth::{Role, create_key};
use tuneloop::audit::{Actor, By};
use tuneloop::clock::Clock;
use tuneloop::config::{LogFormat, TelemetryArgs};
use tuneloop::dataset::{DatasetStore, Sources};
use tuneloop::embedded::{Cluster, Options};
use tuneloop::jobs::WorkerSettings;
use tuneloop::preflight::PriceTable;
use tuneloop::service::{Service, ServiceError};
use tuneloop::telemetry::{self, metrics::Metrics};
use tuneloop::trainers::Trainers;
use tuneloop::{database, pipelines};

use super::Result;

/// A running service with the pipeline `hook`.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// A viewer's.
    pub(crate) key: String,
    stop: CancellationToken,
    service: JoinHandle<std::result::Result<(), ServiceError>>,
    cluster: Cluster,
    _datasets: TempDir,
}

/// Starts it on a private cluster.
pub(crate) async fn start() -> Result<Running> {
    // As `tuneloop serve` without flags: what is logged at level info is formatted.
    let logs = TelemetryArgs {
        log_format: LogFormat::Text,
        log_filter: "info,sqlx=warn".into(),
        otlp_endpoint: None,
    };
    let _telemetry = telemetry::init(&logs)?;
    let binaries = std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into);
    let cluster = Cluster::start(Options { binaries, fast: true, ..Options::default() }).await?;
    cluster.create_database("assignment").await?;
    let db = database::connect(&cluster.url("assignment"), 10).await?;
    database::migrate(&db).await?;
    let clock = Clock::system();
    let mut tx = db.begin().await?;
    let config = serde_json::from_value(serde_json::json!({
        "serving_model": "ft:gpt-4o-2024-08-06:acme::Bq3xYz12", "training": {"base_model": "gpt-4o-2024-08-06"},
        "schedule": {"enabled": false},
    }))?;
    pipelines::save(&mut tx, &clock, "hook", &config, &By::system()).await?;
    let key = create_key(&mut tx, &clock, "application", Role::Viewer, Actor::System).await?.plaintext;
    tx.commit().await?;

    let datasets = tempfile::tempdir()?;
    let service = Service {
        sources: Sources::new(db.clone()),
        db,
        clock,
        metrics: Metrics::new()?,
        datasets: DatasetStore::local(datasets.path())?,
        trainers: Trainers::new(),
        outcome_retention: chrono::TimeDelta::days(400),
        prices: PriceTable::default(),
        webhook_secret: None,
        reach: tuneloop::publication::Reach::default(),
        target_rules: tuneloop::outbound::TargetRules::default(),
        notifications: tuneloop::notifications::NotificationSettings::default(),
        mlflow: None,
        roles: "api".parse()?,
        worker: WorkerSettings {
            slots: 1,
            lease: Duration::from_mins(2),
            poll_interval: Duration::from_secs(1),
            grace: Duration::from_secs(5),
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let service = tokio::spawn(service.run(listener, stop.clone()));
    Ok(Running { address, key, stop, service, cluster, _datasets: datasets })
}

impl Running {
    /// Stops it; it must end without an error.
    pub(crate) async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.service.await??;
        Ok(self.cluster.stop().await?)
    }
}
