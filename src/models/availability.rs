//! What the provider says of the models that serve: whether they are there, and until when.

use chrono::NaiveDate;
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::tell_status;
use super::{ModelVersion, VersionStatus};
use crate::audit::By;

/// So many days before a model's end a warning is due, nearest first.
pub const WARNING_DAYS: [i32; 3] = [7, 30, 60];

/// The days from `today` until a model's end; negative after it.
#[must_use]
pub fn days_left(shutdown_date: NaiveDate, today: NaiveDate) -> i64 {
    (shutdown_date - today).num_days()
}

/// The warning that is due, if one is that was not given before: of those whose time has come, the nearest.
#[must_use]
pub fn warning_due(days_left: i64, warned: Option<i32>) -> Option<i32> {
    let due = WARNING_DAYS.into_iter().find(|days| days_left <= i64::from(*days))?;
    warned.is_none_or(|warned| due < warned).then_some(due)
}

/// Notes that the provider serves the model, and until when, as far as it tells. Warnings were about a date: for another
/// one they are due again.
pub async fn found(conn: &mut PgConnection, id: Uuid, shutdown_date: Option<NaiveDate>) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE model_versions
            SET checked_at = now(), missing_since = NULL, gone_at = NULL, shutdown_date = $2,
                warned_days = CASE WHEN shutdown_date = $2 THEN warned_days END
          WHERE id = $1",
        id,
        shutdown_date,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the provider says that it does not know the model.
pub async fn not_found(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE model_versions SET checked_at = now(), missing_since = coalesce(missing_since, now()) WHERE id = $1",
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the provider gave no answer: what it said before, unconfirmed, counts no longer.
pub async fn unanswered(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE model_versions SET missing_since = NULL WHERE id = $1 AND gone_at IS NULL", id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes it that the model is gone.
pub async fn gone(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE model_versions SET gone_at = now() WHERE id = $1", id).execute(conn).await?;
    Ok(())
}

/// Gives a version that answers again the status it had, with its audit event, and returns that.
pub async fn restore(
    conn: &mut PgConnection,
    version: &ModelVersion,
    reason: &str,
    by: &By,
) -> sqlx::Result<VersionStatus> {
    let restored = sqlx::query_scalar!(
        r#"UPDATE model_versions SET status = status_before, updated_at = now()
            WHERE id = $1 AND status = 'unavailable' RETURNING status AS "status: VersionStatus""#,
        version.id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let status = restored.unwrap_or(version.status);
    let named = (version.pipeline.as_str(), version.version);
    tell_status(conn, named, (version.status, status), reason, by).await?;
    Ok(status)
}

/// Notes that a warning was given.
pub async fn warned(conn: &mut PgConnection, id: Uuid, days: i32) -> sqlx::Result<()> {
    sqlx::query!("UPDATE model_versions SET warned_days = $2 WHERE id = $1", id, days).execute(conn).await?;
    Ok(())
}

/// Notes the run that is to follow a version that is about to end.
pub async fn followed_by(conn: &mut PgConnection, id: Uuid, run: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE model_versions SET successor_run_id = $2 WHERE id = $1", id, run)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_due_once_and_the_nearest_stands_for_those_before() {
        let due = |days, warned| warning_due(days, warned);
        assert_eq!(due(61, None), None);
        assert_eq!((due(60, None), due(60, Some(60)), due(31, Some(60))), (Some(60), None, None));
        assert_eq!((due(30, Some(60)), due(30, Some(30))), (Some(30), None));
        assert_eq!((due(7, Some(30)), due(0, Some(7)), due(-3, Some(7))), (Some(7), None, None));
        assert_eq!((due(20, None), due(-3, None)), (Some(30), Some(7)));
    }

    #[test]
    fn days_are_counted_by_the_calendar() {
        let date = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(days_left(date("2027-03-01"), date("2027-01-30")), 30);
        assert_eq!(days_left(date("2027-03-01"), date("2027-03-02")), -1);
    }
}
