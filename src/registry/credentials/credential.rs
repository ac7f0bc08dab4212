//! What gets us in. A secret has no `Display`, and its `Debug` is empty.

use std::fmt;

/// Something that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What can be shown to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A refresh token, to be traded for tokens at the registry's token server.
    Identity(Secret),
    /// A user and password.
    Login {
        /// Who.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// A token for the registry itself.
    Token(Secret),
}

impl Credential {
    /// Reads a pair as docker keeps it, where one user stands for a refresh token.
    pub(super) fn of(user: &str, password: &str) -> Option<Self> {
        match user {
            "" => None,
            "<token>" => Some(Self::Identity(Secret::new(password))),
            _ => Some(Self::Login { user: user.to_owned(), password: Secret::new(password) }),
        }
    }
}
