//! When to look at the table again: at once on a notification, when the next job is due, or at the next poll.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::CHANNEL;

const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// `NOTIFY` wakes at once; polling guarantees that nothing is missed when a notification is.
pub(super) struct Wakeups {
    db: PgPool,
    poll_interval: Duration,
    listener: Option<PgListener>,
    /// Notified when a job of this worker became ready again: nobody else tells of it.
    nudge: Arc<Notify>,
}

impl Wakeups {
    pub(super) fn new(db: PgPool, poll_interval: Duration, nudge: Arc<Notify>) -> Self {
        Self { db, poll_interval, listener: None, nudge }
    }

    /// Listens, if it does not already. Without the connection, polling alone goes on.
    pub(super) async fn subscribe(&mut self) {
        if self.listener.is_some() {
            return;
        }
        let listening = async {
            let mut listener = PgListener::connect_with(&self.db).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match listening.await {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => tracing::warn!(%error, "cannot listen for new jobs; polling alone for now"),
        }
    }

    /// Waits until a job may be due: at most one poll interval, or `due`.
    pub(super) async fn wait(&mut self, due: Option<Duration>, shutdown: &CancellationToken) {
        self.subscribe().await;
        // A job can be due and still not be had, while another worker is claiming it: no spinning then.
        let wait = due.unwrap_or(self.poll_interval).max(SHORTEST_WAIT).min(self.poll_interval);
        let Some(listener) = &mut self.listener else { return self.pause(shutdown).await };
        let lost = tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(wait) => false,
            () = self.nudge.notified() => false,
            // `None` is a new connection in place of one that broke: it is time to look, because what was
            // announced in between is lost.
            notification = listener.try_recv() => notification.is_err(),
        };
        // One look answers all that arrived so far.
        while listener.next_buffered().is_some() {}
        if lost {
            self.listener = None;
            self.pause(shutdown).await;
        }
    }

    /// Waits for the next poll.
    pub(super) async fn pause(&self, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(self.poll_interval) => {}
        }
    }
}
