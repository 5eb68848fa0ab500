//! What a model was made of, and the version number that follows from it.

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Version;

/// What a training was given. Two trainings with the same recipe are the same training, done twice.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The trainer.
    pub provider: String,
    /// What was trained.
    pub base_model: String,
    /// How examples were made of posts: the pipeline's own templates, or the name of the built-in one.
    pub prompt: Value,
    /// What it was trained on.
    pub dataset_digest: String,
    /// By examples or by preference.
    pub method: String,
    /// What it was asked to train with; what the provider chose by itself is left open.
    pub hyperparameters: Value,
    /// The seed that was asked for.
    pub seed: Option<i64>,
}

/// A version, and what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The version.
    pub version: Version,
    /// The training and its recipe; none for version 0.0.0, which nobody here trained.
    pub training: Option<(Uuid, Recipe)>,
}

impl Version {
    /// The version of a new model of a training.
    ///
    /// * Another model of a training that has a version, or of one with the same recipe: the next patch of that version.
    /// * Otherwise, on the base model and with the prompt of the newest version: the next minor.
    /// * Otherwise: the next major.
    #[must_use]
    pub fn next(earlier: &[Made], training: Uuid, recipe: &Recipe) -> Self {
        let newest_of = |is: &dyn Fn(&(Uuid, Recipe)) -> bool| {
            let found = earlier.iter().filter(|made| made.training.as_ref().is_some_and(is));
            found.map(|made| made.version).max()
        };
        let twin = newest_of(&|(id, _)| *id == training).or_else(|| newest_of(&|(_, other)| other == recipe));
        if let Some(twin) = twin {
            let line = earlier.iter().map(|made| made.version);
            let line = line.filter(|version| (version.major, version.minor) == (twin.major, twin.minor));
            let taken = line.map(|version| version.patch).max().unwrap_or(twin.patch);
            return Self { patch: taken + 1, ..twin };
        }
        let Some(newest) = earlier.iter().max_by_key(|made| made.version) else {
            return Self { major: 1, minor: 0, patch: 0 };
        };
        let goes_on = newest.training.as_ref().is_some_and(|(_, before)| {
            before.base_model == recipe.base_model && before.prompt == recipe.prompt
        });
        let version = newest.version;
        if goes_on {
            Self { minor: version.minor + 1, patch: 0, ..version }
        } else {
            Self { major: version.major + 1, minor: 0, patch: 0 }
        }
    }
}

/// What a training was given.
pub async fn recipe_of(db: impl PgExecutor<'_>, training: Uuid) -> sqlx::Result<Recipe> {
    sqlx::query_as!(
        Recipe,
        r#"SELECT provider AS "provider!", base_model AS "base_model!", prompt AS "prompt!",
                  dataset_digest AS "dataset_digest!", method AS "method!", hyperparameters AS "hyperparameters!", seed
             FROM training_recipes WHERE training_id = $1"#,
        training,
    )
    .fetch_one(db)
    .await
}

/// All versions of a pipeline, and what they were made of.
pub async fn made(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<Vec<Made>> {
    let rows = sqlx::query!(
        r#"SELECT v.major, v.minor, v.patch, r.training_id AS "training_id?", r.provider AS "provider?",
                  r.base_model AS "base_model?", r.prompt AS "prompt?", r.dataset_digest AS "dataset_digest?",
                  r.method AS "method?", r.hyperparameters AS "hyperparameters?", r.seed
             FROM model_versions v LEFT JOIN training_recipes r ON r.training_id = v.training_id
            WHERE v.pipeline = $1"#,
        pipeline,
    )
    .fetch_all(db)
    .await?;
    let made = rows.into_iter().map(|row| {
        let recipe = (|| {
            Some(Recipe {
                provider: row.provider?,
                base_model: row.base_model?,
                prompt: row.prompt?,
                dataset_digest: row.dataset_digest?,
                method: row.method?,
                hyperparameters: row.hyperparameters?,
                seed: row.seed,
            })
        })();
        Made {
            version: Version { major: row.major, minor: row.minor, patch: row.patch },
            training: row.training_id.zip(recipe),
        }
    });
    Ok(made.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            provider: "openai".into(),
            base_model: "gpt-4o-2024-08-06".into(),
            prompt: json!("hook"),
            dataset_digest: "a".into(),
            method: "supervised".into(),
            hyperparameters: json!({"n_epochs": 3}),
            seed: None,
        }
    }

    fn with(change: impl FnOnce(&mut Recipe)) -> Recipe {
        let mut recipe = recipe();
        change(&mut recipe);
        recipe
    }

    fn training(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// Versions of trainings 1, 2, …, after version 0.0.0.
    fn pipeline(versions: &[(&str, Recipe)]) -> Vec<Made> {
        let trained = (1..).zip(versions).map(|(number, (version, recipe))| Made {
            version: version.parse().unwrap(),
            training: Some((training(number), recipe.clone())),
        });
        [Made { version: Version::BASE, training: None }].into_iter().chain(trained).collect()
    }

    fn next(earlier: &[Made], training: Uuid, recipe: &Recipe) -> String {
        Version::next(earlier, training, recipe).to_string()
    }

    #[test]
    fn the_first_training_is_a_major() {
        assert_eq!(next(&pipeline(&[]), training(9), &recipe()), "1.0.0");
        assert_eq!(next(&[], training(9), &recipe()), "1.0.0");
    }

    #[test]
    fn another_base_model_or_prompt_is_a_major() {
        let earlier = pipeline(&[("1.4.2", recipe())]);
        let base = with(|recipe| recipe.base_model = "gpt-4.1-2025-04-14".into());
        let prompt = with(|recipe| recipe.prompt = json!({"user": "{{ input }}", "assistant": "{{ hook }}"}));
        assert_eq!(next(&earlier, training(9), &base), "2.0.0");
        assert_eq!(next(&earlier, training(9), &prompt), "2.0.0");
    }

    #[test]
    fn other_data_or_settings_are_a_minor() {
        let earlier = pipeline(&[("1.9.3", recipe())]);
        let retrained: [fn(&mut Recipe); 5] = [
            |recipe| recipe.dataset_digest = "b".into(),
            |recipe| recipe.hyperparameters = json!({"n_epochs": 4}),
            |recipe| recipe.seed = Some(7),
            |recipe| recipe.method = "preference".into(),
            |recipe| recipe.provider = "azure_openai".into(),
        ];
        for change in retrained {
            assert_eq!(next(&earlier, training(9), &with(change)), "1.10.0");
        }
    }

    #[test]
    fn the_same_training_again_is_the_next_free_patch_of_its_version() {
        let other = with(|recipe| recipe.dataset_digest = "b".into());
        let earlier = pipeline(&[("1.0.0", recipe()), ("1.0.1", recipe()), ("1.1.0", other.clone())]);
        assert_eq!(next(&earlier, training(9), &recipe()), "1.0.2");
        assert_eq!(next(&earlier, training(9), &other), "1.1.1");
    }

    #[test]
    fn another_model_of_the_same_training_is_a_patch_of_that_training() {
        // The same recipe was trained twice, and came to stand in two lines.
        let earlier = pipeline(&[("1.0.0", recipe()), ("2.0.0", recipe()), ("2.0.1", recipe())]);
        assert_eq!(next(&earlier, training(1), &recipe()), "1.0.1");
        assert_eq!(next(&earlier, training(2), &recipe()), "2.0.2");
    }

    #[test]
    fn going_back_to_an_older_base_model_is_a_major_after_the_newest() {
        let second = with(|recipe| recipe.base_model = "gpt-4.1-2025-04-14".into());
        let earlier = pipeline(&[("1.0.0", recipe()), ("2.0.0", second)]);
        let back = with(|recipe| recipe.dataset_digest = "b".into());
        assert_eq!(next(&earlier, training(9), &back), "3.0.0");
    }
}
