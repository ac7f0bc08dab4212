//! By which names a registry lets itself be called.
//!
//! What listens on loopback is meant for this machine, and a browser on it runs what strangers write. They can have a
//! name of theirs lead to 127.0.0.1 (DNS rebinding): then our answers are their page's to read. The name stays in the
//! `Host` header, and only names that we know are let in. A number needs no lookup, so nobody can turn it; what has no
//! `Host` is no browser. What their page sends to our own name it cannot read the answer of, but a blob would be taken
//! all the same: with such a request a browser names the page in `Origin`, and only our own may.

use std::net::{IpAddr, Ipv6Addr};

use http::{
    HeaderMap, HeaderName, StatusCode, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

use super::protocol::Refusal;

/// The names of a registry.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    listen: IpAddr,
    names: Vec<String>,
}

impl Gate {
    /// Lets in who calls us by the address that we listen on, by `localhost` or by one of these names.
    pub(super) fn new(listen: IpAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { listen: listen.to_canonical(), names }
    }

    /// Refuses a request that is meant for somebody else.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        // A target with a host of its own stands above the header (RFC 9112, 3.2.2); whoever sends both means both.
        let target = uri.authority().map(Authority::as_str);
        if let Some(other) = said(headers, HOST).chain(target).find(|called| !self.answers_to(called)) {
            let other = other.escape_debug();
            let message =
                format!("nobody is called `{other}` here: `--name` gives the registry one more name");
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "DENIED", message));
        }
        let is_ours =
            |page: &str| page.split_once("://").is_some_and(|(_, authority)| self.answers_to(authority));
        if let Some(page) = said(headers, ORIGIN).find(|page| !is_ours(page)) {
            let message = format!("pages of `{}` have no business here", page.escape_debug());
            return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message));
        }
        Ok(())
    }

    /// Returns whether a name, with or without a port, is ours. Ports change on their way through tunnels.
    fn answers_to(&self, called: &str) -> bool {
        let Ok(authority) = called.parse::<Authority>() else { return false };
        let host = authority.host().to_ascii_lowercase();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address = match literal {
            Some(literal) => literal.parse::<Ipv6Addr>().map(IpAddr::from),
            None => host.parse(),
        };
        match address.map(|address| address.to_canonical()) {
            Ok(address) if self.listens_on(address) => true,
            _ => host == "localhost" || self.names.contains(&host),
        }
    }

    fn listens_on(&self, address: IpAddr) -> bool {
        let Self { listen, .. } = self;
        *listen == address || listen.is_unspecified() || (listen.is_loopback() && address.is_loopback())
    }
}

/// Returns what a header says, each time; what is no text is nobody's name.
fn said(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(header).into_iter().map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(gate: &Gate, uri: &str, hosts: &[&str]) -> u16 {
        said_status(gate, uri, hosts.iter().map(|host| (HOST, *host)))
    }

    fn said_status<'a>(gate: &Gate, uri: &str, said: impl Iterator<Item = (HeaderName, &'a str)>) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(name, value.parse().unwrap());
        }
        let checked = gate.check(&uri.parse().unwrap(), &headers);
        checked.map_or_else(|refusal| refusal.reply().status().as_u16(), |()| 200)
    }

    #[test]
    fn only_our_names_open() {
        let names = ["Registry.example.com".to_owned(), "10.0.0.9".to_owned()];
        let (loopback, everywhere) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0]));
        let gate = |listen| Gate::new(listen, &names);
        for (listen, host, expected) in [
            (loopback, "127.0.0.1:5000", 200),
            (loopback, "127.0.0.1", 200),
            (loopback, "127.8.8.8:1", 200),
            (loopback, "[::1]:5000", 200),
            (loopback, "[::ffff:127.0.0.1]:5000", 200),
            (loopback, "localhost:5000", 200),
            (loopback, "LOCALHOST", 200),
            (loopback, "registry.EXAMPLE.com", 200),
            (loopback, "10.0.0.9:80", 200),
            (loopback, "10.0.0.8", 421),
            (loopback, "evil.example", 421),
            (loopback, "evil.example:5000", 421),
            (loopback, "127.0.0.1.evil.example", 421),
            (loopback, "localhost.evil.example:5000", 421),
            (loopback, "localhost@evil.example", 421),
            (loopback, "evil.registry.example.com", 421),
            (loopback, "", 421),
            (loopback, "a b", 421),
            (everywhere, "10.0.0.8:5000", 200),
            (everywhere, "[fe80::1]:5000", 200),
            (everywhere, "evil.example", 421),
            (IpAddr::from([10, 0, 0, 7]), "10.0.0.7:5000", 200),
            (IpAddr::from([10, 0, 0, 7]), "127.0.0.1:5000", 421),
        ] {
            assert_eq!(status(&gate(listen), "/v2/", &[host]), expected, "{listen} {host}");
        }
    }

    #[test]
    fn every_host_that_is_said_counts() {
        let gate = Gate::new(IpAddr::from([127, 0, 0, 1]), &[]);
        assert_eq!(status(&gate, "/v2/", &[]), 200);
        assert_eq!(status(&gate, "http://evil.example/v2/", &["localhost"]), 421);
        assert_eq!(status(&gate, "http://localhost/v2/", &["evil.example"]), 421);
        assert_eq!(status(&gate, "http://localhost/v2/", &["localhost"]), 200);
        assert_eq!(status(&gate, "/v2/", &["localhost", "evil.example"]), 421);
    }

    #[test]
    fn pages_of_strangers_send_nothing() {
        let gate = Gate::new(IpAddr::from([127, 0, 0, 1]), &["registry.example.com".to_owned()]);
        for (origin, expected) in [
            ("http://localhost:5000", 200),
            ("http://127.0.0.1:3000", 200),
            ("https://registry.example.com", 200),
            ("https://evil.example", 403),
            ("http://localhost.evil.example:5000", 403),
            ("http://", 403),
            ("localhost", 403),
            // What a page is called that hides where it comes from.
            ("null", 403),
            ("", 403),
        ] {
            let said = [(HOST, "localhost:5000"), (ORIGIN, origin)];
            assert_eq!(said_status(&gate, "/v2/", said.into_iter()), expected, "{origin}");
        }
    }
}
