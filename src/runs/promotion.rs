//! What a promotion by hand is held to: safety checks, each with its result. What they judge is gathered first; the
//! judgement itself is pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{RunStatus, Step};
use crate::experiments::{self, Metric};
use crate::models::{ModelVersion, VersionStatus};
use crate::pipelines::PipelineConfig;
use crate::traffic::Revision;
use crate::trainers::{Trainer, Trainers};

/// A person waits for the answer.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(10);

/// What is checked before a version is promoted by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PromotionCheckName)]
pub enum CheckName {
    /// Its status allows it.
    Status,
    /// The provider serves its model.
    Model,
    /// Its newest test decided to promote it, against the version that is live, not too long ago.
    Decision,
    /// No run is proving another version.
    NoOtherChange,
    /// The newest look at its newest test does not say harm.
    NoHarm,
    /// The kill switch is off.
    KillSwitch,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PromotionCheckResult)]
pub enum CheckResult {
    /// Nothing speaks against the promotion.
    Passed,
    /// It stands in the way.
    Failed,
    /// It would stand in the way, and `force` overrides it.
    Skipped,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromotionCheck {
    /// What was checked.
    pub name: CheckName,
    /// How it went.
    pub result: CheckResult,
    /// Whether `force` may override it, should it fail.
    pub can_be_forced: bool,
    /// What was found, in one sentence.
    #[schema(example = "hook@1.4.0 won its test 2 hours ago.")]
    pub message: String,
}

/// What the provider says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelAnswer {
    /// It is served.
    Serves,
    /// There is no such model.
    Missing,
    /// It could not be asked, for this reason.
    Unknown(String),
}

impl ModelAnswer {
    /// Asks the provider. To be called outside of any transaction.
    pub async fn ask(trainers: &Trainers, version: &ModelVersion) -> Self {
        let asked = async { trainers.get(&version.provider)?.model_exists(&version.provider_model_id).await };
        match tokio::time::timeout(PROVIDER_PATIENCE, asked).await {
            Ok(Ok(true)) => Self::Serves,
            Ok(Ok(false)) => Self::Missing,
            Ok(Err(error)) => Self::Unknown(error.to_string()),
            Err(_) => Self::Unknown(format!("no answer came in {} s", PROVIDER_PATIENCE.as_secs())),
        }
    }
}

/// What the checks judge.
#[derive(Debug, Clone)]
pub struct Found {
    name: String,
    status: VersionStatus,
    model: ModelAnswer,
    live: Uuid,
    kill_switch: bool,
    /// A run that is proving another version: its key, and what it does.
    other: Option<(Uuid, &'static str)>,
    test: Option<NewestTest>,
    decision_max_age: TimeDelta,
}

/// The newest test of a version.
#[derive(Debug, Clone)]
struct NewestTest {
    baseline: Uuid,
    decision: Option<TestDecision>,
    /// What shows harm.
    harm: Option<String>,
}

#[derive(Debug, Clone)]
struct TestDecision {
    id: Uuid,
    verdict: String,
    age: TimeDelta,
}

impl Found {
    /// The decision that a promotion would carry out: only one that its check lets pass.
    #[must_use]
    pub fn decision_to_carry_out(&self) -> Option<Uuid> {
        self.judge_decision().ok().map(|decision| decision.id)
    }

    /// Every check with its result, in one order. With `force`, what has failed and may be overridden is skipped.
    #[must_use]
    pub fn checks(&self, force: bool) -> Vec<PromotionCheck> {
        let decision = self
            .judge_decision()
            .map(|decision| format!("{} won its test {} ago.", self.name, span(decision.age)));
        [
            (
                CheckName::Status,
                self.status != VersionStatus::Live && self.status != VersionStatus::Unavailable,
                self.judge_status(),
            ),
            (CheckName::Model, self.model != ModelAnswer::Missing, self.judge_model()),
            (CheckName::Decision, true, decision),
            (CheckName::NoOtherChange, true, self.judge_other_change()),
            (CheckName::NoHarm, true, self.judge_harm()),
            (CheckName::KillSwitch, false, self.judge_kill_switch()),
        ]
        .map(|(name, can_be_forced, found)| {
            let result = match &found {
                Ok(_) => CheckResult::Passed,
                Err(_) if force && can_be_forced => CheckResult::Skipped,
                Err(_) => CheckResult::Failed,
            };
            let message = found.unwrap_or_else(|message| message);
            PromotionCheck { name, result, can_be_forced, message }
        })
        .into()
    }

    fn judge_status(&self) -> Result<String, String> {
        let Self { name, status, .. } = self;
        match status {
            VersionStatus::Live => Err(format!("{name} is live already.")),
            VersionStatus::Unavailable => {
                Err(format!("{name} is unavailable: the provider no longer serves it."))
            }
            VersionStatus::Rejected => {
                Err(format!("{name} was rejected: it lost its test or its evaluation."))
            }
            VersionStatus::RolledBack => Err(format!("{name} was live and was rolled back.")),
            VersionStatus::Candidate
            | VersionStatus::Testing
            | VersionStatus::HoldBack
            | VersionStatus::Retired => Ok(format!("{name} is {status}.")),
        }
    }

    fn judge_model(&self) -> Result<String, String> {
        match &self.model {
            ModelAnswer::Serves => Ok("The provider serves its model.".into()),
            ModelAnswer::Missing => Err("The provider has no such model (any more).".into()),
            ModelAnswer::Unknown(why) => {
                Err(format!("The provider could not be asked for its model: {}.", why.trim_end_matches('.')))
            }
        }
    }

    fn judge_decision(&self) -> Result<&TestDecision, String> {
        let name = &self.name;
        let Some(test) = &self.test else {
            return Err(format!("{name} was never tested, so that no decision speaks for it."));
        };
        let Some(decision) = &test.decision else {
            return Err(format!("The newest test of {name} has no decision."));
        };
        if decision.verdict != "promote" {
            return Err(format!("The decision on {name} is {}, not promote.", decision.verdict));
        }
        if test.baseline != self.live {
            return Err(format!("{name} won against another version than the one that is live now."));
        }
        if decision.age > self.decision_max_age {
            return Err(format!(
                "The decision on {name} is {} old; `deployment.decision_max_age_seconds` allows {}.",
                span(decision.age),
                span(self.decision_max_age)
            ));
        }
        Ok(decision)
    }

    fn judge_other_change(&self) -> Result<String, String> {
        match self.other {
            Some((run, does)) => Err(format!("Run {run} {does} another version; it would have to give way.")),
            None => Ok("No run is proving another version.".into()),
        }
    }

    fn judge_harm(&self) -> Result<String, String> {
        match &self.test {
            Some(NewestTest { harm: Some(harm), .. }) => Err(harm.clone()),
            Some(_) => Ok("No look at its newest test has found harm.".into()),
            None => Ok("Nothing was observed of it that shows harm.".into()),
        }
    }

    fn judge_kill_switch(&self) -> Result<String, String> {
        if self.kill_switch {
            return Err(
                "The kill switch is on, and everything would go to this version; switch it off first.".into(),
            );
        }
        Ok("The kill switch is off.".into())
    }
}

/// Gathers what the checks judge. The caller holds the pipeline's lock where it is going to promote.
pub async fn gather(
    conn: &mut PgConnection,
    config: &PipelineConfig,
    version: &ModelVersion,
    in_force: &Revision,
    model: ModelAnswer,
) -> sqlx::Result<Found> {
    let other = sqlx::query!(
        r#"SELECT id, step AS "step: Step" FROM runs
            WHERE pipeline = $1 AND place = 'proving' AND model_version_id IS DISTINCT FROM $2"#,
        version.pipeline,
        version.id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let max_age = Duration::try_from_secs_f64(config.deployment.decision_max_age_seconds).ok();
    Ok(Found {
        name: version.name(),
        status: version.status,
        model,
        live: in_force.live_version_id,
        kill_switch: in_force.kill_switch,
        other: other.map(|run| (run.id, if run.step == Step::Watch { "is watching" } else { "is testing" })),
        test: newest_test(conn, version.id).await?,
        decision_max_age: max_age.and_then(|age| TimeDelta::from_std(age).ok()).unwrap_or(TimeDelta::MAX),
    })
}

async fn newest_test(conn: &mut PgConnection, version: Uuid) -> sqlx::Result<Option<NewestTest>> {
    let row = sqlx::query!(
        r#"SELECT e.id, e.baseline_id, d.id AS "decision_id?", d.verdict AS "verdict?", d.created_at AS "decided_at?",
                  clock_timestamp() AS "now!", r.status AS "run_status: RunStatus", r.reason_code
             FROM experiments e JOIN runs r ON r.id = e.run_id LEFT JOIN decisions d ON d.experiment_id = e.id
            WHERE e.candidate_id = $1 ORDER BY e.started_at DESC LIMIT 1"#,
        version,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let age = |decided_at: DateTime<Utc>| row.now - decided_at;
    let decision = match (row.decision_id, row.verdict, row.decided_at) {
        (Some(id), Some(verdict), Some(decided_at)) => {
            Some(TestDecision { id, verdict, age: age(decided_at) })
        }
        _ => None,
    };
    // An e-value beyond all numbers is in no look that is kept; the verdict tells of it.
    let stopped = decision.as_ref().is_some_and(|decision| decision.verdict == "stop_for_harm");
    let taken_back = row.run_status == RunStatus::RolledBack && row.reason_code.as_deref() == Some("harm");
    let harm = if stopped {
        Some("Its newest test was stopped for harm.".to_owned())
    } else if taken_back {
        Some("It did harm in its watch and was taken back.".to_owned())
    } else {
        let look = experiments::newest_look(conn, row.id).await?;
        look.and_then(|look| look.harmed()).map(harm_in)
    };
    Ok(Some(NewestTest { baseline: row.baseline_id, decision, harm }))
}

fn harm_in(metric: Metric) -> String {
    let word = serde_json::to_value(metric).ok().and_then(|word| word.as_str().map(str::to_owned));
    format!("The newest look at its test shows harm to {}.", word.as_deref().unwrap_or("a metric"))
}

/// A duration in the largest unit of which it has two.
fn span(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Found {
        let live = Uuid::from_u128(1);
        let decision =
            TestDecision { id: Uuid::from_u128(2), verdict: "promote".into(), age: TimeDelta::hours(2) };
        Found {
            name: "hook@1.4.0".into(),
            status: VersionStatus::Candidate,
            model: ModelAnswer::Serves,
            live,
            kill_switch: false,
            other: None,
            test: Some(NewestTest { baseline: live, decision: Some(decision), harm: None }),
            decision_max_age: TimeDelta::days(7),
        }
    }

    /// Names of the checks with this result.
    fn with(found: &Found, force: bool, result: CheckResult) -> Vec<CheckName> {
        found
            .checks(force)
            .into_iter()
            .filter(|check| check.result == result)
            .map(|check| check.name)
            .collect()
    }

    fn with_test(change: impl FnOnce(&mut NewestTest)) -> Found {
        let mut found = clean();
        change(found.test.as_mut().unwrap());
        found
    }

    fn with_decision(change: impl FnOnce(&mut TestDecision)) -> Found {
        with_test(|test| change(test.decision.as_mut().unwrap()))
    }

    #[test]
    fn a_fresh_winner_passes_all_and_names_its_decision() {
        let found = clean();
        assert_eq!(with(&found, false, CheckResult::Passed).len(), 6);
        assert_eq!(found.decision_to_carry_out(), Some(Uuid::from_u128(2)));
        let messages: Vec<_> = found.checks(false).into_iter().map(|check| check.message).collect();
        assert_eq!(messages[2], "hook@1.4.0 won its test 2 hours ago.");
    }

    #[test]
    fn each_fault_fails_its_check_and_force_skips_it_alone() {
        use CheckName::{Decision, Model, NoHarm, NoOtherChange, Status};
        let cases = [
            (Found { status: VersionStatus::Rejected, ..clean() }, Status, "was rejected"),
            (Found { status: VersionStatus::RolledBack, ..clean() }, Status, "was rolled back"),
            (
                Found { model: ModelAnswer::Unknown("no connection.".into()), ..clean() },
                Model,
                "asked for its model: no connection.",
            ),
            (Found { test: None, ..clean() }, Decision, "never tested"),
            (with_test(|test| test.decision = None), Decision, "no decision"),
            (
                with_decision(|decision| decision.verdict = "inconclusive".into()),
                Decision,
                "is inconclusive, not promote",
            ),
            (with_decision(|decision| decision.age = TimeDelta::days(8)), Decision, "is 8 days old"),
            (with_test(|test| test.baseline = Uuid::from_u128(9)), Decision, "another version than the one"),
            (
                Found { other: Some((Uuid::nil(), "is testing")), ..clean() },
                NoOtherChange,
                "is testing another version",
            ),
            (with_test(|test| test.harm = Some("It did harm.".into())), NoHarm, "did harm"),
        ];
        for (found, name, words) in cases {
            assert_eq!(with(&found, false, CheckResult::Failed), [name], "{words}");
            assert_eq!(with(&found, true, CheckResult::Skipped), [name], "{words}");
            assert_eq!(with(&found, true, CheckResult::Failed), []);
            let check = found.checks(false).into_iter().find(|check| check.name == name).unwrap();
            assert!(check.message.contains(words), "{}", check.message);
            assert_eq!(found.decision_to_carry_out().is_none(), name == Decision, "{words}");
        }
    }

    #[test]
    fn no_force_overrides_what_would_not_serve_or_is_held_still() {
        let cases = [
            (Found { status: VersionStatus::Live, ..clean() }, CheckName::Status),
            (Found { status: VersionStatus::Unavailable, ..clean() }, CheckName::Status),
            (Found { model: ModelAnswer::Missing, ..clean() }, CheckName::Model),
            (Found { kill_switch: true, ..clean() }, CheckName::KillSwitch),
        ];
        for (found, name) in cases {
            assert_eq!(with(&found, true, CheckResult::Failed), [name]);
            let check = found.checks(true).into_iter().find(|check| check.name == name).unwrap();
            assert!(!check.can_be_forced);
        }
    }

    #[test]
    fn spans_are_told_in_the_largest_unit_of_which_there_are_two() {
        let told = [-5, 0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|s| span(TimeDelta::seconds(s)));
        let expected = [
            "0 seconds",
            "0 seconds",
            "119 seconds",
            "2 minutes",
            "119 minutes",
            "2 hours",
            "47 hours",
            "2 days",
        ];
        assert_eq!(told, expected);
    }
}
