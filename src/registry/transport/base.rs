//! Where the registry is: its root, whose scheme may be a guess until it has answered.
//!
//! Only loopback has to be asked whether it speaks TLS, and those that may do without. URLs of ours that were made
//! before that was known catch up.

use parking_lot::Mutex;
use url::Url;

use crate::{
    error::{Context as _, ErrorKind, Result},
    registry::{options::ClientOptions, origin::is_loopback},
};

/// A registry's root.
#[derive(Debug)]
pub(super) struct Base(Mutex<Root>);

#[derive(Debug)]
struct Root {
    url: Url,
    scheme: Scheme,
}

/// What is known about the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// It was not the one that was tried first.
    Corrected,
    /// Nobody has answered yet.
    Guessed,
    Known,
}

impl Base {
    pub(super) fn new(host: &str, options: &ClientOptions) -> Result<Self> {
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let mut url = Url::parse(&format!("https://{host}/"))
            .context(ErrorKind::Usage, || format!("`{}` is no registry", host.escape_debug()))?;
        let wants_tls = options.insecure || !options.certificates.is_empty();
        let may_do_without = is_loopback(&url) || options.insecure;
        if options.plain_http || (is_loopback(&url) && !wants_tls) {
            url.set_scheme("http").expect("https and http are alike");
        }
        let scheme = if options.plain_http || !may_do_without { Scheme::Known } else { Scheme::Guessed };
        Ok(Self(Mutex::new(Root { url, scheme })))
    }

    pub(super) fn url(&self) -> Url {
        self.0.lock().url.clone()
    }

    pub(super) fn is_guessed(&self) -> bool {
        self.0.lock().scheme == Scheme::Guessed
    }

    /// Takes note that the registry has answered where it was asked.
    pub(super) fn settle(&self) {
        let mut root = self.0.lock();
        if root.scheme == Scheme::Guessed {
            root.scheme = Scheme::Known;
        }
    }

    /// Takes note that it speaks the other protocol than was tried.
    pub(super) fn correct(&self, scheme: &str) {
        let mut root = self.0.lock();
        root.url.set_scheme(scheme).expect("https and http are alike");
        root.scheme = Scheme::Corrected;
    }

    /// Changes a URL of the registry's that was made before it was known whether that speaks TLS.
    pub(super) fn catch_up(&self, url: &mut Url) {
        let root = self.0.lock();
        let is_ours = url.host() == root.url.host() && url.port() == root.url.port();
        if is_ours && root.scheme == Scheme::Corrected {
            url.set_scheme(root.url.scheme()).expect("https and http are alike");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_without_tls_unasked() {
        for (host, base) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("r.example.com:5000", "https://r.example.com:5000/"),
            ("10.0.0.1", "https://10.0.0.1/"),
            ("localhost.example.com", "https://localhost.example.com/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.2:5000", "http://127.0.0.2:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
        ] {
            assert_eq!(Base::new(host, &ClientOptions::default()).unwrap().url().as_str(), base);
        }
        let plain = ClientOptions { plain_http: true, ..ClientOptions::default() };
        let base = Base::new("r.example.com", &plain).unwrap().url();
        assert_eq!(base.as_str(), "http://r.example.com/");
        let careless = ClientOptions { insecure: true, ..ClientOptions::default() };
        assert_eq!(Base::new("localhost", &careless).unwrap().url().scheme(), "https");
    }

    #[test]
    fn what_was_made_before_the_scheme_was_known_catches_up() {
        let base = Base::new("localhost:5000", &ClientOptions::default()).unwrap();
        let caught_up = |url: &str| {
            let mut url = url.parse().unwrap();
            base.catch_up(&mut url);
            url.to_string()
        };
        let (ours, elsewhere) = ("http://localhost:5000/v2/", "http://localhost:9000/v2/");
        assert!(base.is_guessed());
        assert_eq!(caught_up(ours), ours);
        base.correct("https");
        // An answer to what was under way meanwhile changes nothing.
        base.settle();
        assert!(!base.is_guessed());
        assert_eq!(caught_up(ours), "https://localhost:5000/v2/");
        assert_eq!(caught_up(elsewhere), elsewhere);
    }
}
