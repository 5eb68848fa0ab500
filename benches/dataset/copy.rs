//! The baseline: psql copies the rows of the same query to a file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::process::Command;

use crate::Result;
use crate::snapshot::Measured;

pub(crate) struct Copy {
    query: String,
}

impl Copy {
    /// The query of a snapshot, with its values written out.
    pub(crate) fn of(made: &Measured) -> Result<Self> {
        let mut query = made.query.clone();
        for (index, value) in made.parameters.iter().enumerate().rev() {
            query = query.replace(&format!("${}", index + 1), &format!("'{value}'"));
        }
        if query.contains('$') {
            return Err(format!("a value is missing in {query}").into());
        }
        Ok(Self { query: query.replace('\n', " ") })
    }

    /// One turn.
    pub(crate) async fn seconds(&self, url: &str, directory: &Path) -> Result<f64> {
        let file: PathBuf = directory.join("copy.tsv");
        let command = format!("\\copy ({}) TO '{}'", self.query, file.display());
        let begun = Instant::now();
        let output = Command::new("psql").args([url, "-X", "-q", "-c", &command]).kill_on_drop(true).output();
        let output = output.await.map_err(|error| format!("psql cannot be started: {error}; install it"))?;
        let seconds = begun.elapsed().as_secs_f64();
        if !output.status.success() {
            return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        std::fs::remove_file(file)?;
        Ok(seconds)
    }
}
