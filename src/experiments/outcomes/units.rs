//! The units of an experiment, each counted once, in the epoch and the arm of its first outcome: what the sample-ratio check
//! looks at.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::Rows;

/// A unit as an outcome shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sight {
    served_at: DateTime<Utc>,
    number: i64,
    epoch: i64,
    candidate: bool,
}

/// The changes of the counts, by experiment, epoch and arm.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Changes(BTreeMap<(Uuid, i64, bool), i64>);

/// Writes down the units of new outcomes, and tells what that changes of their counts.
pub(super) async fn insert(conn: &mut PgConnection, rows: &Rows) -> sqlx::Result<Changes> {
    let mut sights: BTreeMap<(Uuid, &str), Sight> = BTreeMap::new();
    for (at, experiment) in rows.experiment.iter().enumerate() {
        let (Some(experiment), Some(candidate)) = (*experiment, rows.candidate[at]) else { continue };
        let sight = Sight {
            served_at: rows.served_at[at],
            number: rows.number[at],
            epoch: rows.revision[at],
            candidate,
        };
        let first = sights.entry((experiment, &rows.unit[at])).or_insert(sight);
        *first = sight.min(*first);
    }
    let mut changes = Changes::default();
    if sights.is_empty() {
        return Ok(changes);
    }
    let new = insert_new(conn, &sights, &mut changes).await?;
    if usize::try_from(new).unwrap_or_default() < sights.len() {
        move_back(conn, &sights, &mut changes).await?;
    }
    Ok(changes)
}

/// Inserts units that were not seen before, and returns how many they are.
async fn insert_new(
    conn: &mut PgConnection,
    sights: &BTreeMap<(Uuid, &str), Sight>,
    changes: &mut Changes,
) -> sqlx::Result<i64> {
    let columns = Columns::of(sights);
    let new = sqlx::query!(
        r#"SELECT experiment_id AS "experiment_id!", epoch AS "epoch!", candidate AS "candidate!", units AS "units!"
             FROM insert_experiment_units($1, $2, $3, $4, $5, $6)"#,
        &columns.experiment,
        &columns.unit as &[&str],
        &columns.served_at,
        &columns.number,
        &columns.epoch,
        &columns.candidate,
    )
    .fetch_all(conn)
    .await?;
    for row in &new {
        changes.add(row.experiment_id, row.epoch, row.candidate, row.units);
    }
    Ok(new.iter().map(|row| row.units).sum())
}

/// Moves units whose first outcome arrives late to where it was served.
async fn move_back(
    conn: &mut PgConnection,
    sights: &BTreeMap<(Uuid, &str), Sight>,
    changes: &mut Changes,
) -> sqlx::Result<()> {
    let columns = Columns::of(sights);
    let moved = sqlx::query!(
        "WITH sent AS (
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::boolean[])
                 AS sent (experiment_id, unit, served_at, number, epoch, candidate)),
         known AS (
             SELECT u.experiment_id, u.unit, u.epoch, u.candidate
               FROM experiment_units u JOIN sent s USING (experiment_id, unit)
              WHERE (s.served_at, s.number) < (u.served_at, u.number)
              ORDER BY u.experiment_id, u.unit FOR UPDATE OF u)
         UPDATE experiment_units u
            SET served_at = s.served_at, number = s.number, epoch = s.epoch, candidate = s.candidate
           FROM sent s JOIN known k USING (experiment_id, unit)
          WHERE u.experiment_id = s.experiment_id AND u.unit = s.unit
            AND (s.served_at, s.number) < (u.served_at, u.number)
         RETURNING u.experiment_id, k.epoch AS from_epoch, k.candidate AS from_candidate, s.epoch, s.candidate",
        &columns.experiment,
        &columns.unit as &[&str],
        &columns.served_at,
        &columns.number,
        &columns.epoch,
        &columns.candidate,
    )
    .fetch_all(conn)
    .await?;
    for row in moved {
        changes.add(row.experiment_id, row.from_epoch, row.from_candidate, -1);
        let (Some(epoch), Some(candidate)) = (row.epoch, row.candidate) else { continue };
        changes.add(row.experiment_id, epoch, candidate, 1);
    }
    Ok(())
}

impl Changes {
    fn add(&mut self, experiment: Uuid, epoch: i64, candidate: bool, change: i64) {
        *self.0.entry((experiment, epoch, candidate)).or_default() += change;
    }

    /// Brings the counts up to date.
    pub(super) async fn apply(self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let changes: Vec<_> = self.0.into_iter().filter(|(_, change)| *change != 0).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let experiments: Vec<Uuid> = changes.iter().map(|((experiment, _, _), _)| *experiment).collect();
        let epochs: Vec<i64> = changes.iter().map(|((_, epoch, _), _)| *epoch).collect();
        let arms: Vec<bool> = changes.iter().map(|((_, _, candidate), _)| *candidate).collect();
        let units: Vec<i64> = changes.iter().map(|(_, change)| *change).collect();
        sqlx::query!(
            "INSERT INTO experiment_unit_counts AS counted (experiment_id, epoch, candidate, units)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::bigint[])
             ON CONFLICT (experiment_id, epoch, candidate) DO UPDATE SET units = counted.units + excluded.units",
            &experiments,
            &epochs,
            &arms,
            &units,
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

struct Columns<'a> {
    experiment: Vec<Uuid>,
    unit: Vec<&'a str>,
    served_at: Vec<DateTime<Utc>>,
    number: Vec<i64>,
    epoch: Vec<i64>,
    candidate: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(sights: &BTreeMap<(Uuid, &'a str), Sight>) -> Self {
        Self {
            experiment: sights.keys().map(|(experiment, _)| *experiment).collect(),
            unit: sights.keys().map(|(_, unit)| *unit).collect(),
            served_at: sights.values().map(|sight| sight.served_at).collect(),
            number: sights.values().map(|sight| sight.number).collect(),
            epoch: sights.values().map(|sight| sight.epoch).collect(),
            candidate: sights.values().map(|sight| sight.candidate).collect(),
        }
    }
}
