//! What the caller decides about a connection: secrets, TLS, proxies, patience.
//!
//! Plain values. Nothing is read from the environment: the command line does that and hands it over.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::{credentials::Credentials, retry::Pace};

/// How to speak with a registry.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where secrets come from.
    pub credentials: Credentials,
    /// No TLS.
    pub plain_http: bool,
    /// TLS without asking who the other side is.
    pub insecure: bool,
    /// A PEM file with certificate authorities to be trusted besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// No byte is accepted for so long: given up.
    pub timeout: Duration,
    /// What closing an upload may take: registries copy gigabytes then.
    pub commit_timeout: Duration,
    /// Failed attempts of a request, besides the first.
    pub retries: u32,
    /// How pauses are taken, and the longest.
    pub pace: Pace,
    /// How we introduce ourselves.
    pub user_agent: String,
    /// Through which proxies.
    pub proxies: Proxies,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            plain_http: false,
            insecure: false,
            ca_file: None,
            timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(15 * 60),
            retries: 5,
            pace: Pace::default(),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
        }
    }
}

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
    pub(crate) fn hosts(&self) -> Vec<String> {
        [&self.http, &self.https].into_iter().flatten().filter_map(Url::host_str).map(str::to_owned).collect()
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
