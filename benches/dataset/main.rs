//! A snapshot of a million posts beside `COPY` of the same query: `cargo bench --bench dataset`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

mod copy;
mod posts;
mod snapshot;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use tempfile::TempDir;
use tuneloop::embedded::{Cluster, Options};

use snapshot::{Measured, Variant};

/// The table that the ratio is measured on.
const ROWS: u32 = 1_000_000;
/// The table that memory is compared with.
const FEW_ROWS: u32 = 100_000;
/// Baseline and product take turns this often; the ratio is the median of its turns.
const TURNS: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let work = async {
        match arguments.as_slice() {
            [child, variant, url, directory] if child == snapshot::CHILD => {
                snapshot::child(variant, url, directory.as_ref()).await
            }
            _ => bench().await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dataset: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<()> {
    let directory = directory()?;
    let options = Options {
        data_dir: Some(directory.path().join("postgres")),
        binaries: std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    println!("PostgreSQL {} with its default settings", cluster.version());
    let few = posts::table(&cluster, "few", FEW_ROWS).await?;
    let many = posts::table(&cluster, "many", ROWS).await?;

    let less = snapshot::make(Variant::Whole, &few, directory.path()).await?;
    println!("{FEW_ROWS} posts: {less}");
    let copy = copy::Copy::of(&less)?;
    let (mut ratios, mut whole) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let copied = copy.seconds(&many, directory.path()).await?;
        let made = snapshot::make(Variant::Whole, &many, directory.path()).await?;
        println!("turn {turn} of {TURNS}: COPY {copied:.2} s; {made}");
        ratios.push(made.seconds() / copied);
        whole.push(made);
    }
    println!("each of these without one stage, or with one more:");
    for variant in
        [Variant::WithoutCleaning, Variant::WithoutDuplicates, Variant::WithoutSplit, Variant::NearDuplicates]
    {
        println!("  {}: {}", variant.name(), snapshot::make(variant, &many, directory.path()).await?);
    }
    cluster.stop().await?;

    let peak = whole.iter().map(|made| made.peak_mb).fold(less.peak_mb, f64::max);
    println!("dataset: ratio={:.2} peak_mb={peak:.0} rows={ROWS}", median(ratios));
    Ok(())
}

/// A directory that the server's account may enter when this is run by root.
fn directory() -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    Ok(directory)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "snapshot {:.2} s (read, cleaned, divided {:.2}, stored {:.2}, tokens and rules {:.2}), {} examples, {} tokens, peak {:.0} MB",
            self.seconds(),
            self.collect,
            self.store,
            self.examine,
            self.examples,
            self.tokens,
            self.peak_mb
        )
    }
}
