//! What holds for every call of an outside service: one way to make a client, one to read how long to wait, and a circuit
//! breaker for each service.
//!
//! Nothing here sends a request again that may change something. Reads are tried again by whoever reads.

mod breaker;
mod retry_after;
mod targets;

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Url, redirect};

pub use breaker::{BreakerState, CircuitBreaker, Permit};
pub use retry_after::retry_after;
pub use targets::{BadTarget, NotPublic, TargetRules, Targets, is_public};

/// A client for calls of `url`: with our name, without redirects, which would send a POST and its key a second time to somewhere
/// else, without hidden retries, and without a proxy before this machine's own addresses.
pub fn client(url: &Url, connect_timeout: Duration) -> reqwest::Result<reqwest::Client> {
    let client = builder(connect_timeout);
    if is_loopback(url) { client.no_proxy() } else { client }.build()
}

fn builder(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("tuneloop/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
}

/// Whether the address is this machine's own, which no proxy stands in front of.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_addresses_are_loopback() {
        let loopback = |url: &str| is_loopback(&Url::parse(url).expect("a URL"));
        assert!(
            loopback("http://127.0.0.1:1/v1") && loopback("http://[::1]:1") && loopback("http://localhost")
        );
        assert!(!loopback("https://api.openai.com/v1") && !loopback("http://10.0.0.1"));
    }
}
