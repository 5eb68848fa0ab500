//! What can be set.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use super::faults::FaultPlan;
use crate::standard_webhooks::WebhookSecret;

/// The longest training time, so that the end of a job is always a date.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// How the simulator behaves.
#[derive(Clone, PartialEq, clap::Args)]
pub struct Settings {
    /// Seconds that are added to each answer
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub latency: Duration,

    /// Seconds that a fine-tuning job takes from its creation to its end
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub training_time: Duration,

    /// The one API key that is accepted; without it any key is, and none
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Address that is told of jobs that end, such as `http://127.0.0.1:8080/v1/webhooks/openai`
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    pub webhook_url: Option<Url>,

    /// Secret that those notices are signed with, `whsec_` and base64
    #[arg(
        long, env = "OPENAI_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = webhook_secret,
    )]
    pub webhook_secret: Option<WebhookSecret>,

    /// File with a plan of faults, JSON; without it everything goes well. `/simulator/faults` shows and changes it
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true, value_parser = fault_plan)]
    pub faults: FaultPlan,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            training_time: Duration::from_secs(3),
            api_key: None,
            webhook_url: None,
            webhook_secret: None,
            faults: FaultPlan::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("latency", &self.latency)
            .field("faults", &self.faults)
            .field("training_time", &self.training_time)
            .field("webhook_url", &self.webhook_url.as_ref().map(|_| "set"))
            .field("webhook_secret", &self.webhook_secret)
            .field("api_key", &self.api_key.as_ref().map(|_| "set"))
            .finish()
    }
}

fn webhook_secret(text: &str) -> Result<WebhookSecret, String> {
    WebhookSecret::new(text).map_err(|form| form.to_string())
}

fn fault_plan(file: &str) -> Result<FaultPlan, String> {
    if file.is_empty() {
        return Ok(FaultPlan::default());
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("a file that can be read ({error})"))?;
    FaultPlan::parse(&text)
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "a number of seconds from 0 to a year, such as 0.25".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        Command::try_parse_from([&["simulate"], arguments].concat()).map(|command| command.settings)
    }

    #[test]
    fn no_arguments_give_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), Settings::default());
    }

    #[test]
    fn durations_are_seconds() {
        let settings = parse(&["--latency", "0.25", "--training-time", "60"]).unwrap();
        assert_eq!(
            (settings.latency, settings.training_time),
            (Duration::from_millis(250), Duration::from_mins(1))
        );
        for wrong in ["-1", "soon", "1e300", "nan"] {
            let error = parse(&[&format!("--latency={wrong}")]).err().map(|error| error.to_string());
            assert!(error.unwrap_or_default().contains("such as 0.25"), "{wrong}");
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let settings = Settings { api_key: Some("sk-unseen".into()), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("unseen"));
    }
}
