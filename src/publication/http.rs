//! A call of the application: the traffic document as the body of a POST, signed after Standard Webhooks.
//!
//! What was accepted cannot be read back. The document has the revision, and receivers ignore an older one than they have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Url, redirect};

use super::payload::Payload;
use super::{PublishError, Reach};
use crate::clock::Clock;
use crate::pipelines::config::HttpTarget;
use crate::standard_webhooks::WebhookSecret;

const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(15);

/// Sends the document and waits for the application to accept it. `id` is the same when the same is sent again.
pub(super) async fn send(
    reach: &Reach,
    clock: &Clock,
    target: &HttpTarget,
    id: &str,
    payload: &Payload,
) -> Result<(), PublishError> {
    let url = Url::parse(&target.url)
        .map_err(|error| PublishError::failed(format!("{} is no URL: {error}", target.url)))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let secret = target.secret_env.as_deref().map(|name| secret(reach, name)).transpose()?;
    let addresses = permitted(&url, reach.allow_private).await.map_err(PublishError::failed)?;
    let client = client(&host, &addresses)
        .map_err(|error| PublishError::failed(format!("no client can be made: {error}")))?;
    let timestamp = clock.now().timestamp().to_string();
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", &timestamp);
    if let Some(secret) = secret {
        let signature = secret.sign(id, &timestamp, payload.document.as_bytes());
        request = request.header("webhook-signature", signature);
    }
    let response = request.body(payload.document.clone()).send().await.map_err(|error| {
        let why = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
        tracing::info!(%error, host, "a publication could not be sent");
        PublishError::failed(format!("{host} {why}"))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(PublishError::Failed {
        message: format!("{host} answered {} in place of a success", status.as_u16()),
        retry_after: seconds.map(Duration::from_secs),
    })
}

fn secret(reach: &Reach, name: &str) -> Result<WebhookSecret, PublishError> {
    let value = (reach.lookup)(name).ok_or_else(|| {
        PublishError::failed(format!(
            "the variable {name} is not set where the workers run; set it to the signing secret"
        ))
    })?;
    WebhookSecret::new(value.expose()).map_err(|accepted| {
        PublishError::failed(format!("the variable {name} is not a signing secret; it takes {accepted}"))
    })
}

/// The addresses that may be called, resolved once, so that what was checked is what is called.
pub(super) async fn permitted(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(443);
    let resolved = tokio::time::timeout(CONNECT, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match resolved {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => return Err(format!("the name {host} has no address at the moment")),
    };
    match addresses.iter().find(|address| !is_public(address.ip())) {
        Some(_) if !allow_private => Err(format!(
            "{host} is a private, loopback or otherwise special address, which is not called unless the service has \
             --publication-allow-private; set it, or choose another URL"
        )),
        _ => Ok(addresses),
    }
}

/// Without redirects and without hidden retries, and without a proxy, which would resolve the name anew.
fn client(host: &str, addresses: &[SocketAddr]) -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("tuneloop/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(CALL)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .resolve_to_addrs(host, addresses)
        .build()
}

/// Whether an address belongs to the Internet at large.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            let protocol = a == 192 && b == 0 && c == 0;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || shared
                || benchmark
                || protocol)
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(v4),
            // The Internet is 2000::/3, without what is for documentation.
            None => {
                v6.segments()[0] & 0xe000 == 0x2000
                    && !(v6.segments()[0] == 0x2001 && v6.segments()[1] == 0xdb8)
            }
        },
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, by NAT64 or by 6to4.
fn embedded(v6: Ipv6Addr) -> Option<IpAddr> {
    let octets = v6.octets();
    let at = |start: usize| {
        let four: [u8; 4] = octets[start..start + 4].try_into().ok()?;
        Some(IpAddr::from(four))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for address in ["1.1.1.1", "172.15.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(public(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[tokio::test]
    async fn private_targets_are_refused_unless_allowed() {
        for url in ["http://127.0.0.1:1/x", "http://[::1]/", "http://2130706433/", "http://localhost/"] {
            let url = Url::parse(url).unwrap();
            let refused = permitted(&url, false).await.unwrap_err();
            assert!(refused.contains("--publication-allow-private"), "{refused}");
        }
        let url = Url::parse("http://127.0.0.1:81/x").unwrap();
        assert_eq!(permitted(&url, true).await, Ok(vec!["127.0.0.1:81".parse().unwrap()]));
    }
}
