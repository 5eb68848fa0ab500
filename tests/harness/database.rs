//! A database for every test: one private cluster per test process, a template that is migrated once, and a
//! copy of it for each test.
//!
//! The cluster lives in a static, whose destructor never runs. Its watchdog stops the server and removes the
//! directory when the process ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::{Mutex, OnceCell};
use tuneloop::embedded::{Cluster, Options};

const TEMPLATE: &str = "tuneloop_template";

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// A template is copied for one test at a time: PostgreSQL allows no other session on it meanwhile.
static COPYING: Mutex<()> = Mutex::const_new(());

/// Databases whose tests have ended, to be dropped by the next test.
static ENDED: StdMutex<Vec<String>> = StdMutex::new(Vec::new());

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A migrated, empty database that one test alone uses.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    /// With user and password, for processes that the test starts.
    pub(crate) url: String,
    /// Connections that end with the test's runtime.
    pub(crate) pool: PgPool,
    name: String,
}

/// A database of this test's own. The first call of the process starts the cluster.
pub(crate) async fn fresh_database() -> TestDatabase {
    let cluster = cluster().await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    {
        let _alone = COPYING.lock().await;
        let mut admin = PgConnection::connect(&cluster.url("postgres")).await.expect("connects as admin");
        let ended = std::mem::take(&mut *ENDED.lock().unwrap_or_else(PoisonError::into_inner));
        for old in ended {
            // FORCE ends sessions of processes that outlive their test.
            run(&mut admin, format!("DROP DATABASE {old} WITH (FORCE)")).await;
        }
        run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        admin.close().await.expect("closes");
    }
    let url = cluster.url(&name);
    let pool = PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(30))
        .connect(&url)
        .await
        .expect("connects to the test's database");
    TestDatabase { url, pool, name }
}

/// The cluster of this process, with its template ready.
pub(crate) async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            let binaries = std::env::var_os("TUNELOOP_POSTGRES_BIN").map(Into::into);
            let cluster = Cluster::start(Options { binaries, fast: true, ..Options::default() })
                .await
                .unwrap_or_else(|error| panic!("the tests need PostgreSQL: {error}"));
            cluster.create_database(TEMPLATE).await.expect("creates the template");
            let mut template = PgConnection::connect(&cluster.url(TEMPLATE)).await.expect("connects");
            sqlx::migrate!().run(&mut template).await.expect("migrates the template");
            template.close().await.expect("closes");
            // A stray session on the template would block every test.
            let mut admin = PgConnection::connect(&cluster.url("postgres")).await.expect("connects");
            run(&mut admin, format!("ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")).await;
            admin.close().await.expect("closes");
            cluster
        })
        .await
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        ENDED.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.name));
    }
}
