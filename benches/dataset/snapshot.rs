//! The product: a process of its own, so that its memory can be told, collects, stores and examines a snapshot.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tuneloop::clock::Clock;
use tuneloop::dataset::{self, DatasetSettings, DatasetStore, Sources};
use tuneloop::preflight::{self, Plan, PriceTable};
use tuneloop::trainers::{Hyperparameters, Method};

use crate::Result;

/// The argument that makes this program the snapshot's process.
pub(crate) const CHILD: &str = "snapshot";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// What a pipeline does unless it is told otherwise, less the report of near duplicates.
    Whole,
    WithoutCleaning,
    WithoutDuplicates,
    WithoutSplit,
    NearDuplicates,
}

impl Variant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::WithoutCleaning => "without cleaning",
            Self::WithoutDuplicates => "without exact duplicates",
            Self::WithoutSplit => "without split",
            Self::NearDuplicates => "with near duplicates",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Whole,
            Self::WithoutCleaning,
            Self::WithoutDuplicates,
            Self::WithoutSplit,
            Self::NearDuplicates,
        ];
        all.into_iter().find(|variant| variant.name() == name)
    }

    fn settings(self) -> Result<DatasetSettings> {
        let near = if self == Self::NearDuplicates { "report" } else { "off" };
        let mut settings = serde_json::json!({"cleaning": {"near_duplicates": near}});
        match self {
            Self::WithoutCleaning => {
                settings["cleaning"] = serde_json::json!({
                    "html": false, "unicode": false, "control_characters": false, "white_space": false,
                    "personal_data": "off", "near_duplicates": near,
                });
            }
            Self::WithoutDuplicates => settings["cleaning"]["exact_duplicates"] = false.into(),
            Self::WithoutSplit => settings["split"] = serde_json::json!({"validation_share": 0}),
            Self::Whole | Self::NearDuplicates => {}
        }
        Ok(serde_json::from_value(settings)?)
    }
}

/// Seconds by stage, and what came out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) collect: f64,
    pub(crate) store: f64,
    pub(crate) examine: f64,
    pub(crate) examples: u64,
    pub(crate) tokens: u64,
    pub(crate) query: String,
    /// The values of the query, in the order of `$1`, `$2`, ….
    pub(crate) parameters: Vec<String>,
    /// The most memory that the process ever had in use, in millions of bytes.
    #[serde(default)]
    pub(crate) peak_mb: f64,
}

impl Measured {
    pub(crate) fn seconds(&self) -> f64 {
        self.collect + self.store + self.examine
    }
}

/// One turn, in a process of its own.
pub(crate) async fn make(variant: Variant, url: &str, directory: &Path) -> Result<Measured> {
    let mut child = Command::new(std::env::current_exe()?);
    let child = child.args([CHILD, variant.name(), url]).arg(directory).kill_on_drop(true).output().await?;
    if !child.status.success() {
        return Err(format!("the snapshot failed: {}", String::from_utf8_lossy(&child.stderr)).into());
    }
    Ok(serde_json::from_slice(&child.stdout)?)
}

/// The process: writes what it measured to standard output.
pub(crate) async fn child(variant: &str, url: &str, directory: &Path) -> Result<()> {
    let settings = Variant::named(variant).ok_or("no such variant")?.settings()?;
    let pool = tuneloop::database::connect(url, 2).await?;
    let kept = tempfile::tempdir_in(directory)?;
    let store = DatasetStore::local(kept.path())?;
    let sources = Sources::new(pool.clone());

    let begun = Instant::now();
    let snapshot = dataset::collect(&sources, "hook", &settings, Clock::system().now()).await?;
    let collect = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    store.put(&snapshot).await?;
    let stored = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let plan = Plan {
        provider: "openai",
        base_model: "gpt-4o-2024-08-06",
        method: Method::Supervised,
        trials: vec![Hyperparameters::default()],
    };
    let manifest = &snapshot.manifest;
    let now = Clock::system().now();
    let report = preflight::examine(&store, manifest, plan, &PriceTable::default(), now).await?;
    let examine = begun.elapsed().as_secs_f64();

    let parameters = manifest.parameters.iter().flat_map(|parameter| parameter.values());
    let tokens = [Some(&report.train), report.validation.as_ref()];
    let tokens = tokens.into_iter().flatten().filter_map(|part| part.tokens.as_ref());
    let measured = Measured {
        collect,
        store: stored,
        examine,
        examples: manifest.counts.examples,
        tokens: tokens.map(|tokens| tokens.total).sum(),
        query: manifest.query.clone().unwrap_or_default(),
        parameters: parameters
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect(),
        peak_mb: peak()?,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// The most memory that this process ever had in use, in millions of bytes.
fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("VmHWM is missing")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
