//! What the caller decides about a connection: secrets, TLS, proxies, patience.
//!
//! Plain values. Nothing is read from the environment: the command line does that and hands it over.

use std::time::Duration;

use super::{
    certificates::Certificates, credentials::Credentials, proxies::Proxies, rate_limit::RateLimit,
    retry::Pace,
};

/// How to speak with a registry.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where secrets come from.
    pub credentials: Credentials,
    /// No TLS.
    pub plain_http: bool,
    /// HTTP/2 where the other side offers it by TLS: all requests share one connection then, and its fate.
    pub http2: bool,
    /// TLS without asking who the other side is, and no TLS where there is none.
    pub insecure: bool,
    /// Whom to trust besides those whom the machine trusts, and who we are.
    pub certificates: Certificates,
    /// No byte is accepted for so long: given up. Closing an upload may take fifteen times as long.
    pub timeout: Duration,
    /// Failed attempts of a request, besides the first.
    pub retries: u32,
    /// How pauses are taken, and the longest.
    pub pace: Pace,
    /// How we introduce ourselves.
    pub user_agent: String,
    /// Through which proxies.
    pub proxies: Proxies,
    /// `--limit-rate`: how fast blobs may be sent, together with all clients that share the limit.
    pub rate_limit: Option<RateLimit>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            plain_http: false,
            http2: false,
            insecure: false,
            certificates: Certificates::default(),
            timeout: Duration::from_secs(60),
            retries: 5,
            pace: Pace::default(),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            rate_limit: None,
        }
    }
}
