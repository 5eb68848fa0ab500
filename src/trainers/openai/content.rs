//! The content of an upload, watched for an error of its own.

use std::io;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, TryStreamExt};

/// Remembers the error that a content ended in. Over HTTP/2 the client's own error does not tell it from an
/// abort of the provider's.
#[derive(Debug, Clone, Default)]
pub(super) struct ContentFault(Arc<OnceLock<String>>);

impl ContentFault {
    /// The content, whose first error is remembered here.
    pub(super) fn watch(
        &self,
        content: BoxStream<'static, io::Result<Bytes>>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let fault = Arc::clone(&self.0);
        content.inspect_err(move |error| {
            fault.get_or_init(|| error.to_string().trim_end_matches('.').to_owned());
        })
    }

    /// The error, where there was one.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}
