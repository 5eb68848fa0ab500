//! Posts go into the table that pipelines read.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::post::Post;

/// Rows per statement.
const BATCH: usize = 1_000;

/// Inserts all posts in one transaction.
pub(super) async fn load(db: &PgPool, posts: &[Post]) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    for batch in posts.chunks(BATCH) {
        let column = |text: fn(&Post) -> &str| -> Vec<&str> { batch.iter().map(text).collect() };
        let personas: Vec<Option<&str>> = batch.iter().map(|post| post.persona_id.as_deref()).collect();
        let rates: Vec<Option<f64>> = batch.iter().map(|post| post.engagement_rate).collect();
        let times: Vec<DateTime<Utc>> = batch.iter().map(|post| post.created_at).collect();
        sqlx::query!(
            "INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate, created_at)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[],
                    $6::timestamptz[])",
            &personas as &[Option<&str>],
            &column(|post| &post.original_input) as &[&str],
            &column(|post| &post.hook) as &[&str],
            &column(|post| &post.body) as &[&str],
            &rates as &[Option<f64>],
            &times,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}
