//! The harness that gives every test a database of its own.

use crate::helper::Helper;
use crate::{database, execute, query, wait_until};

#[test]
fn nothing_remains_of_the_harness_when_its_process_ends() {
    let mut helper = Helper::start("harness");
    helper.process.wait().unwrap();
    wait_until("the directory goes", || !helper.data_dir.exists());
    let port = helper.url.split_once("@127.0.0.1:").unwrap().1.split('/').next().unwrap().parse().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn every_test_has_a_migrated_database_of_its_own() {
    let first = database::fresh_database().await;
    let second = database::fresh_database().await;
    assert_ne!(first.url, second.url);
    execute(&first.url, "CREATE TABLE only_here (n bigint)").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('only_here', '_sqlx_migrations')";
    assert_eq!(query(&first.url, tables).await.unwrap(), 2);
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&second.pool).await.unwrap(), 1);

    // The database of a test that has ended goes when the next one begins.
    let url = first.url.clone();
    drop(first);
    database::fresh_database().await;
    assert!(query(&url, "SELECT 1::bigint").await.is_err());
}

#[test]
fn the_harness_serves_tests_whose_runtimes_end() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let database = database::fresh_database().await;
                    let one =
                        sqlx::query_scalar::<_, i64>("SELECT 1::bigint").fetch_one(&database.pool).await;
                    assert_eq!(one.unwrap(), 1);
                });
            });
        }
    });
}
