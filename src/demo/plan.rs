//! What the demo asks for: the pipeline's configuration, in which days have become seconds.

use std::time::Duration;

use chrono::TimeDelta;
use clap::ValueEnum;

use crate::dataset::{DatasetSettings, Template};
use crate::experiments::decision::Rules;
use crate::pipelines::PipelineConfig;
use crate::pipelines::config::{
    BudgetSettings, DeploymentSettings, EvaluationSettings, ExperimentSettings, LifecycleSettings,
    OutcomeSettings, PublicationSettings, ScheduleSettings, TrainingSettings, WatchSettings,
};
use crate::preflight::{PriceTable, PriceTableError};

/// How long the test takes; the product's default is 168 hours.
pub(super) const TEST_SECONDS: f64 = 8.0;
/// How long the watch takes; the product's default is 168 hours.
pub(super) const WATCH_SECONDS: f64 = 5.0;
/// How long the simulated provider trains.
pub(super) const TRAINING_TIME: Duration = Duration::from_secs(3);
/// The candidate's share in the test and the former version's in the watch, in basis points. The product's
/// default is a tenth; in seconds, a tenth would be too few posts on a slow machine.
pub(super) const CANDIDATE_WEIGHT: i32 = 2_000;
/// Posts that readers see while a test or watch needs them, and otherwise.
pub(super) const READS_PER_SECOND: u32 = 200;
pub(super) const QUIET_READS_PER_SECOND: u32 = 20;

/// The longest look-back a pipeline takes.
const LONGEST_LOOKBACK: TimeDelta = TimeDelta::days(3_650);

/// The pipeline that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoPipeline {
    /// Writes headlines.
    #[value(help = None)]
    Hook,
    /// Writes posts below a headline.
    #[value(help = None)]
    Body,
}

impl DemoPipeline {
    /// Its name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Body => "body",
        }
    }
}

/// What the simulation makes of the candidate, and so what the demo goes to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// Its posts do better: it is promoted and watched.
    Better,
    /// Its posts do worse: the test stops for harm or, where harm is seen later, the watch rolls back.
    Worse,
}

impl Candidate {
    /// How much higher its engagement truly is, relative to the model that nobody trained.
    pub(super) fn effect(self) -> f64 {
        match self {
            Self::Better => 0.25,
            Self::Worse => -0.3,
        }
    }
}

/// The rules of the test: the defaults, but for the hours it must have run, and for the level of the sample-ratio check, by
/// which chance would end one demo in a thousand.
pub(super) fn rules() -> Rules {
    Rules { minimum_hours: 0.0, sample_ratio_alpha: 1e-6, ..Rules::default() }
}

/// The configuration of the pipeline; threshold and minimum are the product's.
pub(super) fn config(pipeline: DemoPipeline, lookback: TimeDelta) -> PipelineConfig {
    let (template, serving_model, base_model) = match pipeline {
        DemoPipeline::Hook => (Template::Hook, "gpt-4o", "gpt-4o-2024-08-06"),
        DemoPipeline::Body => (Template::Body, "gpt-3.5-turbo-0125", "gpt-3.5-turbo-0125"),
    };
    PipelineConfig {
        serving_model: serving_model.into(),
        dataset: DatasetSettings {
            template,
            lookback_seconds: lookback.as_seconds_f64(),
            ..DatasetSettings::default()
        },
        training: TrainingSettings {
            suffix: Some(format!("{}-demo", pipeline.name())),
            poll_seconds: 0.2,
            maximum_poll_seconds: 0.5,
            settle_seconds: 2.0,
            time_limit_seconds: 60.0,
            ..TrainingSettings::new(base_model.into())
        },
        budget: BudgetSettings::default(),
        evaluation: EvaluationSettings::default(),
        schedule: ScheduleSettings::default(),
        experiment: ExperimentSettings {
            horizon_seconds: TEST_SECONDS,
            candidate_weight: CANDIDATE_WEIGHT,
            interval_seconds: 0.5,
            rules: rules(),
            ..ExperimentSettings::default()
        },
        watch: WatchSettings {
            duration_seconds: WATCH_SECONDS,
            interval_seconds: 0.5,
            hold_back_weight: CANDIDATE_WEIGHT,
        },
        deployment: DeploymentSettings::default(),
        outcomes: OutcomeSettings::default(),
        lifecycle: LifecycleSettings::default(),
        publication: PublicationSettings::default(),
    }
}

/// What the simulated provider charges: figures of the demo's own.
pub(super) fn prices() -> Result<PriceTable, PriceTableError> {
    PriceTable::parse(
        r#"{"currency": "USD", "models": {
            "gpt-4o-2024-08-06": {"training_per_million_tokens": 25},
            "gpt-3.5-turbo-0125": {"training_per_million_tokens": 8}}}"#,
    )
}

/// The product's look-back.
pub(super) fn usual_lookback() -> TimeDelta {
    let seconds = DatasetSettings::default().lookback_seconds;
    #[expect(clippy::cast_possible_truncation, reason = "a week")]
    TimeDelta::seconds(seconds as i64)
}

/// A look-back that covers posts of this span: the usual one, or whole days with one to spare, so that the
/// oldest post is still within it when the run begins.
pub(super) fn lookback(span: TimeDelta) -> TimeDelta {
    let usual = usual_lookback();
    if span + TimeDelta::hours(1) <= usual {
        return usual;
    }
    TimeDelta::days(span.num_days() + 2).min(LONGEST_LOOKBACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_and_keeps_threshold_and_minimum() {
        for pipeline in [DemoPipeline::Hook, DemoPipeline::Body] {
            let config = config(pipeline, usual_lookback());
            assert!(config.faults().is_empty(), "{:?}", config.faults());
            assert!(config.experiment.rules.validate().is_ok());
            assert!((config.dataset.engagement_threshold - 0.06).abs() < f64::EPSILON);
            assert_eq!(config.dataset.minimum_examples, 100);
        }
    }

    #[test]
    fn the_look_back_covers_the_span_up_to_ten_years() {
        assert_eq!(lookback(TimeDelta::days(3)), TimeDelta::days(7));
        let span = TimeDelta::days(7) - TimeDelta::minutes(1);
        assert!(lookback(span) > span + TimeDelta::days(1));
        assert_eq!(lookback(TimeDelta::days(346)), TimeDelta::days(348));
        let longest = lookback(TimeDelta::days(20_000));
        assert!(config(DemoPipeline::Hook, longest).faults().is_empty());
    }
}
