//! The two pipelines that a new installation begins with.

use sqlx::PgPool;

use super::config::{
    BudgetSettings, DeploymentSettings, EvaluationSettings, ExperimentSettings, LifecycleSettings,
    OutcomeSettings, PipelineConfig, PublicationSettings, ScheduleSettings, TrainingSettings, WatchSettings,
};
use super::store::{NotSaved, lock, save};
use crate::audit::By;
use crate::clock::Clock;
use crate::config::SeedArgs;
use crate::dataset::{DatasetSettings, Template};

/// Creates `hook` and `body` from the environment where they do not exist. Pipelines that exist are left alone: their
/// configuration is changed through the API.
pub async fn seed(db: &PgPool, clock: &Clock, settings: &SeedArgs) -> Result<(), NotSaved> {
    let models = [
        ("hook", Template::Hook, &settings.hook_model, &settings.hook_base_model),
        ("body", Template::Body, &settings.body_model, &settings.body_base_model),
    ];
    for (name, template, serving_model, base_model) in models {
        let mut tx = db.begin().await?;
        if lock(&mut tx, name).await?.is_none() {
            let config = PipelineConfig {
                serving_model: serving_model.clone(),
                dataset: DatasetSettings {
                    template,
                    engagement_threshold: settings.engagement_threshold,
                    minimum_examples: settings.min_examples,
                    ..DatasetSettings::default()
                },
                training: TrainingSettings::new(base_model.clone()),
                budget: BudgetSettings::default(),
                evaluation: EvaluationSettings::default(),
                schedule: ScheduleSettings::default(),
                experiment: ExperimentSettings::default(),
                watch: WatchSettings::default(),
                deployment: DeploymentSettings::default(),
                outcomes: OutcomeSettings::default(),
                lifecycle: LifecycleSettings::default(),
                publication: PublicationSettings::default(),
            };
            save(&mut tx, clock, name, &config, &By::system()).await?;
            tx.commit().await?;
            tracing::info!(pipeline = name, "created the pipeline from the environment");
        }
    }
    Ok(())
}
