//! A plan of faults: how calls fail on their way, and how jobs behave.
//!
//! Whatever is answered, nothing is forgotten: what was carried out stays.

mod api;
mod dealing;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::job::JobError;

pub(super) use api::{clear, counts, read, replace};
pub(super) use dealing::{Dealer, deal};

/// The longest time in a plan: an hour, in seconds.
const LONGEST: f64 = 3600.0;

/// What goes wrong, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultPlan {
    /// Decides which calls are met; the same plan meets the same calls in the same order.
    pub seed: u64,
    /// How likely each fault is for a call.
    pub rates: FaultRates,
    /// The calls that the rates are for; all where there are none.
    pub routes: Vec<Route>,
    /// Rates of a kind of call, in place of `rates`.
    pub route_rates: BTreeMap<Route, FaultRates>,
    /// Faults of the next calls, before any rate.
    pub scripts: Vec<Script>,
    /// How late an answer is that is late.
    pub late_seconds: f64,
    /// What a refusal for too many requests asks to wait.
    pub retry_after_seconds: f64,
    /// How jobs behave.
    pub jobs: JobFaults,
    /// Models that end, by their ids.
    pub models: BTreeMap<String, ModelFaults>,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            seed: 0,
            rates: FaultRates::default(),
            routes: Vec::new(),
            route_rates: BTreeMap::new(),
            scripts: Vec::new(),
            late_seconds: 2.0,
            retry_after_seconds: 1.0,
            jobs: JobFaults::default(),
            models: BTreeMap::new(),
        }
    }
}

/// How likely each fault is for a call, from 0 to 1; together not above 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultRates {
    /// See [`Fault::DroppedBefore`].
    pub dropped_before: f64,
    /// See [`Fault::DroppedAfter`].
    pub dropped_after: f64,
    /// See [`Fault::Late`].
    pub late: f64,
    /// See [`Fault::Conflict`].
    pub conflict: f64,
    /// See [`Fault::RateLimited`].
    pub rate_limited: f64,
    /// See [`Fault::ServerError`].
    pub server_error: f64,
    /// See [`Fault::ServerErrorAfter`].
    pub server_error_after: f64,
    /// See [`Fault::Unavailable`].
    pub unavailable: f64,
    /// See [`Fault::Malformed`].
    pub malformed: f64,
    /// See [`Fault::Truncated`].
    pub truncated: f64,
}

impl FaultRates {
    fn each(&self) -> [(Fault, f64); 10] {
        [
            (Fault::DroppedBefore, self.dropped_before),
            (Fault::DroppedAfter, self.dropped_after),
            (Fault::Late, self.late),
            (Fault::Conflict, self.conflict),
            (Fault::RateLimited, self.rate_limited),
            (Fault::ServerError, self.server_error),
            (Fault::ServerErrorAfter, self.server_error_after),
            (Fault::Unavailable, self.unavailable),
            (Fault::Malformed, self.malformed),
            (Fault::Truncated, self.truncated),
        ]
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It does not: in a script, for a call that goes well.
    None,
    /// The connection ends and nothing is carried out.
    DroppedBefore,
    /// It is carried out and the connection ends without an answer.
    DroppedAfter,
    /// It is carried out and the answer comes late.
    Late,
    /// 409; nothing is carried out.
    Conflict,
    /// 429 with `Retry-After` in one of its forms; nothing is carried out.
    RateLimited,
    /// 500; nothing is carried out.
    ServerError,
    /// It is carried out, and the answer is 500 all the same.
    ServerErrorAfter,
    /// 503; nothing is carried out.
    Unavailable,
    /// It is carried out, and the answer is no JSON.
    Malformed,
    /// It is carried out, and the answer ends in its midst.
    Truncated,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A file is uploaded.
    Upload,
    /// A job is created.
    Create,
    /// A job is cancelled.
    Cancel,
    /// A job is paused or resumed.
    Pause,
    /// Something is deleted.
    Delete,
    /// A model is asked.
    Complete,
    /// A job's events or checkpoints are read.
    Report,
    /// Anything else is read.
    Read,
}

/// Faults of the next calls of a kind, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The kind.
    pub route: Route,
    /// One for each call.
    pub faults: VecDeque<Fault>,
}

/// How jobs behave that are created from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobFaults {
    /// A job takes so many times as long.
    pub slowness: f64,
    /// How likely a job with valid files fails.
    pub failure_rate: f64,
    /// The error that it fails with, such as `moderation_blocked`; a server's error where absent.
    pub failure: Option<JobError>,
    /// Whether a running job also shows `pausing`, `paused` and `resuming`.
    pub unusual_statuses: bool,
    /// Whether events have no numbers and checkpoints no losses.
    pub without_metrics: bool,
    /// For how long lists do not tell of a new job or file.
    pub hidden_seconds: f64,
    /// Whether the account may train; if not, creating a job is refused with `training_not_available`.
    pub training_available: bool,
}

impl Default for JobFaults {
    fn default() -> Self {
        Self {
            slowness: 1.0,
            failure_rate: 0.0,
            failure: None,
            unusual_statuses: false,
            without_metrics: false,
            hidden_seconds: 0.0,
            training_available: true,
        }
    }
}

/// How a model ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelFaults {
    /// Whether it is there no more: it is not found, neither to be described nor to be asked nor to be trained.
    pub gone: bool,
    /// The day on which it is said to shut down. Nothing happens then.
    pub shutdown_date: Option<NaiveDate>,
}

impl FaultPlan {
    /// What the plan says of a model.
    pub(super) fn model(&self, id: &str) -> ModelFaults {
        self.models.get(id).copied().unwrap_or_default()
    }

    /// Reads a plan from JSON and checks it as a whole. The error names the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let plan: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| format!("the fault plan: {}: {}", error.path(), error.inner()))?;
        reader.end().map_err(|error| format!("the fault plan: {error}"))?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        let within = |field: &str, value: f64, least: f64, most: f64| {
            let good = (least..=most).contains(&value);
            good.then_some(()).ok_or_else(|| format!("{field} must be a number from {least} to {most}"))
        };
        let of_routes = self.route_rates.iter();
        let of_routes = of_routes.map(|(route, rates)| (format!("route_rates.{}", route.name()), rates));
        for (field, rates) in of_routes.chain([("rates".to_owned(), &self.rates)]) {
            let mut sum = 0.0;
            for (fault, rate) in rates.each() {
                within(&format!("{field}.{}", fault.name()), rate, 0.0, 1.0)?;
                sum += rate;
            }
            within(&format!("the sum of the {field}"), sum, 0.0, 1.0 + 1e-9)?;
        }
        within("late_seconds", self.late_seconds, 0.0, LONGEST)?;
        within("retry_after_seconds", self.retry_after_seconds, 0.0, LONGEST)?;
        within("jobs.slowness", self.jobs.slowness, 0.0, 1e6)?;
        within("jobs.failure_rate", self.jobs.failure_rate, 0.0, 1.0)?;
        within("jobs.hidden_seconds", self.jobs.hidden_seconds, 0.0, LONGEST)
    }

    fn late(&self) -> Duration {
        Duration::try_from_secs_f64(self.late_seconds).unwrap_or_default()
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::DroppedBefore => "dropped_before",
            Self::DroppedAfter => "dropped_after",
            Self::Late => "late",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::ServerErrorAfter => "server_error_after",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
        }
    }
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Create => "create",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Delete => "delete",
            Self::Complete => "complete",
            Self::Report => "report",
            Self::Read => "read",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_plan_is_one_without_faults() {
        assert_eq!(FaultPlan::parse("{}").unwrap(), FaultPlan::default());
    }

    #[test]
    fn a_bad_plan_names_the_field() {
        for (plan, field) in [
            (r#"{"rates": {"late": 1.5}}"#, "rates.late"),
            (r#"{"rates": {"late": 0.6, "malformed": 0.6}}"#, "sum of the rates"),
            (r#"{"rates": {"slow": 0.1}}"#, "slow"),
            (r#"{"late_seconds": -1}"#, "late_seconds"),
            (r#"{"jobs": {"slowness": "very"}}"#, "jobs.slowness"),
            (r#"{"route_rates": {"report": {"late": "often"}}}"#, ".late: invalid type"),
            (r#"{"route_rates": {"cancel": {"conflict": 2}}}"#, "route_rates.cancel.conflict"),
            (r#"{"scripts": [{"route": "read", "faults": ["none", 7]}]}"#, "scripts[0].faults[1]"),
            ("{} {}", "trailing"),
            (r#"{"jobs": {"failure_rate": 2}}"#, "jobs.failure_rate"),
            (r#"{"models": {"gpt-4o": {"shutdown_date": "soon"}}}"#, "models.gpt-4o.shutdown_date"),
            (r#"{"scripts": [{"route": "teleport", "faults": []}]}"#, "teleport"),
        ] {
            let error = FaultPlan::parse(plan).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
