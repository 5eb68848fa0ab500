//! Local directories and buckets, alike.

use std::time::Duration;

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

/// As much of S3 as the store uses, in memory, with objects by path.
mod bucket {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::{Arc, Mutex};

    use axum::body::Bytes;
    use axum::extract::{Path, Query, State};
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use axum::routing::put;

    #[derive(Default)]
    pub(super) struct Bucket {
        pub(super) objects: BTreeMap<String, Vec<u8>>,
        parts: BTreeMap<u32, Vec<u8>>,
        pub(super) uploads: usize,
        pub(super) aborted: usize,
        /// Whether parts are refused; else whether they are kept waiting for ever.
        pub(super) refuses: bool,
        pub(super) hangs: bool,
    }

    pub(super) type Shared = Arc<Mutex<Bucket>>;

    pub(super) async fn serve(bucket: Shared) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let route = put(store).get(read).post(upload).delete(abort);
        let router = axum::Router::new()
            .route("/{*path}", route)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(bucket);
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn store(
        State(bucket): State<Shared>,
        Path(path): Path<String>,
        Query(query): Query<HashMap<String, String>>,
        body: Bytes,
    ) -> Response {
        let (refuses, hangs) = {
            let bucket = bucket.lock().unwrap();
            (bucket.refuses, bucket.hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if refuses {
            return StatusCode::FORBIDDEN.into_response();
        }
        let mut bucket = bucket.lock().unwrap();
        match query.get("partNumber") {
            Some(number) => bucket.parts.insert(number.parse().unwrap(), body.to_vec()),
            None => bucket.objects.insert(path, body.to_vec()),
        };
        [("etag", "\"tag\"")].into_response()
    }

    async fn abort(State(bucket): State<Shared>, Query(query): Query<HashMap<String, String>>) -> StatusCode {
        bucket.lock().unwrap().aborted += usize::from(query.contains_key("uploadId"));
        StatusCode::NO_CONTENT
    }

    async fn upload(
        State(bucket): State<Shared>,
        Path(path): Path<String>,
        Query(query): Query<HashMap<String, String>>,
    ) -> Response {
        let mut bucket = bucket.lock().unwrap();
        if query.contains_key("uploads") {
            bucket.uploads += 1;
            let answer = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>";
            return answer.into_response();
        }
        let whole = std::mem::take(&mut bucket.parts).into_values().flatten().collect();
        bucket.objects.insert(path, whole);
        "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>".into_response()
    }

    async fn read(State(bucket): State<Shared>, Path(path): Path<String>, headers: HeaderMap) -> Response {
        let Some(object) = bucket.lock().unwrap().objects.get(&path).cloned() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let common = [("etag", "\"tag\""), ("last-modified", "Wed, 25 Nov 2026 12:00:00 GMT")];
        let Some(range) = headers.get("range") else { return (common, object).into_response() };
        let from: usize =
            range.to_str().unwrap().trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
        let said = format!("bytes {from}-{}/{}", object.len() - 1, object.len());
        let rest = object[from..].to_vec();
        (StatusCode::PARTIAL_CONTENT, common, [("content-range", said)], rest).into_response()
    }
}

async fn in_bucket() -> (DatasetStore, bucket::Shared) {
    let bucket = bucket::Shared::default();
    let endpoint = bucket::serve(bucket.clone()).await;
    let variables = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "here"),
        ("HOME", "elsewhere"),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let location = StoreLocation::S3 { bucket: "shop".into(), prefix: "train/sets".into() };
    (DatasetStore::open(&location, variables).unwrap(), bucket)
}

#[tokio::test]
async fn the_parts_of_an_upload_that_fails_or_is_given_up_are_taken_back() {
    let kept = spooled(20, 1 << 20);
    for hangs in [false, true] {
        let (store, bucket) = in_bucket().await;
        {
            let mut bucket = bucket.lock().unwrap();
            (bucket.refuses, bucket.hangs) = (!hangs, hangs);
        }
        let put = tokio::time::timeout(Duration::from_secs(2), store.put_file(&kept)).await;
        assert_eq!(put.is_err(), hangs, "{put:?}");
        assert!(put.is_err() || put.unwrap().is_err());
        let ended = async {
            while bucket.lock().unwrap().aborted == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        let bucket = bucket.lock().unwrap();
        assert_eq!((bucket.uploads, bucket.aborted, bucket.objects.len()), (1, 1, 0));
    }
}

#[tokio::test]
async fn a_bucket_keeps_small_files_at_once_and_large_ones_in_parts() {
    let (store, bucket) = in_bucket().await;
    for (lines, length, uploads) in [(3, 5, 0), (20, 1 << 20, 1)] {
        let kept = spooled(lines, length);
        store.put_file(&kept).await.unwrap();
        let digest = &kept.part.digest;
        assert_eq!(bucket.lock().unwrap().uploads, uploads);
        assert!(bucket.lock().unwrap().objects.contains_key(&format!("shop/train/sets/{digest}.jsonl")));
        let bytes = store.get(digest).await.unwrap();
        assert!(streamed(&store, digest).await.unwrap() == bytes);
        let first = store.lines(digest, 0, 2).await.unwrap();
        let rest = store.lines(digest, first[1].end(), 100).await.unwrap();
        assert_eq!(first.len() + rest.len(), lines);
    }
    let unknown = store.get(&"0".repeat(64)).await;
    assert!(matches!(unknown, Err(DatasetError::Store(object_store::Error::NotFound { .. }))), "{unknown:?}");
}
