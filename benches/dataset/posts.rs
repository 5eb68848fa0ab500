//! Posts that are made up, the same ones every time.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tuneloop::embedded::Cluster;

use crate::Result;

/// A database with so many posts of 5,000 personas, made of 2,000 words: a third has HTML, one in fifty an e-mail address, one in twenty
/// says what another one says. All are of this week and at or above the threshold.
pub(crate) async fn table(cluster: &Cluster, name: &str, rows: u32) -> Result<String> {
    cluster.create_database(name).await?;
    let url = cluster.url(name);
    let pool = tuneloop::database::connect(&url, 2).await?;
    tuneloop::database::migrate(&pool).await?;
    pool.close().await;
    let mut connection = PgConnection::connect(&url).await?;
    // hashint4 and hashtext are the same on every machine; random() would not be.
    let fill = format!(
        "CREATE FUNCTION word(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS
            $$ SELECT substr(md5(abs(hashint4(n) % 2000)::text), 1, 3 + abs(hashint4(n + 7)) % 8) $$;
         CREATE FUNCTION words(n integer, count integer) RETURNS text LANGUAGE sql IMMUTABLE AS
            $$ SELECT string_agg(word(n * 31 + i), ' ') FROM generate_series(1, count) AS i $$;
         INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate, created_at)
         SELECT 'persona-' || abs(hashint4(said)) % 5000, words(said, 4 + abs(hashint4(said + 1)) % 8),
                CASE WHEN n % 3 = 0 THEN '<p>' || words(said + 1, 6 + abs(hashint4(said + 2)) % 12) || ' &amp; more</p>'
                     ELSE words(said + 1, 6 + abs(hashint4(said + 2)) % 12) END
                  || CASE WHEN n % 50 = 0 THEN ' write to someone' || n || '@example.org' ELSE '' END,
                NULL, 0.06 + (abs(hashint4(n)) % 100000) / 200000.0, now() - (n % 86400) * interval '1 second'
           FROM (SELECT n, CASE WHEN n % 20 = 0 THEN n - 1 ELSE n END AS said FROM generate_series(1, {rows}) AS n) AS numbered;
         VACUUM ANALYZE posts"
    );
    for statement in fill.split_inclusive(";\n") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    }
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
    connection.close().await?;
    Ok(url)
}
