//! Where the demo's posts come from: made up from a seed, or the user's own file.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};

use super::csv::{self, PostsError};
use super::plan;
use super::post::{Post, shift_to};
use super::posts;
use crate::experiments::decision::thousands;

/// Posts whose newest is now.
pub(super) struct Prepared {
    pub(super) posts: Vec<Post>,
    /// A look-back that covers them, where they are the user's own.
    pub(super) lookback: TimeDelta,
    /// What was done, for the screen.
    pub(super) told: String,
}

/// Makes posts up.
pub(super) fn generated(seed: u64, now: DateTime<Utc>) -> Prepared {
    let posts = posts::generate(seed, now);
    let told = format!(
        "{} made up from seed {seed}, of the last {} days",
        thousands(posts.len() as u64),
        posts::DAYS
    );
    Prepared { posts, lookback: plan::usual_lookback(), told }
}

/// Reads the user's file and moves its times to now.
pub(super) async fn own(file: PathBuf, now: DateTime<Utc>) -> Result<Prepared, PostsError> {
    let name = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || csv::read(&file)).await;
    let mut posts = read.map_err(|error| PostsError::Read { file: name.clone(), source: error.into() })??;
    let shift = shift_to(&mut posts, now).ok_or_else(|| PostsError::Times { file: name.clone() })?;
    let lookback = plan::lookback(shift.span);
    let told = format!(
        "{} from {name}; all times were moved by {} so that the newest post is now{}",
        thousands(posts.len() as u64),
        days(shift.by),
        widened(shift.span, lookback),
    );
    Ok(Prepared { posts, lookback, told })
}

/// What became of the look-back.
fn widened(span: TimeDelta, lookback: TimeDelta) -> String {
    let (usual, wide) = (plan::usual_lookback().num_days(), lookback.num_days());
    if lookback == plan::usual_lookback() {
        format!(", and the usual look-back of {usual} days covers them")
    } else if span <= lookback {
        format!(", and the look-back was widened from {usual} to {wide} days to cover them")
    } else {
        format!(", and the look-back was widened from {usual} to {wide} days, the most a pipeline takes")
    }
}

fn days(by: TimeDelta) -> String {
    let sign = if by < TimeDelta::zero() { "-" } else { "+" };
    match by.num_days().unsigned_abs() {
        0 => "less than a day".into(),
        1 => format!("{sign}1 day"),
        days => format!("{sign}{} days", thousands(days)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_users_posts_are_moved_and_covered_and_that_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("posts.csv");
        let row = |time: &str| format!("a,b,c,0.07,{time}\n");
        let text = format!(
            "original_input,hook,body,engagement_rate,created_at\n{}{}",
            row("2020-01-01T00:00:00Z"),
            row("2020-03-01T00:00:00Z")
        );
        std::fs::write(&file, text).unwrap();
        let now = DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z").unwrap().to_utc();
        let prepared = own(file, now).await.unwrap();
        assert_eq!(prepared.posts[1].created_at, now);
        assert_eq!(prepared.posts[0].created_at, now - TimeDelta::days(60));
        assert_eq!(prepared.lookback, TimeDelta::days(62));
        assert!(prepared.told.starts_with("2 from "), "{}", prepared.told);
        assert!(prepared.told.contains("moved by +2,191 days"), "{}", prepared.told);
        assert!(prepared.told.ends_with("widened from 7 to 62 days to cover them"), "{}", prepared.told);
    }

    #[test]
    fn the_look_back_is_told_as_it_is() {
        let told = |span| widened(span, plan::lookback(span));
        assert!(told(TimeDelta::days(2)).contains("usual look-back of 7 days"));
        assert!(told(TimeDelta::days(9_000)).contains("3650 days, the most"));
        assert_eq!(days(TimeDelta::days(-1)), "-1 day");
        assert_eq!(days(TimeDelta::hours(5)), "less than a day");
    }
}
