//! Connections that come back to the pool.

use std::time::Duration;

use sqlx::Row;
use tuneloop::database;

use crate::harness::database::fresh_database;

#[tokio::test]
async fn a_begin_that_is_given_up_leaves_no_transaction_behind() {
    let fresh = fresh_database().await;
    let pool = database::connect(&fresh.url, 1).await.unwrap();
    let mut given_up = 0;
    for microseconds in (0..2_000).step_by(10) {
        let begun = tokio::time::timeout(Duration::from_micros(microseconds), pool.begin()).await;
        given_up += u32::from(begun.is_err());
        drop(begun);
        // Outside of a transaction the two times of a simple query are the same.
        let times = "SELECT now() = statement_timestamp()";
        let row = sqlx::raw_sql(times).fetch_one(&pool).await.unwrap();
        assert!(row.get::<bool, _>(0), "a transaction is open after {microseconds} µs");
    }
    assert!(given_up > 0, "none was given up");
}
