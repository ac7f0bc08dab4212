//! Through which proxy a request goes, if through any.
//!
//! What the variables of curl's making say, as Go programs and so podman and docker read them: a scheme each, and a
//! list of exempt hosts (names with everything below them, addresses, networks, ports). Loopback is never proxied.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

use super::origin::{is_loopback, origin};
use crate::error::{Error, Result};

/// What helps where a proxy answers 407.
pub(crate) const PROXY_LOGIN: &str =
    "a proxy's address may hold a login for it: `http://USER:PASSWORD@HOST:PORT`";

/// Through which proxies requests go. Loopback is never proxied.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<Url>,
    /// For `https://` addresses.
    pub https: Option<Url>,
    /// Hosts that are not proxied, as `NO_PROXY` lists them.
    pub exempt: String,
}

impl Proxies {
    /// Returns an error for a proxy that the HTTP client would pass over in silence.
    pub(crate) fn check(&self) -> Result<()> {
        let odd = |proxy: &&Url| !SCHEMES.contains(&proxy.scheme()) || proxy.host().is_none();
        match [&self.http, &self.https].into_iter().flatten().find(odd) {
            None => Ok(()),
            Some(proxy) => Err(Error::local(format!("`{}` is no proxy that can be used", origin(proxy)))
                .with_hint(format!("a proxy's address begins with {}://", SCHEMES.join("://, ")))),
        }
    }

    /// Returns the proxy for a request.
    pub(crate) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !is_loopback(url) && !self.is_exempt(url))
    }

    /// Returns the proxies' own hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        [&self.http, &self.https].into_iter().flatten().filter_map(Url::host_str).map(str::to_owned).collect()
    }

    fn is_exempt(&self, url: &Url) -> bool {
        self.exempt.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| covers(entry, url))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their URLs may hold passwords.
        f.debug_struct("Proxies")
            .field("hosts", &self.hosts())
            .field("exempt", &self.exempt)
            .finish_non_exhaustive()
    }
}

/// What proxies speak.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// `*`, `name`, `.name` and `*.name` (only what is below), an address, `address/bits`; each but the last with
/// `:port` behind it.
fn covers(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        Some(Host::Domain(_)) | None => None,
    };
    if let Some((network, bits)) = entry.split_once('/') {
        let (Some(address), Ok(network), Ok(bits)) = (address, network.parse(), bits.parse()) else {
            return false;
        };
        return is_in(address, network, bits);
    }
    // More than one colon is an address of IPv6, unless it stands in brackets.
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry, None),
    };
    if port.is_some_and(|port| port.parse().ok() != url.port_or_known_default()) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase();
    if let Some(address) = address {
        return name.parse() == Ok(address);
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let below = name.strip_prefix("*.").or(name.strip_prefix('.'));
    let parent = below.unwrap_or(&name);
    let is_below = !parent.is_empty() && host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    is_below || (below.is_none() && host == name)
}

/// Returns whether an address is in a network given by its first bits.
fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32_u32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let Some(rest) = width.checked_sub(bits) else { return false };
    address.checked_shr(rest).unwrap_or(0) == network.checked_shr(rest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_scheme_has_its_proxy_and_loopback_none() {
        let proxies = Proxies {
            http: Some(url("http://plain:3128")),
            https: Some(url("http://secure:3128")),
            exempt: String::new(),
        };
        for (target, proxy) in [
            ("http://registry.example.com", Some("plain")),
            ("https://registry.example.com", Some("secure")),
            ("https://10.0.0.1", Some("secure")),
            ("https://localhost:5000", None),
            ("http://127.0.0.1", None),
            ("http://[::1]:5000", None),
        ] {
            assert_eq!(proxies.of(&url(target)).and_then(Url::host_str), proxy, "{target}");
        }
        let secure = Proxies { http: None, ..proxies };
        assert_eq!(secure.of(&url("http://registry.example.com")), None);
    }

    #[test]
    fn exempt_hosts_are_found_as_go_programs_find_them() {
        for (entry, covered, other) in [
            ("*", "https://a.example.com", ""),
            ("example.com", "https://example.com", "https://notexample.com"),
            ("example.com", "https://a.Example.com", "https://example.com.org"),
            (".example.com", "https://a.b.example.com", "https://example.com"),
            ("*.example.com", "https://a.example.com", "https://example.com"),
            ("Example.com:5000", "https://example.com:5000", "https://example.com"),
            ("example.com:443", "https://example.com", "http://example.com"),
            ("10.1.2.3", "http://10.1.2.3:80", "http://10.1.2.4"),
            ("10.0.0.0/8", "https://10.200.0.1", "https://11.0.0.1"),
            ("10.1.2.3:5000", "https://10.1.2.3:5000", "https://10.1.2.3"),
            ("0.0.0.0/0", "https://8.8.8.8", "https://[fd00::1]"),
            ("fd00::/8", "https://[fd12::1]", "https://[fe00::1]"),
            ("fd00::1", "https://[fd00::1]:5000", "https://[fd00::2]"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000", "https://[fd00::1]"),
            (" one , two.example.com", "https://two.example.com", "https://three.example.com"),
        ] {
            let proxy = Some(url("http://proxy"));
            let proxies = Proxies { http: proxy.clone(), https: proxy, exempt: entry.to_owned() };
            assert_eq!(proxies.of(&url(covered)), None, "{entry}: {covered}");
            if !other.is_empty() {
                assert!(proxies.of(&url(other)).is_some(), "{entry}: {other}");
            }
        }
        // What is nonsense exempts nobody.
        for entry in ["", ",", "/", "10.0.0.0/33", "10.0.0.0/x", "x/8", ".", ":", "[", "example.com:x"] {
            assert!(!covers(entry, &url("https://example.com")), "{entry}");
            assert!(!covers(entry, &url("https://10.0.0.1")), "{entry}");
        }
    }

    #[test]
    fn their_passwords_are_not_shown() {
        let http = Some(url("http://me:xyzzy@proxy:3128/"));
        let proxies = Proxies { http, ..Proxies::default() };
        assert!(!format!("{proxies:?}").contains("xyzzy"));
    }
}
