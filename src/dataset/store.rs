//! Where the bytes of datasets are kept, each under its digest.

use std::io::SeekFrom;
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::spool::Spooled;
use super::{DatasetError, Snapshot};

/// A part of an upload; also the size above which an upload has parts.
const CHUNK: usize = 8 << 20;
/// Parts under way at once.
const PARTS: usize = 2;

/// The bytes of datasets, each under its digest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DatasetStore(Arc<dyn ObjectStore>);

/// A line of a stored dataset, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// Where it begins, in bytes.
    pub begin: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl StoredLine {
    /// Where the next line begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64 + 1
    }
}

impl DatasetStore {
    /// A store in a local directory, which is made if it is missing.
    pub fn local(directory: &std::path::Path) -> Result<Self, DatasetError> {
        let unusable = |error: String| DatasetError::Address(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(|error| unusable(error.to_string()))?;
        let store =
            LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
        Ok(Self(Arc::new(store)))
    }

    /// A store in the process's memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    /// Keeps a snapshot. Doing so again changes nothing: the name is the content.
    pub async fn put(&self, snapshot: &Snapshot) -> Result<(), DatasetError> {
        for file in snapshot.files() {
            self.put_file(file).await?;
        }
        Ok(())
    }

    /// A whole file or nothing: an upload that is not completed leaves no object.
    async fn put_file(&self, spooled: &Spooled) -> Result<(), DatasetError> {
        let mut file = tokio::fs::File::from_std(spooled.file.try_clone()?);
        file.seek(SeekFrom::Start(0)).await?;
        let mut upload = BufWriter::with_capacity(self.0.clone(), path(&spooled.part.digest), CHUNK)
            .with_max_concurrency(PARTS);
        let mut chunk = vec![0; 1 << 18];
        let copied = async {
            loop {
                let read = file.read(&mut chunk).await?;
                if read == 0 {
                    return upload.shutdown().await;
                }
                upload.write_all(&chunk[..read]).await?;
            }
        };
        if let Err(error) = copied.await {
            // Parts that were sent are taken back where that is still possible; the first error is the cause.
            let _ = upload.abort().await;
            return Err(DatasetError::Upload(error));
        }
        Ok(())
    }

    /// The bytes of a dataset, checked against its name.
    pub async fn get(&self, digest: &str) -> Result<Vec<u8>, DatasetError> {
        let bytes = self.0.get(&path(digest)).await?.bytes().await?;
        if hex::encode(Sha256::digest(&bytes)) != digest {
            return Err(DatasetError::Altered(digest.to_owned()));
        }
        Ok(bytes.into())
    }

    /// The bytes of a dataset as they come, and how many there are. Ends with an error where they do not fit the name.
    pub async fn stream(
        &self,
        digest: &str,
    ) -> Result<(u64, BoxStream<'static, Result<axum::body::Bytes, DatasetError>>), DatasetError> {
        let object = self.0.get(&path(digest)).await?;
        let size = object.meta.size;
        let (name, mut hash) = (digest.to_owned(), Sha256::new());
        let ended = futures_util::stream::once(async { None });
        let chunks = object.into_stream().map(Some).chain(ended).filter_map(move |chunk| {
            let item = match chunk {
                Some(Ok(bytes)) => {
                    hash.update(&bytes);
                    Some(Ok(bytes))
                }
                Some(Err(error)) => Some(Err(error.into())),
                None if hex::encode(hash.clone().finalize()) == name => None,
                None => Some(Err(DatasetError::Altered(name.clone()))),
            };
            std::future::ready(item)
        });
        Ok((size, chunks.boxed()))
    }

    /// Up to `limit` lines from the one that begins at `offset`.
    pub async fn lines(
        &self,
        digest: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<StoredLine>, DatasetError> {
        let path = path(digest);
        if offset >= self.0.head(&path).await?.size {
            return Ok(Vec::new());
        }
        let options = GetOptions { range: Some(GetRange::Offset(offset)), ..GetOptions::default() };
        let mut chunks = self.0.get_opts(&path, options).await?.into_stream();
        let (mut lines, mut begin, mut pending) = (Vec::new(), offset, Vec::new());
        while lines.len() < limit {
            let Some(chunk) = chunks.next().await.transpose()? else { break };
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                pending.extend_from_slice(piece);
                if pending.last() == Some(&b'\n') && lines.len() < limit {
                    pending.pop();
                    let line = StoredLine { begin, bytes: std::mem::take(&mut pending) };
                    begin = line.end();
                    lines.push(line);
                }
            }
        }
        Ok(lines)
    }
}

fn path(digest: &str) -> Path {
    Path::from(format!("{digest}.jsonl"))
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;
    use crate::dataset::spool::Spool;

    fn spooled(lines: usize, length: usize) -> Spooled {
        let mut spool = Spool::new().unwrap();
        for line in 0..lines {
            let text = format!("{line} {}", "x".repeat(length));
            spool.write(format!("{text}\n").as_bytes()).unwrap();
        }
        spool.finish().unwrap()
    }

    async fn streamed(store: &DatasetStore, digest: &str) -> Result<Vec<u8>, DatasetError> {
        let (size, chunks) = store.stream(digest).await?;
        let bytes = chunks.try_collect::<Vec<_>>().await?.concat();
        assert_eq!(bytes.len() as u64, size);
        Ok(bytes)
    }

    #[tokio::test]
    async fn keeps_bytes_under_their_digest_and_notices_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let store = DatasetStore::local(&directory.path().join("new")).unwrap();
        // None, one chunk, and more than one part.
        for (lines, length) in [(0, 0), (3, 5), (20, 1 << 20)] {
            let kept = spooled(lines, length);
            store.put_file(&kept).await.unwrap();
            store.put_file(&kept).await.unwrap();
            let digest = &kept.part.digest;
            let bytes = store.get(digest).await.unwrap();
            assert_eq!(bytes.len() as u64, kept.part.bytes);
            assert!(streamed(&store, digest).await.unwrap() == bytes);

            let file = directory.path().join("new").join(format!("{digest}.jsonl"));
            std::fs::write(file, b"[]\n").unwrap();
            assert!(matches!(store.get(digest).await, Err(DatasetError::Altered(_))));
            assert!(matches!(streamed(&store, digest).await, Err(DatasetError::Altered(_))));
        }
    }

    #[tokio::test]
    async fn lines_are_read_from_where_the_last_page_ended() {
        let directory = tempfile::tempdir().unwrap();
        let store = DatasetStore::local(directory.path()).unwrap();
        let kept = spooled(7, 50_000);
        store.put_file(&kept).await.unwrap();
        let digest = &kept.part.digest;
        let (mut offset, mut found) = (0, Vec::new());
        loop {
            let page = store.lines(digest, offset, 3).await.unwrap();
            let Some(last) = page.last() else { break };
            offset = last.end();
            found.extend(page.into_iter().flat_map(|line| line.bytes.into_iter().chain([b'\n'])));
        }
        assert!(found == store.get(digest).await.unwrap());
        assert!(store.lines(digest, u64::MAX, 3).await.unwrap().is_empty());
    }
}
