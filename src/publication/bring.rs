//! Brings a place that can be read to the newest revision, and finds out whether somebody has changed it.

use sqlx::PgPool;

use super::PublishError;
use super::job::Attempt;
use super::payload::{Content, Payload};
use super::place::{Found, Place, Writing};
use super::store::{self, Published};
use crate::halt;
use crate::traffic;

/// How often it is looked at anew when others write at the same time.
const LOOKS: usize = 5;

/// What a look at a place led to.
pub(super) struct Brought {
    /// What should stand there.
    pub(super) payload: Payload,
    /// Whether it does. Otherwise somebody changed it and correcting that is not configured.
    pub(super) in_place: bool,
    /// Whether a publication was recorded.
    pub(super) recorded: bool,
}

/// Looks at the place and writes where that is due.
pub(super) async fn bring<P: Place>(attempt: &Attempt<'_>, place: &P) -> Result<Brought, PublishError> {
    let mut noted = attempt.state.drift_digest.clone();
    for _ in 0..LOOKS {
        match look(attempt, place, &mut noted).await {
            Err(PublishError::Overtaken) => tracing::debug!("somebody else wrote there; looking anew"),
            brought => return brought,
        }
    }
    Err(PublishError::failed(format!(
        "{} was changed by others each of the {LOOKS} times that it was about to be written",
        attempt.state.place
    )))
}

/// `noted` is the digest of the change by somebody else that was told last.
async fn look<P: Place>(
    attempt: &Attempt<'_>,
    place: &P,
    noted: &mut Option<String>,
) -> Result<Brought, PublishError> {
    let found = place.read().await?;
    halt::point("publish", "read");
    // After the reading: what a worker wrote there before it is not newer than this.
    let payload = newest(attempt.db, &attempt.state.pipeline).await?;
    let wanted = place.wanted(&payload);
    let look = Look { attempt, place, found, payload, wanted };
    let published_before = attempt.state.published_revision == Some(look.payload.revision)
        && attempt.state.digest.as_deref() == Some(&look.wanted.digest());
    if look.found.content == look.wanted {
        if !published_before {
            look.record(None).await?;
        }
        return Ok(Brought { payload: look.payload, in_place: true, recorded: !published_before });
    }
    let ours = look.is_ours().await?;
    let drift = look.drift(ours);
    if let Some(drift) = &drift {
        look.note(drift, noted).await?;
        let asked = attempt.state.answered < attempt.state.requests;
        if published_before && !attempt.settings.correct_drift && !asked {
            return Ok(Brought { payload: look.payload, in_place: false, recorded: false });
        }
    }
    look.refuse_newer()?;
    look.write(ours, drift.as_deref()).await?;
    Ok(Brought { payload: look.payload, in_place: true, recorded: true })
}

/// The newest revision.
pub(super) async fn newest(db: &PgPool, pipeline: &str) -> Result<Payload, PublishError> {
    let mut conn = db.acquire().await?;
    let revision = traffic::current(&mut conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?;
    Payload::new(&revision)
}

struct Look<'a, P: Place> {
    attempt: &'a Attempt<'a>,
    place: &'a P,
    found: Found<P::Held>,
    payload: Payload,
    wanted: Content,
}

impl<P: Place> Look<'_, P> {
    /// An older revision never takes the place of a newer one, and one pipeline's never that of another.
    fn refuse_newer(&self) -> Result<(), PublishError> {
        let Some((pipeline, revision)) = self.found.content.label() else { return Ok(()) };
        let place = &self.attempt.state.place;
        if pipeline != self.payload.pipeline {
            return Err(PublishError::failed(format!(
                "{place} holds the traffic of the pipeline {pipeline}; give each pipeline a place of its own"
            )));
        }
        if revision > self.payload.revision {
            return Err(PublishError::failed(format!(
                "{place} holds revision {revision}, which is newer than {}, the newest that this service knows; delete what \
                 stands there if this service is the one to trust",
                self.payload.revision
            )));
        }
        Ok(())
    }

    /// Whether what was found is what this service writes of some revision: what was published last, or what a worker wrote
    /// that was killed before it could say so.
    async fn is_ours(&self) -> Result<bool, PublishError> {
        let content = &self.found.content;
        if Some(content.digest()) == self.attempt.state.digest {
            return Ok(true);
        }
        let Some((_, revision)) = content.label() else { return Ok(false) };
        let mut conn = self.attempt.db.acquire().await?;
        let below = revision.saturating_add(1);
        let written = traffic::history(&mut conn, &self.payload.pipeline, Some(below), 1).await?.pop();
        let Some(written) = written.filter(|written| written.revision == revision) else { return Ok(false) };
        Ok(self.place.wanted(&Payload::new(&written)?) == *content)
    }

    /// How somebody changed what was published last, if anybody did.
    fn drift(&self, ours: bool) -> Option<String> {
        let (state, content) = (&self.attempt.state, &self.found.content);
        let published = state.published_revision?;
        let written_since = ours && content.label().is_some_and(|(_, found)| found > published);
        if Some(content.digest()) == state.digest || written_since {
            return None;
        }
        let by = self.found.changed_by.as_deref().filter(|_| !content.is_empty());
        let by = by.map(|by| format!(" (changed last by {by})")).unwrap_or_default();
        Some(format!("{}{by}", content.difference(&self.wanted)))
    }

    /// Counts and tells a change that was not known.
    async fn note(&self, drift: &str, noted: &mut Option<String>) -> Result<(), PublishError> {
        let (attempt, state) = (self.attempt, &self.attempt.state);
        let digest = self.found.content.digest();
        if noted.as_ref() == Some(&digest) {
            return Ok(());
        }
        let mut tx = attempt.db.begin().await?;
        store::drifted(&mut tx, state, drift, &digest).await?;
        attempt.lease.fence(&mut tx).await?;
        tx.commit().await?;
        *noted = Some(digest);
        attempt.metrics.drifted(&state.pipeline, &state.target);
        tracing::warn!(drift, place = state.place, "somebody changed what was published");
        Ok(())
    }

    /// Writes, reads back, and only then records that it is published.
    async fn write(&self, ours: bool, drift: Option<&str>) -> Result<(), PublishError> {
        // A person who asks for it has seen what stands there.
        let overridden =
            self.attempt.settings.correct_drift || self.attempt.state.answered < self.attempt.state.requests;
        let foreign = !ours && !self.found.content.is_empty();
        self.attempt.lease.check_deadline()?;
        halt::point("publish", "writing");
        self.place.write(&self.found, &self.wanted, Writing { foreign, overridden }).await?;
        halt::point("publish", "written");
        let back = self.place.read_back().await?;
        if back != self.wanted {
            return Err(PublishError::failed(format!(
                "what was read back from {} is not what was written: {}",
                self.attempt.state.place,
                back.difference(&self.wanted)
            )));
        }
        self.record(drift).await
    }

    async fn record(&self, corrected: Option<&str>) -> Result<(), PublishError> {
        // A newer revision is no mere correction.
        let same = self.attempt.state.published_revision == Some(self.payload.revision);
        let (digest, corrected) = (self.wanted.digest(), corrected.filter(|_| same));
        let published = Published { revision: self.payload.revision, digest: &digest, corrected };
        self.attempt.record(&published).await
    }
}
