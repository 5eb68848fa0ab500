//! Addresses that users name for the service to call. Unless a setting allows it, only public ones are called, so that nobody
//! reaches through the service what stands behind it: its own network, this machine, a cloud's metadata.
//!
//! What counts is the address of the connection, not the name: a name is looked up for each connection, the
//! addresses that are not public are left out there, and what is left is connected to. A name that changes its
//! address after it was checked (DNS rebinding) leads nowhere.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};

use super::{builder, is_loopback};

/// An address that is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is not a public address: name one that is reached over the internet, or allow private ones with \
     --allow-private-targets"
)]
pub struct NotPublic {
    /// As it was named.
    pub host: String,
}

impl NotPublic {
    /// The refusal in an error of a call, where a name turned out to lead to such an address.
    #[must_use]
    pub fn cause_of(error: &reqwest::Error) -> Option<&Self> {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(refused) = cause.downcast_ref() {
                return Some(refused);
            }
            source = cause.source();
        }
        None
    }
}

/// A URL that cannot be called, whatever is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL to call.
    #[error("must be an http or https URL of up to 2,000 characters, without user, password and fragment")]
    Form,
    /// Refused for its address.
    #[error(transparent)]
    NotPublic(#[from] NotPublic),
}

/// Which addresses may be called: public ones, unless changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetRules {
    /// Whether private ones may be called as well.
    pub allow_private: bool,
}

impl TargetRules {
    /// A URL that somebody names, if it can be called as far as it shows without looking its name up.
    pub fn parse(self, url: &str) -> Result<Url, BadTarget> {
        let url = Url::parse(url).ok().filter(|_| url.len() <= 2_000).ok_or(BadTarget::Form)?;
        let http = matches!(url.scheme(), "http" | "https");
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !http || !bare {
            return Err(BadTarget::Form);
        }
        self.check(&url)?;
        Ok(url)
    }

    /// Refuses an address that stands in the URL itself: nobody looks it up, so that it is not judged later.
    pub fn check(self, url: &Url) -> Result<(), NotPublic> {
        let host = url.host_str().unwrap_or_default();
        let public = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => is_public(address),
            Err(_) => !is_local_name(host),
        };
        if public || self.allow_private { Ok(()) } else { Err(NotPublic { host: host.to_owned() }) }
    }
}

/// The clients for such calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Targets {
    rules: TargetRules,
    /// Without a proxy, which would look names up where we do not see the addresses.
    direct: Client,
    /// With the environment's proxy; used only where private addresses are allowed.
    environment: Client,
}

impl Targets {
    /// Clients that wait this long for a connection.
    pub fn new(rules: TargetRules, connect_timeout: Duration) -> reqwest::Result<Self> {
        Self::with_resolver(rules, connect_timeout, Arc::new(SystemResolver))
    }

    /// The same, with names looked up by `resolver`, whose answers are checked like any other's.
    pub fn with_resolver(
        rules: TargetRules,
        connect_timeout: Duration,
        resolver: Arc<dyn Resolve>,
    ) -> reqwest::Result<Self> {
        let resolver = Arc::new(Checked { rules, resolver });
        let client = || builder(connect_timeout).dns_resolver(resolver.clone());
        Ok(Self { rules, direct: client().no_proxy().build()?, environment: client().build()? })
    }

    /// The client to call `url` with.
    pub fn client(&self, url: &Url) -> Result<&Client, NotPublic> {
        self.rules.check(url)?;
        let proxied = self.rules.allow_private && !is_loopback(url);
        Ok(if proxied { &self.environment } else { &self.direct })
    }
}

/// Names that mean this machine wherever they are looked up (RFC 6761).
fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.is_empty() || host == "localhost" || host.ends_with(".localhost")
}

/// Looks names up as the machine does.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is filled in by the client.
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Leaves out the addresses that are not to be called.
struct Checked {
    rules: TargetRules,
    resolver: Arc<dyn Resolve>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let addresses = self.resolver.resolve(name);
        let TargetRules { allow_private } = self.rules;
        Box::pin(async move {
            let addresses = addresses.await?;
            if allow_private {
                return Ok(addresses);
            }
            let public: Vec<_> = addresses.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() { Err(NotPublic { host }.into()) } else { Ok(Box::new(public.into_iter())) }
        })
    }
}

/// Whether an address is one of the public internet, by IANA's registries of special-purpose addresses. Addresses that
/// carry an IPv4 address in them are judged by that.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = matches!(
        address.octets(),
        // This network, private, loopback, multicast and what is reserved.
        [0 | 10 | 127 | 224..=255, ..]
        // Shared (CGNAT); link-local; private.
        | [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..]
        // Protocol assignments; documentation; 6to4 relays; benchmarks.
        | [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _]
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match address.segments() {
        // Translated to IPv4 (NAT64), or carried over it (6to4).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Protocol assignments and Teredo; documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast. All else is loopback, unique local, link-local, multicast or reserved.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_of_special_purpose_are_not_public() {
        for special in [
            "0.0.0.0",
            "10.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_that_cannot_be_called_are_refused_when_they_are_named() {
        let guarded = TargetRules::default();
        for private in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]:80/",
            "http://[::1]/",
            "http://localhost/",
            "http://[::ffff:7f00:1]/",
            "https://localhost/hook",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "http://169.254.169.254/latest/meta-data",
            "https://10.1.2.3/",
        ] {
            assert!(matches!(guarded.parse(private), Err(BadTarget::NotPublic(_))), "{private}");
        }
        let long = format!("https://example.com/{}", "a".repeat(2_000));
        for bad in
            ["", "example.com", "ftp://example.com/", "https://me:pw@example.com/", "https://e.com/#x", &long]
        {
            assert_eq!(guarded.parse(bad), Err(BadTarget::Form), "{bad}");
        }
        assert!(
            guarded.parse("https://example.com/hook?key=1").is_ok()
                && guarded.parse("https://8.8.8.8/").is_ok()
        );
        let open = TargetRules { allow_private: true };
        assert!(open.parse("http://127.0.0.1:1/").is_ok() && open.parse("http://localhost/").is_ok());
    }

    /// Gives its answers one after the other, as the owner of a name may.
    struct Changing(Mutex<Vec<Vec<SocketAddr>>>);

    impl Resolve for Changing {
        fn resolve(&self, _: Name) -> Resolving {
            let answer = self.0.lock().unwrap().remove(0);
            Box::pin(async move { Ok(Box::new(answer.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_its_address_leads_nowhere() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let url = Url::parse(&format!("http://rebind.example:{}/", here.port())).unwrap();
        let public = SocketAddr::from(([8, 8, 8, 8], 0));
        let answers = vec![vec![public], vec![here], vec![here, SocketAddr::from(([10, 0, 0, 1], 0))]];
        let changing = Arc::new(Changing(Mutex::new(answers)));
        // Checked when it was named, and public then.
        let check = Checked { rules: TargetRules::default(), resolver: changing.clone() };
        let seen: Vec<_> = check.resolve("rebind.example".parse().unwrap()).await.unwrap().collect();
        assert_eq!(seen, [public]);
        // Private when it is called.
        let guarded =
            Targets::with_resolver(TargetRules::default(), Duration::from_secs(5), changing.clone()).unwrap();
        for _ in 0..2 {
            let error = guarded.client(&url).unwrap().get(url.clone()).send().await.unwrap_err();
            assert!(NotPublic::cause_of(&error).is_some(), "{error:?}");
        }
        let knocked = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(knocked.is_err(), "nothing was connected to");
    }

    #[tokio::test]
    async fn private_addresses_among_public_ones_are_left_out() {
        let (public, private) = (SocketAddr::from(([1, 1, 1, 1], 0)), SocketAddr::from(([127, 0, 0, 1], 0)));
        let answers = || Arc::new(Changing(Mutex::new(vec![vec![private, public]])));
        let check = Checked { rules: TargetRules::default(), resolver: answers() };
        assert_eq!(check.resolve("a.example".parse().unwrap()).await.unwrap().collect::<Vec<_>>(), [public]);
        let check = Checked { rules: TargetRules { allow_private: true }, resolver: answers() };
        let all: Vec<_> = check.resolve("a.example".parse().unwrap()).await.unwrap().collect();
        assert_eq!(all, [private, public]);
    }
}
