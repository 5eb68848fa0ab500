//! `tuneloop recompute`: the sums of experiments from their raw outcomes.

use clap::Args;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Failure, print};
use crate::config::DatabaseArgs;
use crate::database;
use crate::experiments::outcomes::{Recomputed, recompute};

/// Rebuild the sums of experiments from their raw outcomes
///
/// They are kept up to date as outcomes arrive, so that this changes nothing; it is there for those who doubt it, and after
/// rows were changed by hand. Recording waits while an experiment is rebuilt. Decisions that were taken stay as they are.
#[derive(Args, Debug)]
pub(super) struct Recompute {
    /// Only this experiment; all of them where absent
    #[arg(long, value_name = "ID")]
    experiment: Option<Uuid>,

    #[command(flatten)]
    database: DatabaseArgs,
}

impl Recompute {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let db = database::connect(self.database.database_url.expose(), 1).await?;
        let experiments = experiments(&db, self.experiment).await?;
        if let (Some(id), []) = (self.experiment, experiments.as_slice()) {
            return Err(format!("there is no experiment {id} in this database").into());
        }
        for id in experiments {
            let sentence = match recompute(&db, id).await? {
                Recomputed::Unchanged => "was right already",
                Recomputed::Changed => "was wrong and is right now",
                Recomputed::TooOld => "left as it is: some of its outcomes were deleted for their age",
            };
            print(&format!("{id}: {sentence}."))?;
        }
        db.close().await;
        Ok(())
    }
}

async fn experiments(db: &PgPool, only: Option<Uuid>) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT id FROM experiments WHERE id = $1 OR $1 IS NULL ORDER BY started_at, id",
        only
    )
    .fetch_all(db)
    .await
}
