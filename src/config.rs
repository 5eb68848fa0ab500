//! The settings: flags and environment variables. The text above each field is its documentation, shown by
//! `--help`. A variable that is set to nothing counts as not set.
//!
//! Settings whose value is hidden in the help are secrets: `commands::parse` never repeats what they hold.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Url;

use crate::standard_webhooks::WebhookSecret;

pub use values::{Roles, Secret, StoreLocation, listen};

/// The provider's own service, which asks for a key.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// How long outcomes are kept unless told otherwise, in days.
pub const OUTCOME_RETENTION_DAYS: u32 = 400;

/// Where state is kept.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// URL of the Postgres database, such as `postgres://user@host/database`
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, value_parser = values::database_url)]
    pub database_url: Secret,
}

/// Who trains models.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Provider")]
pub struct ProviderArgs {
    /// Key of the provider. Prefer the variable: other users of the machine can see flags
    #[arg(long, env = "OPENAI_API_KEY", value_name = "KEY", hide_env_values = true, value_parser = values::api_key)]
    pub openai_api_key: Option<Secret>,

    /// Base URL of OpenAI, or of a service that speaks its protocol
    #[arg(long, env = "OPENAI_BASE_URL", value_name = "URL", default_value = OPENAI_BASE_URL, value_parser = values::base_url)]
    pub openai_base_url: String,

    /// Address of an Azure OpenAI resource, such as `https://name.openai.azure.com`
    #[arg(long, env = "AZURE_OPENAI_ENDPOINT", value_name = "URL", value_parser = values::base_url)]
    pub azure_openai_endpoint: Option<String>,

    /// Key of the Azure OpenAI resource
    #[arg(long, env = "AZURE_OPENAI_API_KEY", value_name = "KEY", hide_env_values = true, value_parser = values::api_key)]
    pub azure_openai_api_key: Option<Secret>,

    /// How long a call of the provider may take, in seconds; uploads have ten times as long
    #[arg(
        long = "openai-timeout-seconds",
        env = "OPENAI_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = values::seconds(1..=600),
    )]
    pub openai_timeout: Duration,

    /// Signing secret of the provider's webhook, `whsec_…`; without it `/v1/webhooks/openai` takes no notices
    #[arg(long, env = "OPENAI_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true, value_parser = values::webhook_secret)]
    pub openai_webhook_secret: Option<WebhookSecret>,
}

/// Where training runs are recorded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tracking")]
pub struct TrackingArgs {
    /// URL of an MLflow server that is told of runs and model versions; none is when not set
    #[arg(long, env = "MLFLOW_TRACKING_URI", value_name = "URL", hide_env_values = true, value_parser = values::tracking_url)]
    pub mlflow_tracking_uri: Option<Url>,

    /// User of the MLflow server
    #[arg(long, env = "MLFLOW_TRACKING_USERNAME", value_name = "NAME")]
    pub mlflow_tracking_username: Option<String>,

    /// Password of that user. Prefer the variable: other users of the machine can see flags
    #[arg(long, env = "MLFLOW_TRACKING_PASSWORD", value_name = "PASSWORD", hide_env_values = true, value_parser = values::password)]
    pub mlflow_tracking_password: Option<Secret>,

    /// Bearer token for the MLflow server, in place of user and password
    #[arg(long, env = "MLFLOW_TRACKING_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = values::api_key)]
    pub mlflow_tracking_token: Option<Secret>,
}

impl TrackingArgs {
    /// What no setting shows on its own.
    ///
    /// # Errors
    ///
    /// [`TrackingFault`] when the credentials are given by half, or twice, or for no server.
    pub fn check(&self) -> Result<(), TrackingFault> {
        let user = self.mlflow_tracking_username.is_some();
        match (user, self.mlflow_tracking_password.is_some(), self.mlflow_tracking_token.is_some()) {
            (true, false, _) => Err(TrackingFault::UserWithoutPassword),
            (false, true, _) => Err(TrackingFault::PasswordWithoutUser),
            (true, true, true) => Err(TrackingFault::Twice),
            (false, false, false) => Ok(()),
            _ if self.mlflow_tracking_uri.is_none() => Err(TrackingFault::NoServer),
            _ => Ok(()),
        }
    }
}

/// Credentials for MLflow that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackingFault {
    /// A user without a password.
    #[error("MLFLOW_TRACKING_USERNAME is set without MLFLOW_TRACKING_PASSWORD: give the password too.")]
    UserWithoutPassword,
    /// A password without a user.
    #[error("MLFLOW_TRACKING_PASSWORD is set without MLFLOW_TRACKING_USERNAME: give the user too.")]
    PasswordWithoutUser,
    /// User, password and a token.
    #[error("MLFLOW_TRACKING_TOKEN is set beside MLFLOW_TRACKING_USERNAME: give one of them.")]
    Twice,
    /// Credentials without a server.
    #[error(
        "MLflow credentials are set without MLFLOW_TRACKING_URI: give the server's URL too, or remove them."
    )]
    NoServer,
}

/// What pipelines may publish to. The Kubernetes API is found by a kubeconfig or the pod's service account.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Publication")]
pub struct PublicationArgs {
    /// Directory below which pipelines may publish files; none are written without it
    #[arg(long = "publication-dir", env = "TUNELOOP_PUBLICATION_DIR", value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

/// How applications are told what happens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Notifications")]
pub struct NotificationArgs {
    /// Where people reach this service, for links in notices and as their source, such as `https://tuneloop.example`
    #[arg(long, env = "TUNELOOP_PUBLIC_URL", value_name = "URL", value_parser = values::base_url)]
    pub public_url: Option<String>,
}

/// What the service calls because a user named it: receivers of webhooks, and applications that pipelines publish to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Addresses that users name")]
pub struct TargetArgs {
    /// Send webhooks and publish to private and loopback addresses as well, and through the environment's proxy
    #[arg(long, env = "TUNELOOP_ALLOW_PRIVATE_TARGETS", value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_private_targets: bool,
}

/// What the pipelines `hook` and `body` are created with when the database has none. Existing pipelines keep
/// their configuration.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "New pipelines")]
pub struct SeedArgs {
    /// Examples a run needs at least; the provider refuses fewer than 10
    #[arg(
        long = "min-examples",
        env = "FINE_TUNING_MIN_EXAMPLES",
        value_name = "COUNT",
        default_value = "100",
        value_parser = values::whole(10..=u32::MAX),
    )]
    pub min_examples: u32,

    /// Engagement a post needs to become an example, in the unit of the posts table
    #[arg(
        long,
        env = "FINE_TUNING_ENGAGEMENT_THRESHOLD",
        value_name = "NUMBER",
        default_value = "0.06",
        value_parser = values::threshold,
    )]
    pub engagement_threshold: f64,

    /// Model that serves `hook` until a better one is promoted
    #[arg(long, env = "HOOK_MODEL", value_name = "MODEL", default_value = "gpt-4o", value_parser = values::model)]
    pub hook_model: String,

    /// Model that serves `body` until a better one is promoted
    #[arg(long, env = "BODY_MODEL", value_name = "MODEL", default_value = "gpt-3.5-turbo-0125", value_parser = values::model)]
    pub body_model: String,

    /// Model that is trained for `hook`; providers train dated snapshots
    #[arg(long, env = "HOOK_BASE_MODEL", value_name = "MODEL", default_value = "gpt-4o-2024-08-06", value_parser = values::model)]
    pub hook_base_model: String,

    /// Model that is trained for `body`
    #[arg(long, env = "BODY_BASE_MODEL", value_name = "MODEL", default_value = "gpt-3.5-turbo-0125", value_parser = values::model)]
    pub body_base_model: String,
}

/// How jobs are worked on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    /// Jobs worked on at once
    #[arg(
        long = "worker-slots",
        env = "TUNELOOP_WORKER_SLOTS",
        value_name = "COUNT",
        default_value = "16",
        value_parser = values::whole(1..=1024),
    )]
    pub slots: u32,

    /// How long a job belongs to a worker that is not heard of again
    #[arg(
        long = "lease-seconds",
        env = "TUNELOOP_LEASE_SECONDS",
        value_name = "SECONDS",
        default_value = "120",
        value_parser = values::seconds(5..=3600),
    )]
    pub lease: Duration,

    /// How often to look for due jobs when no notice of one arrives
    #[arg(
        long = "poll-interval-ms",
        env = "TUNELOOP_POLL_INTERVAL_MS",
        value_name = "MILLISECONDS",
        default_value = "1000",
        value_parser = values::milliseconds(10..=60_000),
    )]
    pub poll_interval: Duration,
}

/// What is told about the process's work.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs & traces")]
pub struct TelemetryArgs {
    /// Form of log lines on standard error: text to read, json for one object a line
    #[arg(long, env = "TUNELOOP_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which events are logged, as directives such as `info,tuneloop=debug`
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "DIRECTIVES",
        default_value = "info,sqlx=warn,tokio_cron_scheduler=warn,h2=warn,hyper_util=warn,tower_http=warn,kube_client=off",
        value_parser = values::log_filter,
    )]
    pub log_filter: String,

    /// OTLP gRPC collector that receives traces, such as `http://localhost:4317`; none are sent when not set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = values::otlp_endpoint)]
    pub otlp_endpoint: Option<Url>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal.
    #[value(help = None)]
    Text,
    /// One JSON object per line.
    #[value(help = None)]
    Json,
}

/// Everything `tuneloop serve` can be told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service")]
pub struct ServeArgs {
    /// Address and port of the API, its documentation, health and metrics
    #[arg(
        long,
        env = "TUNELOOP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        value_parser = values::listen,
    )]
    pub listen: SocketAddr,

    /// What this process does: any of api, worker and scheduler, separated by commas
    #[arg(long, env = "TUNELOOP_ROLES", value_name = "ROLES", default_value = "api,worker,scheduler")]
    pub roles: Roles,

    /// Where datasets are kept: a directory, or `s3://bucket/prefix` with the usual AWS variables
    #[arg(
        long,
        env = "DATASET_STORE_URL",
        value_name = "PLACE",
        default_value = "./data/datasets",
        value_parser = values::store_location,
    )]
    pub dataset_store: StoreLocation,

    /// Price table, a JSON file such as `{"currency": "USD", "models": {"gpt-4o-2024-08-06": {"training_per_million_tokens": 25}}}`; without it costs
    /// are unknown
    #[arg(long, env = "TUNELOOP_PRICES", value_name = "FILE")]
    pub prices: Option<PathBuf>,

    /// How long outcomes are kept, in days; results of experiments are kept for ever
    #[arg(
        long = "outcome-retention-days",
        env = "TUNELOOP_OUTCOME_RETENTION_DAYS",
        value_name = "DAYS",
        default_value_t = OUTCOME_RETENTION_DAYS,
        value_parser = values::whole(30..=36_500),
    )]
    pub outcome_retention_days: u32,

    /// How long work in hand may take to end after SIGTERM, before it is given back
    #[arg(
        long = "shutdown-grace-seconds",
        env = "TUNELOOP_SHUTDOWN_GRACE_SECONDS",
        value_name = "SECONDS",
        default_value = "25",
        value_parser = values::seconds(0..=3600),
    )]
    pub shutdown_grace: Duration,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Connections to the database held at most
    #[arg(
        long,
        env = "TUNELOOP_DATABASE_CONNECTIONS",
        value_name = "COUNT",
        default_value = "20",
        value_parser = values::whole(2..=1000),
        help_heading = "Database",
    )]
    pub database_connections: u32,

    /// The provider.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// The seed of new pipelines.
    #[command(flatten)]
    pub seed: SeedArgs,

    /// The worker.
    #[command(flatten)]
    pub worker: WorkerArgs,

    /// Publication.
    #[command(flatten)]
    pub publication: PublicationArgs,

    /// Notifications.
    #[command(flatten)]
    pub notifications: NotificationArgs,

    /// Addresses that users name.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// Tracking.
    #[command(flatten)]
    pub tracking: TrackingArgs,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl ServeArgs {
    /// What no setting shows on its own.
    ///
    /// # Errors
    ///
    /// [`ProviderFault`] when the worker has no provider to train at, or Azure is named by half.
    pub fn check(&self) -> Result<(), ProviderFault> {
        let provider = &self.provider;
        let azure = match (&provider.azure_openai_endpoint, &provider.azure_openai_api_key) {
            (Some(_), None) => return Err(ProviderFault::AzureWithoutKey),
            (None, Some(_)) => return Err(ProviderFault::AzureWithoutEndpoint),
            (endpoint, _) => endpoint.is_some(),
        };
        let asks_for_key = self.roles.worker && !azure && provider.openai_base_url == OPENAI_BASE_URL;
        if asks_for_key && provider.openai_api_key.is_none() {
            return Err(ProviderFault::MissingKey);
        }
        Ok(())
    }
}

/// What is missing to reach a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderFault {
    /// The worker has no key for any provider.
    #[error(
        "OPENAI_API_KEY is not set: give the key the worker trains with, name another service in OPENAI_BASE_URL, \
         give AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY, or leave worker out of TUNELOOP_ROLES."
    )]
    MissingKey,
    /// Azure's address without its key.
    #[error("AZURE_OPENAI_ENDPOINT is set without AZURE_OPENAI_API_KEY: give the key of the resource too.")]
    AzureWithoutKey,
    /// Azure's key without its address.
    #[error(
        "AZURE_OPENAI_API_KEY is set without AZURE_OPENAI_ENDPOINT: give the address of the resource too."
    )]
    AzureWithoutEndpoint,
}
