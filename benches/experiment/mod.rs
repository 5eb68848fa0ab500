//! A running experiment in a private cluster, for the benches that need one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use sqlx::PgPool;
use tempfile::TempDir;
use tuneloop::audit::By;
use tuneloop::clock::Clock;
use tuneloop::embedded::{Cluster, Options};
use tuneloop::experiments::decision::Rules;
use tuneloop::experiments::{self, NewExperiment};
use tuneloop::traffic::{self, TestArms};
use tuneloop::{database, pipelines};
use uuid::Uuid;

use crate::Result;

/// The clusters that outcomes belong to.
pub(crate) const PERSONAS: u32 = 200;

/// Runs a bench to its end; what went wrong is told under its name.
pub(crate) fn run(name: &str, bench: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An experiment on the pipeline `hook` whose candidate, version 1.0.0, has a tenth of the traffic (revision 2).
pub(crate) struct Running {
    pub(crate) db: PgPool,
    pub(crate) url: String,
    pub(crate) experiment: Uuid,
    cluster: Cluster,
    _directory: TempDir,
}

/// Starts a cluster with PostgreSQL's default settings (it waits for the disk) and the experiment in it.
pub(crate) async fn start() -> Result<Running> {
    let directory = tempfile::tempdir()?;
    // The server's account enters it when this is run by root.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let options = Options {
        data_dir: Some(directory.path().to_path_buf()),
        binaries: std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    println!("PostgreSQL {} with its default settings", cluster.version());
    cluster.create_database("outcomes").await?;
    let url = cluster.url("outcomes");
    let db = database::connect(&url, 10).await?;
    database::migrate(&db).await?;
    let experiment = experiment(&db).await?;
    Ok(Running { db, url, experiment, cluster, _directory: directory })
}

async fn experiment(db: &PgPool) -> Result<Uuid> {
    let clock = Clock::system();
    let mut tx = db.begin().await?;
    let config = serde_json::from_value(serde_json::json!({
        "serving_model": "gpt-4o", "training": {"base_model": "gpt-4o-2024-08-06"}, "schedule": {"enabled": false},
    }))?;
    pipelines::save(&mut tx, &clock, "hook", &config, &By::system()).await?;
    let live = traffic::current(&mut tx, "hook").await?.ok_or("the pipeline has no traffic")?;
    let (run, candidate, experiment) = (clock.uuid(), clock.uuid(), clock.uuid());
    sqlx::query(
        "INSERT INTO model_versions (id, pipeline, major, minor, patch, status, provider, provider_model_id, base_model)
         VALUES ($1, 'hook', 1, 0, 0, 'candidate', 'openai', 'ft:gpt-4o:1', 'gpt-4o-2024-08-06')",
    )
    .bind(candidate)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO runs (id, pipeline, config_version, trigger, status, step, model_version_id, place)
         VALUES ($1, 'hook', 1, 'api', 'running', 'test', $2, 'proving')",
    )
    .bind(run)
    .bind(candidate)
    .execute(&mut *tx)
    .await?;
    let arms = TestArms { experiment_id: experiment, baseline: live.live_version_id, candidate };
    let begun = NewExperiment {
        id: experiment,
        pipeline: "hook",
        run_id: run,
        baseline_id: arms.baseline,
        candidate_id: candidate,
        rules: &Rules::default(),
        horizon_seconds: 7.0 * 86_400.0,
    };
    experiments::start(&mut tx, &begun, &By::system()).await?;
    traffic::start_test(&mut tx, "hook", arms, 1_000, &By::system()).await?;
    tx.commit().await?;
    Ok(experiment)
}

impl Running {
    /// Stops the cluster.
    pub(crate) async fn end(self) -> Result<()> {
        self.db.close().await;
        Ok(self.cluster.stop().await?)
    }
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
