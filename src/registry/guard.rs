//! Where a registry may send us: the hosts named by its `Location`s, redirects and token realms.
//!
//! The registry itself is the user's choice and may be anywhere. What *it* names may not lead down from https
//! to http, and not to private addresses unless the registry has one itself: otherwise any registry could
//! make us talk to the machines around us (CVE-2026-48978). Literal addresses are checked here; names are
//! checked as the HTTP client's resolver, on the very addresses that are connected to. Where a proxy resolves
//! names, only it can tell.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::{
    origin::{is_loopback, origin},
    proxies::Proxies,
};
use crate::error::{Error, ErrorKind, Result};

/// Checks where one registry sends us.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The registry, as URLs spell it.
    host: String,
    /// Their hosts are the user's choice too, to be connected to and not to be named.
    proxies: Proxies,
    /// The registry's own address is private. For a name: so it was when it was last resolved.
    private: AtomicBool,
}

impl Guard {
    pub(crate) fn new(registry: &Url, proxies: Proxies) -> Self {
        let host = registry.host_str().unwrap_or_default().to_owned();
        let private = AtomicBool::new(is_loopback(registry) || literal(registry).is_some_and(is_private));
        Self(Arc::new(Inner { host, proxies, private }))
    }

    /// Returns an error if `target` may not be asked for anything. `named_by` is the URL of the answer.
    pub(crate) fn check(&self, target: &Url, named_by: &Url) -> Result<()> {
        if !matches!((named_by.scheme(), target.scheme()), (_, "https") | ("http", "http")) {
            let words = format!("from {} it leads down to `{}://`", origin(named_by), target.scheme());
            return Err(refused(target.host_str().unwrap_or_default(), words).with_hint(SECURE));
        }
        let host = target.host_str().unwrap_or_default();
        // Behind the proxy's own name or address lies whatever else that machine has.
        let inside = literal(target).is_some_and(is_private) || self.is_proxy(host);
        if inside && self.0.host != host && !self.is_private() {
            return Err(to_private(host));
        }
        if target.host() != named_by.host() && self.0.proxies.of(target).is_some() {
            tracing::debug!(
                "the registry sends us to {}: where that is, only the proxy knows",
                origin(target)
            );
        }
        Ok(())
    }

    fn is_proxy(&self, host: &str) -> bool {
        self.0.proxies.hosts().iter().any(|proxy| proxy == host)
    }

    fn is_private(&self) -> bool {
        self.0.private.load(Ordering::Relaxed)
    }

    /// Returns those addresses of `host` that may be connected to.
    fn admit(&self, host: &str, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        if self.0.host == host {
            let private = addresses.iter().all(|address| is_private(address.ip()));
            self.0.private.store(private, Ordering::Relaxed);
        } else if !self.is_proxy(host) && !self.is_private() {
            addresses.retain(|address| !is_private(address.ip()));
            if addresses.is_empty() {
                return Err(to_private(host));
            }
        }
        Ok(addresses)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted = guard.admit(name.as_str(), addresses)?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Addresses that mean something only to this machine or its surroundings (IANA's special-purpose registries).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(address) => is_private_v4(address),
            None => {
                address.is_multicast()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
                    || is_local_prefix(address)
            }
        },
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240 // reserved, and so used inside of clouds
        || (a == 100 && b & 0xc0 == 64) // RFC 6598: carrier-grade NAT, and the metadata server of Alibaba
        || (a == 192 && b == 0 && c == 0) // RFC 6890: for protocols of the line itself
        || (a == 198 && b & 0xfe == 18) // RFC 2544: laboratories
}

/// Site-local (RFC 3879) and the NAT64 of one network (RFC 8215).
fn is_local_prefix(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    a & 0xffc0 == 0xfec0 || (a, b, c) == (0x64, 0xff9b, 1)
}

/// An IPv4 address inside an IPv6 one: mapped or compatible (RFC 4291), behind NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        // `::` and `::1`, which are IPv6's own, come out as private too.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

/// Why a place is not gone to.
#[derive(Debug)]
pub(crate) struct Unsafe(pub(crate) String);

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsafe {}

fn to_private(host: &str) -> Error {
    refused(host, "a private address, and the registry has a public one".to_owned())
}

fn refused(host: &str, why: String) -> Error {
    Error::new(ErrorKind::Refused, format!("the registry sends us to `{host}`, which is not safe"))
        .because(Unsafe(why))
}

/// What helps where a registry names plain http.
const SECURE: &str =
    "what a registry names has to begin with `https://` as its own address does: who runs it sets that";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn a_public_registry_names_no_private_literal() {
        let registry = url("https://registry.example.com/");
        let guard = Guard::new(&registry, Proxies::default());
        for private in [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::808:808]",
            "[::127.0.0.1]",
            "[2002:a01:203::1]",
            "[fec0::1]",
            "192.0.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "[ff02::1]",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            let target = url(&format!("https://{private}/upload"));
            let error = guard.check(&target, &registry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{private}");
        }
        for public in [
            "8.8.8.8",
            "8.0.0.1",
            "8.18.0.1",
            "8.64.0.1",
            "192.5.0.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "[2606:4700::1]",
            "[2002:808:808::1]",
            "[64:ff9b::808:808]",
            "cdn.example.net",
        ] {
            guard.check(&url(&format!("https://{public}/upload")), &registry).unwrap();
        }
    }

    #[test]
    fn a_private_registry_names_whom_it_likes() {
        for registry in ["http://10.0.0.5:5000/", "http://localhost:5000/", "https://[::1]/"] {
            let registry = url(registry);
            let guard = Guard::new(&registry, Proxies::default());
            guard.check(&url("https://192.168.1.1/upload"), &registry).unwrap();
        }
    }

    #[test]
    fn a_public_registry_does_not_name_the_proxy() {
        let registry = url("https://registry.example.com/");
        for proxy in ["http://127.0.0.1:3128", "http://10.0.0.1:3128", "http://proxy.corp:3128"] {
            let proxies = Proxies { https: Some(url(proxy)), ..Proxies::default() };
            let mut named = url(proxy);
            named.set_scheme("https").unwrap();
            named.set_port(Some(8443)).unwrap();
            let error = Guard::new(&registry, proxies.clone()).check(&named, &registry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{proxy}");
            // One that is there itself may.
            Guard::new(&named, proxies).check(&named, &named).unwrap();
        }
    }

    #[test]
    fn nothing_leads_down_from_https() {
        let registry = url("https://registry.example.com/");
        let guard = Guard::new(&registry, Proxies::default());
        for target in ["http://cdn.example.net/", "http://registry.example.com/", "file:///etc/passwd"] {
            let error = guard.check(&url(target), &registry).unwrap_err();
            let scheme = target.split(':').next().unwrap();
            let why = format!("from https://registry.example.com it leads down to `{scheme}://`");
            assert!(chain(&error).ends_with(&why), "{error:?}");
            assert_eq!(error.hints(), [SECURE]);
        }
        guard.check(&url("http://cdn.example.net/"), &url("http://registry.example.com/")).unwrap();
    }

    #[test]
    fn names_are_judged_by_the_addresses_they_resolve_to() {
        let registry = url("https://registry.example.com/");
        let http = Some(url("http://proxy.corp:3128"));
        let guard = Guard::new(&registry, Proxies { http, ..Proxies::default() });
        assert_eq!(guard.admit("registry.example.com", addresses("1.2.3.4")).unwrap().len(), 1);
        assert!(guard.admit("evil.example.com", addresses("127.0.0.1 ::1")).is_err());
        assert_eq!(
            guard.admit("cdn.example.com", addresses("10.0.0.1 1.2.3.4")).unwrap(),
            addresses("1.2.3.4")
        );
        assert_eq!(guard.admit("proxy.corp", addresses("10.0.0.1")).unwrap(), addresses("10.0.0.1"));

        // One of several is not enough.
        guard.admit("registry.example.com", addresses("10.0.0.7 1.2.3.4")).unwrap();
        assert!(guard.admit("auth.example.com", addresses("10.0.0.8")).is_err());
        guard.admit("registry.example.com", addresses("10.0.0.7")).unwrap();
        assert_eq!(guard.admit("auth.example.com", addresses("10.0.0.8")).unwrap(), addresses("10.0.0.8"));
    }
}
