//! Simulated traffic: units are assigned and served by the API, and what was observed of them is sent back.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::service::TestService;

/// Mean engagement of the two arms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engagement {
    pub(crate) baseline: f64,
    pub(crate) candidate: f64,
}

/// A candidate that is better by a third: far beyond the noise of [`TestService::traffic`].
pub(crate) const BETTER: Engagement = Engagement { baseline: 0.06, candidate: 0.08 };
/// One that is worse by as much.
pub(crate) const WORSE: Engagement = Engagement { baseline: 0.08, candidate: 0.06 };

impl TestService {
    /// Which version serves a unit, once the service has heard of what was changed before this call.
    pub(crate) async fn assignment(&self, pipeline: &str, unit: &str) -> Value {
        let changed = "SELECT traffic_revision FROM pipelines WHERE name = $1";
        let changed: Option<i64> =
            sqlx::query_scalar(changed).bind(pipeline).fetch_optional(&self.db).await.expect("reads it");
        let heard = async {
            loop {
                let answer = self.get(&format!("/v1/pipelines/{pipeline}/assignment?unit={unit}")).await;
                if answer.status == 200 && answer.body["revision"].as_i64() >= changed {
                    return answer.body;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), heard).await.expect("the service hears of changes")
    }

    /// Serves each unit twice and records what was observed: the arm's engagement, with a tenth of it as noise
    /// from persona to persona and as much from outcome to outcome. Returns the assignments.
    pub(crate) async fn traffic(
        &self,
        pipeline: &str,
        units: Range<u32>,
        engagement: Engagement,
    ) -> Vec<Value> {
        let mut noise = StdRng::seed_from_u64(u64::from(units.start));
        let mut assignments = Vec::new();
        let mut outcomes = Vec::new();
        for unit in units {
            let unit = format!("persona-{unit}");
            let assigned = self.assignment(pipeline, &unit).await;
            let mean = match assigned["arm"].as_str() {
                Some("candidate") => engagement.candidate,
                _ => engagement.baseline,
            };
            let persona = noise.random_range(0.9..1.1);
            for post in 0..2 {
                let rate = mean * persona * noise.random_range(0.9..1.1);
                let id = format!("{unit}-{post}-{}", assigned["revision"]);
                outcomes.push(self.outcome(pipeline, &id, &unit, &assigned, rate));
            }
            assignments.push(assigned);
        }
        self.record(outcomes).await;
        assignments
    }

    /// One outcome of a unit that was assigned.
    pub(crate) fn outcome(
        &self,
        pipeline: &str,
        id: &str,
        unit: &str,
        assigned: &Value,
        engagement_rate: f64,
    ) -> Value {
        json!({
            "id": id, "pipeline": pipeline, "unit": unit, "persona": unit,
            "version": assigned["version"], "revision": assigned["revision"],
            "served_at": self.clock.now(), "engagement_rate": engagement_rate,
        })
    }

    /// Sends outcomes, all of which must be accepted.
    pub(crate) async fn record(&self, outcomes: Vec<Value>) {
        let sent = outcomes.len();
        let recorded = self.post("/v1/outcomes", Value::Array(outcomes)).await.expect(200);
        assert_eq!(recorded["accepted"], sent, "{recorded}");
        assert_eq!((&recorded["duplicates"], &recorded["rejected"]), (&json!(0), &json!([])), "{recorded}");
    }
}
