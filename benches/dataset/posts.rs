//! Posts that are made up, the same ones every time.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tuneloop::embedded::Cluster;

use crate::Result;

/// Words that most posts are made of; the others are made up.
const WORDS: &str = "the of and to in is you that it he was for on are with as his they be at one have this from or had by but not what all were \
    we when your can said there use an each which she do how their if will up other about out many then them these so some her would make like \
    him into time has look two more write go see number no way could people my than first water been call who its now find long down day did get \
    come made may part story world morning coffee reason";

/// A database with so many posts of 5,000 personas: a third has HTML, one in ten a number, one in fifty an e-mail address, one in twenty
/// says what another one says. All are of this week and at or above the threshold.
pub(crate) async fn table(cluster: &Cluster, name: &str, rows: u32) -> Result<String> {
    cluster.create_database(name).await?;
    let url = cluster.url(name);
    let pool = tuneloop::database::connect(&url, 2).await?;
    tuneloop::database::migrate(&pool).await?;
    pool.close().await;
    let mut connection = PgConnection::connect(&url).await?;
    // hashint4 and hashtext are the same on every machine; random() would not be.
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let (words, count) = (words.join(" "), words.len());
    let fill = format!(
        "CREATE FUNCTION word(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS
            $$ SELECT CASE WHEN abs(hashint4(n)) % 10 < 8
                    THEN (string_to_array('{words}', ' '))[1 + abs(hashint4(n + 3)) % {count}]
                    ELSE substr(translate(md5((abs(hashint4(n)) % 5000)::text), '0123456789', 'aeioulnrst'), 1, 3 + abs(hashint4(n + 7)) % 8) END $$;
         CREATE FUNCTION words(n integer, count integer) RETURNS text LANGUAGE sql IMMUTABLE AS
            $$ SELECT string_agg(word(n * 31 + i), ' ') FROM generate_series(1, count) AS i $$;
         INSERT INTO posts (persona_id, original_input, hook, body, engagement_rate, created_at)
         SELECT 'persona-' || abs(hashint4(said)) % 5000, words(said, 4 + abs(hashint4(said + 1)) % 8),
                CASE WHEN n % 3 = 0 THEN '<p>' || words(said + 1, 8 + abs(hashint4(said + 2)) % 16) || ' &amp; more</p>'
                     ELSE words(said + 1, 8 + abs(hashint4(said + 2)) % 16) END
                  || CASE WHEN n % 10 = 3 THEN ' in ' || 1990 + n % 40 ELSE '' END
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
