//! A server that answers as a test says and remembers what it was asked.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What to answer; `None` as the status never answers.
pub(super) struct Reply {
    status: Option<u16>,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    delay: Duration,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self { status: Some(status), headers: Vec::new(), body: body.to_owned(), delay: Duration::ZERO }
    }

    pub(super) fn never() -> Self {
        Self { status: None, headers: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Reply {
    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;
type Log = Arc<Mutex<Vec<Seen>>>;

/// Ends with the test.
pub(super) struct StandIn {
    pub(super) base_url: String,
    log: Log,
    server: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    pub(super) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let log = Log::default();
        let state: (Script, Log) = (Arc::new(script), Arc::clone(&log));
        let router = Router::new().fallback(answer).with_state(state);
        let (listener, base_url) = listen().await;
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { base_url, log, server }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("the log").clone()
    }

    /// The only request that came.
    pub(super) fn only(&self) -> Seen {
        let [seen] = <[Seen; 1]>::try_from(self.seen()).expect("exactly one request");
        seen
    }
}

async fn answer(
    State((script, log)): State<(Script, Log)>,
    method: Method,
    uri: Uri,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let seen = Seen { method, path: uri.path().to_owned(), query, headers, body };
    log.lock().expect("the log").push(seen.clone());
    let reply = script(&seen);
    let Some(status) = reply.status else { return pending().await };
    tokio::time::sleep(reply.delay).await;
    let response = Response::builder().status(status);
    let response =
        reply.headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(Body::from(reply.body)).expect("a response")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    (listener, base_url)
}

/// An address that refuses connections for as long as the socket lives.
pub(super) fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let base_url = format!("http://{}/v1", socket.local_addr().expect("an address"));
    (socket, base_url)
}

/// A server on bare sockets: answers the first requests with `answers`, and from then on writes `cut` after
/// each request and closes the connection.
pub(super) struct Cutting {
    pub(super) base_url: String,
    log: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Cutting {
    pub(super) async fn start(answers: Vec<String>, cut: &'static str) -> Self {
        let (listener, base_url) = listen().await;
        let log = Arc::<Mutex<Vec<String>>>::default();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let seen = Arc::clone(&log);
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (answers, seen) = (Arc::clone(&answers), Arc::clone(&seen));
                tokio::spawn(async move {
                    while let Some(head) = read_request(&mut stream).await {
                        seen.lock()
                            .expect("the log")
                            .push(head.lines().next().unwrap_or_default().to_owned());
                        let next = answers.lock().expect("the answers").next();
                        let Some(answer) = next else {
                            stream.write_all(cut.as_bytes()).await.expect("a reader");
                            return;
                        };
                        stream.write_all(answer.as_bytes()).await.expect("a reader");
                    }
                });
            }
        });
        Self { base_url, log, server }
    }

    /// The request lines that came.
    pub(super) fn seen(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }
}

/// Reads one request with its body and returns its head; `None` when the connection has ended.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head in ASCII").to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
}
