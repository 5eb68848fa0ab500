//! The baseline: simple updates by eight clients, as PostgreSQL's own bench makes them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tuneloop::embedded::Cluster;

use crate::Result;

const SCALE: &str = "10";
const SECONDS: &str = "6";

/// A prepared database and the program.
pub(crate) struct Pgbench {
    program: PathBuf,
    url: String,
}

impl Pgbench {
    /// Fills pgbench's tables. The program is the one beside the server's.
    pub(crate) async fn prepare(cluster: &Cluster) -> Result<Self> {
        cluster.create_database("pgbench").await?;
        let url = cluster.url("pgbench");
        let mut connection = PgConnection::connect(&url).await?;
        let folder: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        let pgbench = Self { program: Path::new(&folder).join("pgbench"), url };
        pgbench.output(&["--initialize", "--quiet", "--scale", SCALE]).await?;
        Ok(pgbench)
    }

    /// One turn.
    pub(crate) async fn transactions_per_second(&self) -> Result<f64> {
        let arguments = ["-N", "-M", "prepared", "-c", "8", "-j", "2", "-T", SECONDS];
        let report = self.output(&arguments).await?;
        let rate = report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
        let rate = rate.ok_or_else(|| format!("pgbench did not say its tps: {report}"))?;
        Ok(rate.parse()?)
    }

    async fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).arg(&self.url).kill_on_drop(true).output();
        let output = match output.await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let missing = self.program.display();
                return Err(format!(
                    "there is no {missing}: install PostgreSQL's pgbench, on Debian the package postgresql, \
                     elsewhere postgresql-contrib"
                )
                .into());
            }
            output => output?,
        };
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(format!("pgbench ended with {}: {}", output.status, words.trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
