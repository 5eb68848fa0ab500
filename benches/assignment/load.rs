//! Clients that ask as fast as they are answered, over connections that stay open.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;

/// Connections, each with one request under way.
const CONNECTIONS: usize = 32;
/// Different units, so that nothing depends on one of them.
const UNITS: usize = 10_000;

/// What is asked of whom.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) requests: &'a [Vec<u8>],
}

/// How a turn went.
pub(crate) struct Turn {
    pub(crate) per_second: f64,
    pub(crate) p99_ms: f64,
}

/// The requests of an application, with its key.
pub(crate) fn requests(key: &str) -> Vec<Vec<u8>> {
    let request = |unit| {
        format!(
            "GET /v1/pipelines/hook/assignment?unit=post-{unit} HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {key}\r\naccept: application/json\r\n\r\n"
        )
    };
    (0..UNITS).map(|unit| request(unit).into_bytes()).collect()
}

impl Load<'_> {
    /// The body of the answer to the first request.
    pub(crate) async fn one(&self) -> Result<Vec<u8>> {
        let mut connection = Connection::open(self.address).await?;
        let (head, length) = connection.ask(&self.requests[0]).await?;
        Ok(connection.buffer[head..head + length].to_vec())
    }

    /// Asks for this long.
    pub(crate) async fn run(&self, time: Duration) -> Result<Turn> {
        let started = Instant::now();
        let mut clients = Vec::new();
        for client in 0..CONNECTIONS {
            let mut connection = Connection::open(self.address).await?;
            // Each begins elsewhere; the runtime's tasks own what they use.
            let requests: Vec<Vec<u8>> =
                self.requests.iter().skip(client).step_by(CONNECTIONS).cloned().collect();
            clients.push(tokio::spawn(async move {
                let mut took = Vec::with_capacity(100_000);
                for request in requests.iter().cycle() {
                    let asked = Instant::now();
                    if asked.duration_since(started) >= time {
                        break;
                    }
                    connection.ask(request).await?;
                    took.push(asked.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(took)
            }));
        }
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await??);
        }
        let per_second = took.len() as f64 / started.elapsed().as_secs_f64();
        took.sort_unstable();
        let p99 = took.get(took.len() * 99 / 100).ok_or("nothing was answered")?;
        Ok(Turn { per_second, p99_ms: p99.as_secs_f64() * 1000.0 })
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends a request and reads its answer, which must be a success; where its body begins, and its length.
    async fn ask(&mut self, request: &[u8]) -> Result<(usize, usize)> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err("the connection was closed".into());
            }
            filled += read;
            let answer = &self.buffer[..filled];
            let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(String::from_utf8_lossy(answer).into());
            }
            let (body, length) = (head + 4, length(&answer[..head])?);
            if filled >= body + length {
                return Ok((body, length));
            }
        }
    }
}

/// The `content-length` of a head.
fn length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let at = head.windows(NAME.len()).position(|name| name == NAME).ok_or("no content-length")?;
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}
