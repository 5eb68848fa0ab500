//! A post as the table `posts` holds it, and how far back posts reach.

use chrono::{DateTime, TimeDelta, Utc};

/// A row of the table `posts`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Post {
    pub(super) persona_id: Option<String>,
    pub(super) original_input: String,
    pub(super) hook: String,
    pub(super) body: String,
    /// Engagements per impression; `None` where it is not known.
    pub(super) engagement_rate: Option<f64>,
    pub(super) created_at: DateTime<Utc>,
}

/// What was done to the times of posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    /// How far they were moved; backwards where it is negative.
    pub(super) by: TimeDelta,
    /// From the oldest post to the newest.
    pub(super) span: TimeDelta,
}

/// Moves the times of posts so that the newest is `now`. `None` where there are no posts, or a time would
/// leave the calendar; then some may have been moved.
pub(super) fn shift_to(posts: &mut [Post], now: DateTime<Utc>) -> Option<Shift> {
    let newest = posts.iter().map(|post| post.created_at).max()?;
    let oldest = posts.iter().map(|post| post.created_at).min()?;
    let by = now - newest;
    for post in posts {
        post.created_at = post.created_at.checked_add_signed(by)?;
    }
    Some(Shift { by, span: newest - oldest })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::demo) fn post(day: i64) -> Post {
        Post {
            persona_id: None,
            original_input: String::new(),
            hook: "a hook".into(),
            body: "a body".into(),
            engagement_rate: Some(0.07),
            created_at: at(day),
        }
    }

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    #[test]
    fn the_newest_post_becomes_now_and_distances_stay() {
        let mut posts = [post(10), post(40), post(12)];
        let shift = shift_to(&mut posts, at(1_000)).unwrap();
        assert_eq!(shift, Shift { by: TimeDelta::days(960), span: TimeDelta::days(30) });
        assert_eq!(posts.map(|post| post.created_at), [at(970), at(1_000), at(972)]);
    }

    #[test]
    fn posts_of_the_future_move_backwards() {
        let mut posts = [post(10), post(40)];
        assert_eq!(shift_to(&mut posts, at(20)).unwrap().by, TimeDelta::days(-20));
        assert_eq!(posts.map(|post| post.created_at), [at(-10), at(20)]);
        assert_eq!(shift_to(&mut [], at(20)), None);
    }
}
