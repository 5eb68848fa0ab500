//! The parts of the API's answers that the demo reads.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::dataset::Counts;
use crate::experiments::decision::Verdict;
use crate::experiments::statistics::Estimate;
use crate::models::Version;
use crate::runs::{RunStatus, Step};

/// `GET /v1/pipelines/{pipeline}`.
#[derive(Debug, Deserialize)]
pub(super) struct PipelineAnswer {
    pub(super) live: Live,
}

/// The version that serves.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Live {
    pub(super) version: Version,
    pub(super) model_id: String,
}

/// `GET /v1/runs/{id}`.
#[derive(Debug, Deserialize)]
pub(super) struct RunAnswer {
    pub(super) id: Uuid,
    pub(super) status: RunStatus,
    pub(super) step: Step,
    pub(super) reason: Option<String>,
    pub(super) dataset: Option<DatasetPart>,
    pub(super) training: Option<TrainingPart>,
    pub(super) decision: Option<DecisionPart>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DatasetPart {
    pub(super) bytes: u64,
    pub(super) counts: Counts,
}

#[derive(Debug, Deserialize)]
pub(super) struct TrainingPart {
    pub(super) job_id: Option<String>,
    pub(super) base_model: String,
    pub(super) trained_tokens: Option<i64>,
    pub(super) final_loss: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DecisionPart {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
    pub(super) estimate: Option<Estimate>,
}

impl RunAnswer {
    /// Whether nothing more happens without a person.
    pub(super) fn settled(&self) -> bool {
        self.status.finished() || self.status == RunStatus::WaitingApproval
    }

    /// Where harm was found, if it was.
    pub(super) fn harm(&self) -> Option<Harm> {
        let verdict = self.decision.as_ref().map(|decision| decision.verdict);
        match (verdict, self.status) {
            (Some(Verdict::StopForHarm), _) => Some(Harm::Test),
            (_, RunStatus::RolledBack) => Some(Harm::Watch),
            _ => None,
        }
    }

    /// Whether a decision was taken and, where it promoted, its watch has ended.
    pub(super) fn reached_verdict(&self) -> bool {
        match self.decision.as_ref().map(|decision| decision.verdict) {
            None | Some(Verdict::Collecting) => false,
            Some(Verdict::Promote) => matches!(self.status, RunStatus::Succeeded | RunStatus::RolledBack),
            Some(_) => self.settled(),
        }
    }
}

/// Where the candidate's harm was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    Test,
    Watch,
}

/// `GET /v1/runs/{id}/events`.
#[derive(Debug, Deserialize)]
pub(super) struct EventsAnswer {
    pub(super) items: Vec<Event>,
}

/// One event of a run's history.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) id: i64,
    pub(super) step: Step,
    pub(super) kind: String,
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Value,
}

impl Event {
    /// Whether it tells that the candidate does harm.
    pub(super) fn tells_harm(&self) -> bool {
        self.data["verdict"] == "stop_for_harm" || self.data["look"]["harmed"] == true
    }
}

/// `GET /v1/pipelines/{pipeline}/assignment`.
#[derive(Debug, Deserialize)]
pub(super) struct AssignmentAnswer {
    pub(super) version: Version,
    pub(super) experiment_id: Option<Uuid>,
    pub(super) revision: i64,
}

/// `POST /v1/outcomes`.
#[derive(Debug, Deserialize)]
pub(super) struct OutcomesAnswer {
    pub(super) accepted: u64,
    pub(super) rejected: Vec<RejectedOutcome>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RejectedOutcome {
    pub(super) reason: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(status: &str, verdict: Option<&str>) -> RunAnswer {
        let decision = verdict.map(|verdict| json!({"verdict": verdict, "reason": "so"}));
        serde_json::from_value(json!({
            "id": Uuid::nil(), "status": status, "step": "watch", "reason": null, "dataset": null,
            "training": null, "experiment_id": null, "decision": decision, "place": "proving",
        }))
        .unwrap()
    }

    #[test]
    fn a_promotion_is_a_verdict_once_its_watch_has_ended_and_others_are_at_once() {
        assert!(!run("running", None).reached_verdict());
        assert!(!run("skipped", None).reached_verdict());
        assert!(!run("running", Some("promote")).reached_verdict());
        assert!(!run("cancelled", Some("promote")).reached_verdict());
        assert!(run("succeeded", Some("promote")).reached_verdict());
        assert!(run("rolled_back", Some("promote")).reached_verdict());
        assert!(run("rejected", Some("reject")).reached_verdict());
        assert!(run("waiting_approval", Some("inconclusive")).reached_verdict());
        assert!(run("failed", Some("invalid")).reached_verdict());
    }

    #[test]
    fn harm_is_found_by_the_test_or_by_the_watch_and_a_rejection_alone_is_none() {
        assert_eq!(run("rejected", Some("stop_for_harm")).harm(), Some(Harm::Test));
        assert_eq!(run("rolled_back", Some("promote")).harm(), Some(Harm::Watch));
        assert_eq!(run("rejected", Some("reject")).harm(), None);
        assert_eq!(run("succeeded", Some("promote")).harm(), None);
    }
}
