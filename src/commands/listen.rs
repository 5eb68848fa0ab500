//! Where a command answers requests.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// The address cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}")]
pub(super) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens at `address`; port 0 takes a free one.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}
