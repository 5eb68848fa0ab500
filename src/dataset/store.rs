//! Where the bytes of datasets are kept, each under its digest.

use std::ffi::OsString;
use std::fmt;
use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::spool::Spooled;
use super::{DatasetError, Snapshot};
use crate::config::StoreLocation;

/// A part of an upload; also the size above which an upload has parts.
const CHUNK: usize = 8 << 20;
/// What is read from a file at once.
const PIECE: usize = 1 << 18;
/// Parts under way at once.
const PARTS: usize = 2;

/// The bytes of datasets, each under its digest. Cheap to clone.
#[derive(Clone)]
pub struct DatasetStore(Arc<dyn ObjectStore>);

/// Without the store's settings, which have keys among them.
impl fmt::Debug for DatasetStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatasetStore").field(&format_args!("{}", self.0)).finish()
    }
}

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

/// An upload whose parts are taken back, where that is possible, unless it is finished: when it fails, and when whoever waits for it
/// gives up. A bucket keeps, and charges for, the parts of an upload that nobody ends.
struct Upload(Option<WriteMultipart>);

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(upload.abort());
        }
    }
}

impl DatasetStore {
    /// The store at a place. `variables` are those of the environment; for a bucket the ones that begin with `AWS_` count:
    /// keys, region, `AWS_ENDPOINT` for other services than Amazon's, and so on.
    pub fn open(
        location: &StoreLocation,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, DatasetError> {
        match location {
            StoreLocation::Directory(directory) => Self::local(directory),
            StoreLocation::S3 { bucket, prefix } => Self::s3(bucket, prefix, variables),
        }
    }

    fn s3(
        bucket: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, DatasetError> {
        let mut builder = AmazonS3Builder::new();
        for (name, value) in variables {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if !name.starts_with("AWS_") || value.is_empty() {
                continue;
            }
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.with_bucket_name(bucket).build();
        let store = store.map_err(|error| DatasetError::Address(error.to_string()))?;
        Ok(Self(Arc::new(PrefixStore::new(store, prefix))))
    }

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
        let path = path(&spooled.part.digest);
        let mut file = tokio::fs::File::from_std(spooled.file.try_clone()?);
        file.seek(SeekFrom::Start(0)).await?;
        if spooled.part.bytes <= CHUNK as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).await?;
            self.0.put(&path, bytes.into()).await?;
            return Ok(());
        }
        let upload = self.0.put_multipart(&path).await?;
        let mut upload = Upload(Some(WriteMultipart::new_with_chunk_size(upload, CHUNK)));
        if let Some(upload) = &mut upload.0 {
            copy(&mut file, upload).await?;
        }
        if let Some(upload) = upload.0.take() {
            // Takes back what was sent should it fail.
            upload.finish().await?;
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
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, DatasetError>>), DatasetError> {
        let object = self.0.get(&path(digest)).await?;
        let size = object.meta.size;
        let chunks = match object.payload {
            GetResultPayload::File(file, _) => read(file).boxed(),
            GetResultPayload::Stream(chunks) => chunks.map_err(DatasetError::from).boxed(),
        };
        let (name, mut hash) = (digest.to_owned(), Sha256::new());
        let ended = futures_util::stream::once(async { None });
        let chunks = chunks.map(Some).chain(ended).filter_map(move |chunk| {
            let item = match chunk {
                Some(Ok(bytes)) => {
                    hash.update(&bytes);
                    Some(Ok(bytes))
                }
                Some(Err(error)) => Some(Err(error)),
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

/// A file from its beginning, in pieces that are large enough for the way to the thread that reads them.
fn read(file: std::fs::File) -> impl Stream<Item = Result<Bytes, DatasetError>> {
    futures_util::stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.into(), file)))
    })
}

async fn copy(file: &mut tokio::fs::File, upload: &mut WriteMultipart) -> Result<(), DatasetError> {
    let mut chunk = vec![0; PIECE];
    loop {
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        upload.wait_for_capacity(PARTS).await?;
        upload.write(&chunk[..read]);
    }
}

fn path(digest: &str) -> Path {
    Path::from(format!("{digest}.jsonl"))
}

#[cfg(test)]
mod tests;
