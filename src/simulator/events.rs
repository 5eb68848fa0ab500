//! What a job reports while it trains: events and checkpoints, both derived from its timeline.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::ids;
use super::job::Job;
use super::timeline::{BROKEN, DONE, JobStatus, STARTED, VALIDATED};

/// About so many steps of a job are reported.
const REPORTED_STEPS: u64 = 100;
/// The share of the work at which the last step is done; what is left goes to wrapping up.
const TRAINED: f64 = 0.98;

/// `FineTuningJobEvent` in the specification.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event {
    object: &'static str,
    pub(super) id: String,
    created_at: i64,
    level: &'static str,
    pub(super) message: String,
    r#type: &'static str,
    data: Value,
}

/// `FineTuningJobCheckpoint` in the specification.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Checkpoint {
    object: &'static str,
    pub(super) id: String,
    created_at: i64,
    #[serde(rename = "fine_tuned_model_checkpoint")]
    pub(super) model: String,
    step_number: u64,
    metrics: Value,
    fine_tuning_job_id: String,
}

/// Collects what happened up to a moment.
struct Log<'a> {
    job: &'a Job,
    now: DateTime<Utc>,
    events: Vec<(DateTime<Utc>, Event)>,
}

impl Log<'_> {
    /// Adds an event that happened `at` a moment, unless that is still to come or was cut off by the job's
    /// cancellation. `key` tells apart the events of a job.
    fn add(
        &mut self,
        at: Option<DateTime<Utc>>,
        key: &str,
        level: &'static str,
        message: String,
        data: Value,
    ) {
        let limit = self.job.timeline.cancelled_at().map_or(self.now, |cancelled| cancelled.min(self.now));
        let Some(at) = at.filter(|at| *at <= limit) else { return };
        let kind = if data.as_object().is_some_and(|data| data.contains_key("step")) {
            "metrics"
        } else {
            "message"
        };
        let event = Event {
            object: "fine_tuning.job.event",
            id: ids::derived("ftevent-", &[&self.job.id, key]),
            created_at: at.timestamp(),
            level,
            message,
            r#type: kind,
            data,
        };
        self.events.push((at, event));
    }

    fn say(&mut self, at: Option<DateTime<Utc>>, key: &str, message: impl Into<String>) {
        self.add(at, key, "info", message.into(), json!({}));
    }

    fn files(&mut self) {
        let (job, timeline) = (self.job, &self.job.timeline);
        let created = Some(timeline.created_at());
        self.say(created, "created", format!("Created fine-tuning job: {}", job.id));
        let files = match &job.validation_file {
            Some(file) => format!("{} and validation file: {file}", job.training_file),
            None => job.training_file.clone(),
        };
        self.say(created, "validating", format!("Validating training file: {files}"));
        if job.plan.is_some() {
            self.say(timeline.reaches(VALIDATED), "validated", "Files validated, moving job to queued state");
            self.say(timeline.reaches(STARTED), "started", "Fine-tuning job started");
        }
    }

    fn steps(&mut self) {
        let Some(curve) = self.job.curve() else { return };
        let broken = self.job.failure.is_some();
        let every = curve.steps.div_ceil(REPORTED_STEPS);
        let reported = (1..=curve.steps).filter(|step| {
            *step == 1 || *step == curve.steps || step % every == 0 || curve.ends_epoch(*step)
        });
        for step in reported {
            let share = STARTED + (TRAINED - STARTED) * step as f64 / curve.steps as f64;
            if broken && share >= BROKEN {
                break;
            }
            let metrics = curve.at(step);
            let validation =
                metrics.valid_loss.map(|loss| format!(", validation loss={loss:.2}")).unwrap_or_default();
            let message =
                format!("Step {step}/{}: training loss={:.2}{validation}", curve.steps, metrics.train_loss);
            let mut data = if self.job.without_metrics { json!({}) } else { json!(metrics) };
            data["total_steps"] = json!(curve.steps);
            self.add(self.job.timeline.reaches(share), &format!("step {step}"), "info", message, data);
        }
    }

    fn end(&mut self) {
        let timeline = &self.job.timeline;
        for (index, pause) in timeline.pauses().iter().enumerate() {
            self.say(Some(pause.start), &format!("paused {index}"), "Fine-tuning job paused");
            self.say(pause.end, &format!("resumed {index}"), "Fine-tuning job resumed");
        }
        match timeline.status(self.now) {
            JobStatus::Succeeded => {
                let message = format!("New fine-tuned model created: {}", self.job.tuned_model);
                self.say(timeline.reaches(DONE), "model", message);
                self.say(timeline.reaches(DONE), "succeeded", "The job has successfully completed");
            }
            JobStatus::Failed => {
                let message = self.job.error(self.now).map(|error| error.message.clone()).unwrap_or_default();
                self.add(timeline.ended_at(self.now), "failed", "error", message, json!({}));
            }
            JobStatus::Cancelled => {
                let at = timeline.cancelled_at();
                self.add(at, "cancelled", "warn", "The job was cancelled on request".into(), json!({}));
            }
            JobStatus::ValidatingFiles | JobStatus::Queued | JobStatus::Running => {}
        }
    }
}

/// The events of a job up to `now`, newest first.
pub(super) fn events(job: &Job, now: DateTime<Utc>) -> Vec<Event> {
    let mut log = Log { job, now, events: Vec::new() };
    log.files();
    log.steps();
    log.end();
    // Stable: what happens in one moment stays in the order above.
    log.events.sort_by_key(|(at, _)| *at);
    log.events.into_iter().rev().map(|(_, event)| event).collect()
}

/// One checkpoint per epoch of a job that succeeded, newest first.
pub(super) fn checkpoints(job: &Job, now: DateTime<Utc>) -> Vec<Checkpoint> {
    let Some((curve, plan)) = job.curve().zip(job.plan).filter(|_| job.status(now) == JobStatus::Succeeded)
    else {
        return Vec::new();
    };
    let checkpoint = |epoch: u64| {
        let step = epoch * plan.resolved.steps_per_epoch;
        let share = STARTED + (TRAINED - STARTED) * step as f64 / curve.steps as f64;
        let model = if step == curve.steps {
            job.tuned_model.clone()
        } else {
            format!("{}:ckpt-step-{step}", job.tuned_model)
        };
        Checkpoint {
            object: "fine_tuning.job.checkpoint",
            id: ids::derived("ftckpt_", &[&job.id, &step.to_string()]),
            created_at: job.timeline.reaches(share).unwrap_or(now).timestamp(),
            model,
            step_number: step,
            metrics: if job.without_metrics { json!({"step": step}) } else { json!(curve.at(step)) },
            fine_tuning_job_id: job.id.clone(),
        }
    };
    (1..=plan.resolved.n_epochs).rev().map(checkpoint).collect()
}
