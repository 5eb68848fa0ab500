//! A place that can be read: what tells a ConfigMap and a file apart from the way they are kept.

use super::PublishError;
use super::payload::{Content, Payload};

/// Where the published content stands and can be read again.
pub(super) trait Place: Sync {
    /// What is needed to write there only if nobody else has since the reading.
    type Held: Send + Sync;

    /// What should stand there.
    fn wanted(&self, payload: &Payload) -> Content;

    /// Reads what stands there, empty where there is nothing.
    fn read(&self) -> impl Future<Output = Result<Found<Self::Held>, PublishError>> + Send;

    /// Writes, unless somebody else has written there since it was read. Where others have a say, as owners of fields or by
    /// having written `foreign` content, it is `overridden` or told.
    fn write(
        &self,
        found: &Found<Self::Held>,
        wanted: &Content,
        how: Writing,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Reads again what was just written.
    fn read_back(&self) -> impl Future<Output = Result<Content, PublishError>> + Send;
}

/// What was read.
#[derive(Debug)]
pub(super) struct Found<Held> {
    pub(super) content: Content,
    /// Who changed it last, where the place knows.
    pub(super) changed_by: Option<String>,
    pub(super) held: Held,
}

/// How to deal with what others wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    /// What stands there is not from here.
    pub(super) foreign: bool,
    /// It may be written over.
    pub(super) overridden: bool,
}
