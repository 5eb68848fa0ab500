//! `tuneloop simulate`: a provider that speaks OpenAI's protocol, for trying things out.

use std::net::SocketAddr;

use clap::Args;

use super::{Failure, listen, shutdown_signal};
use crate::clock::Clock;
use crate::config::{self, TelemetryArgs};
use crate::simulator::{Settings, Simulator};
use crate::telemetry;

/// Run a simulated provider that speaks OpenAI's protocol
///
/// It trains nothing and keeps its state in memory. Let `OPENAI_BASE_URL` point to it, with `/v1` at the end.
#[derive(Args, Debug)]
#[command(next_help_heading = "Simulator")]
pub(super) struct Simulate {
    /// Address and port of the simulated provider
    #[arg(
        long,
        env = "TUNELOOP_SIMULATOR_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8090",
        value_parser = config::listen,
    )]
    listen: SocketAddr,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Simulate {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let stop = shutdown_signal()?;
        let telemetry = telemetry::init(&self.telemetry)?;
        let outcome = simulate(self.listen, self.settings, stop.cancelled_owned()).await;
        telemetry.shutdown().await;
        outcome
    }
}

async fn simulate(
    address: SocketAddr,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let listener = listen::listen(address).await?;
    tracing::info!(address = %listener.local_addr()?, "the simulated provider answers");
    Simulator::new(settings, Clock::system()).serve(listener, stop).await?;
    Ok(())
}
