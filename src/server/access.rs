//! Who may use the registry: everybody who can reach it, or whoever knows a name and a password.
//!
//! The password is not kept, only the digest of `name:password`: nothing can leak it, and comparing digests
//! tells a guesser nothing by how long it takes.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode, header};

use super::reply::Refusal;
use crate::oci::Digest;

/// Who may use the registry.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Whoever knows these, by HTTP Basic authentication.
    Basic(Credentials),
    /// Whoever can reach it.
    #[default]
    Open,
}

/// A name and a password, of which only a digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Digest);

impl Access {
    /// Lets in whoever shows this name and password.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic(Credentials::new(user, password))
    }

    /// Refuses a request that does not show what is asked for.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Open => Ok(()),
            Self::Basic(expected) if shown(headers).as_ref() == Some(expected) => Ok(()),
            Self::Basic(_) => {
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
                    .with(header::WWW_AUTHENTICATE, "Basic realm=\"longshore\""))
            }
        }
    }
}

impl Credentials {
    /// Takes note of a name and a password.
    pub fn new(user: &str, password: &str) -> Self {
        Self(Digest::of(format!("{user}:{password}").as_bytes()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Returns the credentials of an `Authorization` header.
fn shown(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    Some(Credentials(Digest::of(&STANDARD.decode(encoded.trim()).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: Option<&str>) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        Access::basic("me", "secret").check(&headers)
    }

    #[test]
    fn only_the_right_name_and_password_open() {
        check(Some(&format!("Basic {}", STANDARD.encode("me:secret")))).unwrap();
        check(Some(&format!("basic {}", STANDARD.encode("me:secret")))).unwrap();
        for wrong in [
            None,
            Some("Basic"),
            Some("Basic !"),
            Some("Bearer x"),
            Some(&*format!("Basic {}", STANDARD.encode("me:secrets"))),
        ] {
            assert_eq!(check(wrong).unwrap_err().reply().status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", Access::basic("me", "secret")).contains("secret"));
    }
}
