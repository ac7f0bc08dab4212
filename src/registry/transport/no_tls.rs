//! Why there is no TLS connection, and what helps: rustls' words in ours.

use std::fmt;

use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};
use url::Url;

use crate::{
    error::{Error, ErrorKind, counted},
    registry::{one_line::one_line, origin::origin},
};

/// Why there is no TLS connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::registry) enum NoTls {
    /// Nobody trusted vouches for the server.
    Certificate(String),
    /// The server does not know us.
    Identity(String),
    /// What the server says is no TLS, or no sense.
    Protocol(String),
    /// The server speaks TLS, and not with us.
    Refusal(String),
    /// Whoever vouches for the server does not for its name, or not now.
    Unfit(String),
}

impl NoTls {
    /// Reads what rustls says, at which it may say so while it is `connecting` or later.
    pub(super) fn of(error: &rustls::Error, connecting: bool) -> Option<Self> {
        let words = || one_line(&error.to_string()).unwrap_or_default();
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Some(Self::Certificate("nobody whom this machine trusts vouches for its certificate".into()))
            }
            rustls::Error::InvalidCertificate(CertificateError::Other(why))
                if why.to_string().contains(OWN_AUTHORITY) =>
            {
                let words = "its certificate is its own authority, and not one that this machine trusts";
                Some(Self::Certificate(words.into()))
            }
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
                let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY;
                Some(Self::Unfit(format!("its certificate has expired: {} ago", counted(days, "day"))))
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
                let days = not_before.as_secs().saturating_sub(time.as_secs()) / DAY;
                let days = counted(days, "day");
                Some(Self::Unfit(format!(
                    "its certificate is not valid yet: in {days}, by this machine's clock"
                )))
            }
            rustls::Error::InvalidCertificate(_) => Some(Self::Unfit(words())),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) if connecting => {
                Some(Self::Protocol("what it answers is no TLS".into()))
            }
            // Old and new versions of TLS say it at different times.
            rustls::Error::AlertReceived(
                Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::UnsupportedCertificate,
            ) => Some(Self::Identity(words())),
            // Servers that want to know who we are say no more in TLS 1.2.
            rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_) if connecting => {
                Some(Self::Refusal(words()))
            }
            _ => connecting.then(|| Self::Protocol(words())),
        }
    }

    /// Puts it into our words; `base` is the registry, which may have sent us elsewhere.
    pub(in crate::registry) fn into_error(self, url: &Url, base: &Url) -> Error {
        let host = origin(url);
        match self {
            Self::Identity(_) => Error::new(ErrorKind::Denied, format!("{host} wants to know who we are"))
                .with_hint("`NAME.cert` and `NAME.key` in `--cert-dir DIR` or in `certs.d/HOST` say so"),
            _ if url.host() != base.host() => {
                let words = format!("no TLS connection to {host}, where {} sends us", origin(base));
                Error::new(ErrorKind::Network, words).with_hint(match self {
                    Self::Protocol(_) => NO_ADDRESS,
                    _ => self.way_out(),
                })
            }
            _ => Error::new(ErrorKind::Network, format!("no TLS connection to {host}"))
                .with_hint(self.way_out()),
        }
        .because(self)
    }

    const fn way_out(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "`--plain-http` does without TLS",
            Self::Refusal(_) => {
                "it may want `NAME.cert` and `NAME.key` in `--cert-dir DIR`, or speak no TLS since 1.2"
            }
            Self::Unfit(_) => "no authority helps there; `--insecure` believes whoever answers",
            _ => "`--ca-file` adds a certificate authority, `--insecure` believes whoever answers",
        }
    }
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(words)
        | Self::Identity(words)
        | Self::Protocol(words)
        | Self::Refusal(words)
        | Self::Unfit(words)) = self;
        f.write_str(words)
    }
}

impl std::error::Error for NoTls {}

/// What makes a registry send us where it is not.
const NO_ADDRESS: &str = "if the registry is not to be found there, the proxy before it has to pass on `Host` and `X-Forwarded-Proto`";

/// In seconds.
const DAY: u64 = 24 * 60 * 60;

/// What webpki says of a certificate that is its own authority.
pub(super) const OWN_AUTHORITY: &str = "CaUsedAsEndEntity";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_tls_is_not_to_be_asked_without() {
        let base = Url::parse("https://r.example.com").unwrap();
        let old = rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into();
        for (said, plain) in [
            (rustls::Error::AlertReceived(Alert::HandshakeFailure), false),
            (rustls::Error::AlertReceived(Alert::ProtocolVersion), false),
            (old, false),
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), true),
            (rustls::Error::InvalidMessage(InvalidMessage::MessageTooLarge), true),
        ] {
            let error = NoTls::of(&said, true).unwrap().into_error(&base, &base);
            assert_eq!(error.kind(), ErrorKind::Network);
            assert_eq!(error.hints()[0].contains("--plain-http"), plain, "{said}: {error:?}");
        }
    }
}
