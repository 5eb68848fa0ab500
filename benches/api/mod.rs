//! The API in this process with an operator's key, for the benches that call it.

use sqlx::PgPool;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tuneloop::api::auth::{Role, create_key};
use tuneloop::api::{self, ApiState};
use tuneloop::audit::Actor;
use tuneloop::clock::Clock;
use tuneloop::dataset::DatasetStore;
use tuneloop::telemetry::metrics::Metrics;

use crate::Result;

/// The API with one key.
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    key: String,
    _datasets: TempDir,
}

impl Api {
    /// Serves it until the process ends.
    pub(crate) async fn start(db: &PgPool) -> Result<Self> {
        let clock = Clock::system();
        let mut tx = db.begin().await?;
        let key = create_key(&mut tx, &clock, "application", Role::Operator, Actor::System).await?.plaintext;
        tx.commit().await?;
        let datasets = tempfile::tempdir()?;
        let store = DatasetStore::local(datasets.path())?;
        let router = api::router(ApiState::new(db.clone(), clock, Metrics::new()?, store, 0)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, url, key, _datasets: datasets })
    }

    /// A request with a JSON body.
    pub(crate) fn post(&self, path: &str, body: String) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key);
        request.header("content-type", "application/json").body(body)
    }
}
