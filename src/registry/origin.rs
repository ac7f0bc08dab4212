//! Whom a URL speaks to: as it may be shown to anybody, and whether it is this machine.

use url::{Host, Url};

/// Returns whether a URL names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns whether a URL is to the same server as another one, or to itself with TLS. Another port of the host is
/// somebody else (CVE-2022-27774).
pub(crate) fn is_same_server(url: &Url, as_this: &Url) -> bool {
    let upgraded = as_this.scheme() == "http" && url.scheme() == "https";
    url.host() == as_this.host() && (url.origin() == as_this.origin() || upgraded)
}

/// Returns scheme, host and port: what of a URL may be shown to anybody.
pub(crate) fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}
