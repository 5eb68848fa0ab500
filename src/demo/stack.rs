//! What runs inside the demo's process: the provider's simulator and the service, on a private database.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{DemoError, plan};
use crate::clock::Clock;
use crate::config::{OUTCOME_RETENTION_DAYS, Roles};
use crate::dataset::{DatasetStore, Sources};
use crate::jobs::WorkerSettings;
use crate::notifications::NotificationSettings;
use crate::outbound::TargetRules;
use crate::publication::Reach;
use crate::service::Service;
use crate::simulator::{Settings, Simulator};
use crate::telemetry::metrics::Metrics;
use crate::trainers::{ApiKey, OpenAiSettings, OpenAiTrainer, Trainers};

/// How long requests and jobs in hand may take once the demo ends.
const GRACE: Duration = Duration::from_secs(5);

/// The simulator and the service, until [`Stack::stop`].
pub(super) struct Stack {
    parts: JoinSet<Result<(), DemoError>>,
    halt: CancellationToken,
    /// Where the simulated provider answers, with `/v1` at the end.
    pub(super) provider: String,
}

impl Stack {
    /// Starts both; the service answers on `listener`.
    pub(super) async fn start(
        db: PgPool,
        clock: Clock,
        datasets: &Path,
        listener: TcpListener,
    ) -> Result<Self, DemoError> {
        let (mut parts, halt) = (JoinSet::new(), CancellationToken::new());

        let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DemoError::Provider)?;
        let provider = format!("http://{}/v1", loopback.local_addr().map_err(DemoError::Provider)?);
        let settings = Settings { training_time: plan::TRAINING_TIME, ..Settings::default() };
        let simulator = Simulator::new(settings, clock.clone());
        let stop = halt.clone().cancelled_owned();
        parts.spawn(async move { simulator.serve(loopback, stop).await.map_err(DemoError::Provider) });

        // The simulator takes any key.
        let openai = OpenAiSettings::new(provider.clone(), ApiKey::new("simulated"));
        let service = Service {
            sources: Sources::new(db.clone()),
            db,
            metrics: Metrics::new()?,
            datasets: DatasetStore::local(datasets)?,
            trainers: Trainers::new().with_openai(OpenAiTrainer::new(&openai, &clock)?),
            prices: plan::prices()?,
            outcome_retention: TimeDelta::days(OUTCOME_RETENTION_DAYS.into()),
            webhook_secret: None,
            reach: Reach::default(),
            target_rules: TargetRules::default(),
            notifications: NotificationSettings::default(),
            mlflow: None,
            roles: Roles { api: true, worker: true, scheduler: true },
            worker: WorkerSettings {
                slots: 4,
                lease: Duration::from_mins(2),
                poll_interval: Duration::from_millis(200),
                grace: GRACE,
            },
            clock,
        };
        let stop = halt.clone();
        parts.spawn(async move { Ok(service.run(listener, stop).await?) });
        Ok(Self { parts, halt, provider })
    }

    /// Waits until a part ends by itself, which it should not, and returns why.
    pub(super) async fn ended(&mut self) -> DemoError {
        match self.parts.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(panicked)) => DemoError::Panicked(panicked),
            Some(Ok(Ok(()))) | None => DemoError::Ended,
        }
    }

    /// Lets requests and jobs in hand finish.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        self.halt.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.parts.join_next().await {
            outcome = outcome.and(ended.map_err(DemoError::Panicked).flatten());
        }
        outcome
    }
}

/// Listens at `wanted`, or at a free port of the same address where that port is taken.
pub(super) async fn listen(wanted: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => TcpListener::bind((wanted.ip(), 0)).await,
        outcome => outcome,
    }
}

/// How this machine reaches what listens at `address`.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_gives_way_to_a_free_one_of_the_same_address() {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().local_addr().unwrap();
        let taken = listen(first).await.unwrap();
        let other = listen(taken.local_addr().unwrap()).await.unwrap().local_addr().unwrap();
        assert_eq!(taken.local_addr().unwrap(), first);
        assert!(other.ip() == first.ip() && other.port() != first.port(), "{other}");
    }

    #[test]
    fn every_address_is_reached_on_this_machine() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reach("[::]:80"), "[::1]:80");
        assert_eq!(reach("192.0.2.1:80"), "192.0.2.1:80");
    }
}
