//! `tuneloop demo`: the whole way of a model in half a minute, with nothing configured.
//!
//! A private Postgres, a simulated provider, the service and simulated readers run in one process. Everything
//! after the posts are in their table goes through the service's own REST API, as an application and its
//! operator would do it. Provider and readers are simulated; the service, its statistics and its clock are not.

mod answers;
mod chance;
mod client;
mod csv;
mod error;
mod follow;
mod load;
mod plan;
mod post;
mod posts;
mod readers;
mod screen;
mod sources;
mod stack;
mod summary;
mod traffic;
mod words;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answers::{PipelineAnswer, RunAnswer};
use self::client::Client;
use self::error::DemoError;
pub use self::error::DemoFailed;
pub use self::plan::{Candidate, DemoPipeline};
use self::readers::Readers;
use self::screen::{Screen, Style};
use self::sources::Prepared;
use self::stack::Stack;
use self::summary::Summary;
use self::traffic::Traffic;
use crate::api::auth::{Role, create_key};
use crate::audit::Actor;
use crate::clock::Clock;
use crate::config::Secret;
use crate::database;
use crate::embedded::{Cluster, Options};

/// Connections to the private database.
const CONNECTIONS: u32 = 20;

/// What the demo can be told.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// The pipeline that is shown.
    pub pipeline: DemoPipeline,
    /// What the simulation makes of the candidate.
    pub candidate: Candidate,
    /// The user's own posts; made up where absent.
    pub posts: Option<PathBuf>,
    /// What made-up posts and readers come from.
    pub seed: u64,
    /// Where the API listens if it can.
    pub listen: SocketAddr,
    /// Where database and datasets are kept; a temporary directory where absent.
    pub data_dir: Option<PathBuf>,
    /// The folder of Postgres' programs; searched for where absent.
    pub postgres_bin: Option<PathBuf>,
    /// End with the verdict of the run.
    pub exit: bool,
    /// Show every event with its figures.
    pub verbose: bool,
}

/// Runs the demo until `stop` or, if it is to exit, until its run has reached a verdict. Everything it has
/// started has ended when it returns.
///
/// # Errors
///
/// When something cannot be started, or goes wrong; and where it is to exit, when the run reached no verdict or, with a
/// worse candidate, when its harm was not found.
pub async fn run(settings: DemoSettings, stop: CancellationToken) -> Result<(), DemoFailed> {
    let mut demo = Demo { screen: Screen::stdout(settings.verbose), clock: Clock::system(), settings, stop };
    Ok(demo.run().await?)
}

struct Demo {
    settings: DemoSettings,
    stop: CancellationToken,
    screen: Screen,
    clock: Clock,
}

impl Demo {
    async fn run(&mut self) -> Result<(), DemoError> {
        self.introduce()?;
        let prepared = self.posts().await?;
        let stop = self.stop.clone();

        self.screen.doing("starting a private Postgres")?;
        let options = Options {
            data_dir: self.settings.data_dir.as_ref().map(|directory| directory.join("postgres")),
            binaries: self.settings.postgres_bin.clone(),
            ..Options::default()
        };
        let Some(cluster) = stop.run_until_cancelled(Cluster::start(options)).await else {
            return self.stopped();
        };
        let cluster = cluster?;
        let outcome = self.on(&cluster, prepared).await;
        // Stopped also where the screen is gone.
        let told = self.screen.doing("stopping Postgres");
        cluster.stop().await?;
        self.screen.erase()?;
        told?;
        outcome
    }

    fn introduce(&mut self) -> Result<(), DemoError> {
        let screen = &mut self.screen;
        screen.heading("tuneloop demo")?;
        screen.paragraph(
            "Simulated: the provider that trains, and the readers whose engagement is measured. Nothing leaves \
             this machine, and nothing is paid for.",
        )?;
        screen.paragraph(&format!(
            "Short: the test takes {} s and the watch {} s, in place of 168 hours each by default. These are \
             settings of the pipeline; the clock is the real one.",
            plan::TEST_SECONDS,
            plan::WATCH_SECONDS
        ))?;
        screen.paragraph(&format!(
            "Larger: the candidate gets {} % of the traffic, in place of 10 % by default, so that seconds \
             bring enough outcomes. The simulation makes it {} % {}; the test does not know that.",
            plan::CANDIDATE_WEIGHT / 100,
            self.settings.candidate.effect().abs() * 100.0,
            match self.settings.candidate {
                Candidate::Better => "better",
                Candidate::Worse => "worse",
            }
        ))?;
        if self.settings.candidate == Candidate::Worse {
            screen.paragraph(
                "To be seen: the test stops for harm before its time or, where harm is found later, the watch rolls \
                 back; either way the former model serves everything again.",
            )?;
        }
        Ok(screen.line("")?)
    }

    /// Read before anything is started, because a file that cannot be used is told best at once.
    async fn posts(&mut self) -> Result<Prepared, DemoError> {
        let now = self.clock.now();
        let prepared = match &self.settings.posts {
            Some(file) => sources::own(file.clone(), now).await?,
            None => sources::generated(self.settings.seed, now),
        };
        self.screen.fact("Posts", &prepared.told, Style::Plain)?;
        Ok(prepared)
    }

    /// The demo on a running cluster; it has ended when this returns.
    async fn on(&mut self, cluster: &Cluster, prepared: Prepared) -> Result<(), DemoError> {
        let database = self.database_name();
        cluster.create_database(&database).await?;
        let db = database::connect(&cluster.url(&database), CONNECTIONS).await?;
        database::migrate(&db).await?;
        let kept = match &self.settings.data_dir {
            Some(directory) => format!("database {database}, kept in {}", directory.display()),
            None => "private and temporary".to_owned(),
        };
        self.screen.fact("Postgres", &format!("{}, {kept}", cluster.version()), Style::Plain)?;
        let outcome = self.on_database(cluster, &db, prepared).await;
        db.close().await;
        outcome
    }

    /// A kept cluster gets a new database each time, so that every demo begins with nothing.
    fn database_name(&self) -> String {
        let suffix = hex::encode(self.clock.bytes::<2>());
        format!("demo_{}_{suffix}", self.clock.now().format("%Y%m%d_%H%M%S"))
    }

    async fn on_database(
        &mut self,
        cluster: &Cluster,
        db: &PgPool,
        prepared: Prepared,
    ) -> Result<(), DemoError> {
        load::load(db, &prepared.posts).await?;
        let datasets = datasets(self.settings.data_dir.as_deref(), cluster).map_err(DemoError::Datasets)?;
        let (listener, address) = self.listen().await?;
        let mut stack = Stack::start(db.clone(), self.clock.clone(), &datasets, listener).await?;
        self.screen.fact("Provider", &format!("{}, simulated", stack.provider), Style::Plain)?;

        let key = self.create_key(db).await?;
        let base = format!("http://{address}");
        let client = Client::new(base.clone(), Secret::new(&key))?;
        let pipeline = self.settings.pipeline;
        let readers = Readers::new(self.settings.seed, self.settings.candidate);
        let traffic = Traffic::new(client.clone(), pipeline.name(), self.clock.clone(), readers);
        let (stop, flow) = (self.stop.clone(), Flow::default());
        let outcome = tokio::select! {
            outcome = self.show(&client, &key, &base, prepared, traffic, &flow) => outcome,
            () = stop.cancelled() => self.stopped(),
            error = stack.ended() => Err(error),
            error = cluster.ended() => Err(error.into()),
        };
        // First, so that nobody asks a service that no longer answers.
        flow.end().await;
        outcome.and(stack.stop().await)
    }

    /// The API's listener and how this machine reaches it.
    async fn listen(&mut self) -> Result<(TcpListener, SocketAddr), DemoError> {
        let wanted = self.settings.listen;
        let failed = |source| DemoError::Listen { address: wanted, source };
        let listener = stack::listen(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let moved = if wanted.port() == 0 || wanted.port() == address.port() {
            String::new()
        } else {
            format!(" (port {} is taken)", wanted.port())
        };
        let address = stack::reachable(address);
        self.screen.fact("API", &format!("http://{address}{moved}"), Style::Plain)?;
        Ok((listener, address))
    }

    async fn create_key(&self, db: &PgPool) -> Result<String, DemoError> {
        let mut conn = db.acquire().await?;
        let key = create_key(&mut conn, &self.clock, "demo", Role::Admin, Actor::System).await?;
        Ok(key.plaintext)
    }

    /// Triggers a run, follows it to its end and sums up, while traffic flows. Then goes on serving, unless the
    /// demo is to exit.
    async fn show(
        &mut self,
        client: &Client,
        key: &str,
        base: &str,
        prepared: Prepared,
        traffic: Traffic,
        flow: &Flow,
    ) -> Result<(), DemoError> {
        let pipeline = self.settings.pipeline;
        let path = format!("/v1/pipelines/{}", pipeline.name());
        let config = plan::config(pipeline, prepared.lookback);
        let before: PipelineAnswer = client.put(&path, &config).await?;

        let tally = traffic.tally();
        flow.begin(traffic);

        let run: RunAnswer = client.post(&format!("{path}/runs"), None::<&()>).await?;
        self.screen.heading(&format!("Run {} of the pipeline {}", run.id, pipeline.name()))?;
        let run = follow::follow(client, run.id, &tally, &mut self.screen).await?;
        let now: PipelineAnswer = client.get(&path).await?;
        let summary = Summary {
            pipeline,
            settings: &config.dataset,
            run: &run,
            before: &before.live,
            now: &now.live,
            tally: &tally,
        };
        summary.show(&mut self.screen)?;

        if !self.settings.exit {
            self.screen.line("")?;
            self.screen.fact("Swagger UI", &format!("{base}/docs"), Style::Strong)?;
            self.screen.fact("API key", key, Style::Strong)?;
            self.screen.line("")?;
            self.screen.paragraph(
                "Serving until Ctrl-C, with a little simulated traffic. In Swagger UI, choose Authorize and \
                 give the key.",
            )?;
            std::future::pending::<()>().await;
        }
        match self.settings.candidate {
            _ if !run.reached_verdict() => Err(DemoError::NoVerdict(summary::outcome(&run))),
            Candidate::Worse if run.harm().is_none() => Err(DemoError::HarmNotFound(summary::outcome(&run))),
            Candidate::Better | Candidate::Worse => Ok(()),
        }
    }

    /// The end that was asked for from outside: all right, unless the demo was to exit with a verdict.
    fn stopped(&mut self) -> Result<(), DemoError> {
        self.screen.erase()?;
        if self.settings.exit {
            return Err(DemoError::Stopped);
        }
        Ok(self.screen.line("Stopping.")?)
    }
}

/// The traffic while it flows.
#[derive(Default)]
struct Flow {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Flow {
    fn begin(&self, traffic: Traffic) {
        self.tasks.spawn(traffic.run(self.stop.clone()));
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Where datasets are kept: beside a kept cluster, else inside the temporary one, which is removed even when
/// this process is killed.
fn datasets(data_dir: Option<&Path>, cluster: &Cluster) -> io::Result<PathBuf> {
    if let Some(directory) = data_dir {
        return Ok(directory.join("datasets"));
    }
    let directory = cluster.data_dir().join("datasets");
    fs::create_dir(&directory)?;
    // What removes the cluster runs as the account that the cluster belongs to.
    let owner = fs::metadata(cluster.data_dir())?;
    chown(&directory, Some(owner.uid()), Some(owner.gid()))?;
    Ok(directory)
}
