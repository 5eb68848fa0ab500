//! Where datasets are kept: bytes in an object store, what is known of them in the database.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{DatasetError, Snapshot};

/// The bytes of datasets, each under its digest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DatasetStore(Arc<dyn ObjectStore>);

impl DatasetStore {
    /// A store in a local directory, which is made if it is missing.
    pub fn local(directory: &std::path::Path) -> Result<Self, DatasetError> {
        let unusable = |error: String| DatasetError::Address(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(|error| unusable(error.to_string()))?;
        let store =
            LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
        Ok(Self(Arc::new(store)))
    }

    /// Keeps a snapshot. Doing so again changes nothing: the name is the content.
    pub async fn put(&self, snapshot: &Snapshot) -> Result<(), DatasetError> {
        self.0.put(&path(&snapshot.digest), snapshot.bytes.clone().into()).await?;
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
}

fn path(digest: &str) -> Path {
    Path::from(format!("{digest}.jsonl"))
}

/// Records a snapshot in the caller's transaction; one that is known already stays as it is.
pub async fn record(conn: &mut PgConnection, pipeline: &str, snapshot: &Snapshot) -> sqlx::Result<()> {
    let manifest =
        serde_json::to_value(&snapshot.manifest).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let size = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query!(
        "INSERT INTO datasets (digest, pipeline, examples, bytes, manifest) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (digest) DO NOTHING",
        snapshot.digest,
        pipeline,
        size(snapshot.manifest.counts.examples),
        size(snapshot.manifest.bytes),
        manifest,
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Counts, DatasetSettings, Manifest};

    fn snapshot(bytes: &[u8]) -> Snapshot {
        Snapshot {
            digest: hex::encode(Sha256::digest(bytes)),
            bytes: bytes.to_vec(),
            manifest: Manifest {
                settings: DatasetSettings::default(),
                since: chrono::DateTime::UNIX_EPOCH,
                counts: Counts::default(),
                bytes: bytes.len() as u64,
            },
        }
    }

    #[tokio::test]
    async fn keeps_bytes_under_their_digest_and_notices_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let store = DatasetStore::local(&directory.path().join("new")).unwrap();
        let kept = snapshot(b"{}\n");
        store.put(&kept).await.unwrap();
        store.put(&kept).await.unwrap();
        assert_eq!(store.get(&kept.digest).await.unwrap(), kept.bytes);

        let file = directory.path().join("new").join(format!("{}.jsonl", kept.digest));
        std::fs::write(file, b"[]\n").unwrap();
        assert!(matches!(store.get(&kept.digest).await, Err(DatasetError::Altered(_))));
    }
}
