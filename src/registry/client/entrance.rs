//! Reaching a registry and being let in, for nothing else: is it one, what does it ask for, and whose login was shown.

use std::time::Duration;

use http::Method;

use super::{Call, Client};
use crate::{
    error::{Error, ErrorKind, Result},
    registry::{
        auth::Challenge,
        origin::origin,
        registry_error::{RegistryError, answered_by},
        transport::{Incoming, NoTls},
    },
};

/// How a registry was reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Contact {
    /// Scheme, host and port.
    pub url: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Who says to have answered: a registry, or proxies in front of it.
    pub server: Option<String>,
    /// How long a request without a body takes over a connection that is there.
    pub round_trip: Duration,
}

/// How one was let in.
#[derive(Debug)]
pub enum Entrance {
    /// By what was shown.
    Guarded,
    /// Without being asked for anything.
    Open,
    /// Not at all: nobody answered.
    Unreachable(Error),
}

impl Client {
    /// Reaches the registry, and is let in with the rights for a repository if one is named.
    pub async fn contact(&self, repository: &str) -> Result<Contact> {
        let doing = format!("reaching `{}`", self.host());
        // The first makes the connection and answers the challenge.
        let mut rights = repository;
        if let Err(error) = self.knock(rights, &doing).await {
            if !self.is_token_refused(&error) {
                return Err(error);
            }
            // pulp_container lets in here who has a token for nothing. What ours is good for shows in the repository.
            rights = "";
            self.knock(rights, &doing).await.map_err(|_| error)?;
        }
        let answer = self.knock(rights, &doing).await?;
        Ok(Contact {
            url: origin(&answer.url),
            tls: answer.url.scheme() == "https",
            version: format!("{:?}", answer.version),
            server: answered_by(&answer.headers).map(|who| answer.confidential.hide(&who)),
            round_trip: answer.elapsed,
        })
    }

    /// Asks to be let in, with whatever the registry demands, and for nothing else.
    pub async fn enter(&self) -> Result<Entrance> {
        match self.knock("", "logging in").await {
            Err(error) if error.kind() == ErrorKind::Network && error.find::<NoTls>().is_none() => {
                Ok(Entrance::Unreachable(error))
            }
            Err(error) => Err(error),
            Ok(_) if self.auth().challenge().is_some() => Ok(Entrance::Guarded),
            Ok(_) => Ok(Entrance::Open),
        }
    }

    /// Returns what the registry has asked for so far, if anything.
    pub fn challenge(&self) -> Option<Challenge> {
        self.auth().challenge()
    }

    /// Says whose credentials are shown for a repository and where they come from, or where they were looked
    /// for. Never the secret.
    pub fn credential_source(&self, repository: &str) -> String {
        self.auth().source(repository)
    }

    /// Says whose credentials are shown for a repository, and where they come from; of nobody's it says no more than
    /// that, wherever they were looked for.
    pub(crate) fn account(&self, repository: &str) -> String {
        self.auth().account(repository)
    }

    /// Adds to a refusal of our credentials whose they were, unless it says so already. Hosts that the registry sends
    /// us to have not seen them.
    pub fn explain(&self, repository: &str, error: Error) -> Error {
        let by = error.find::<RegistryError>().and_then(|refusal| refusal.url.parse().ok());
        if by.is_some_and(|url| !self.may_see_credentials(&url)) {
            return error;
        }
        self.auth().explain(repository, error)
    }

    /// Asks for `/v2/`, with the rights for a repository if one is named; what is there is a registry.
    async fn knock(&self, repository: &str, doing: &str) -> Result<Incoming> {
        let call = Call::new(Method::GET, repository, self.url(""));
        let answer = self.insist(call, || doing.to_owned()).await?;
        if answer.is_absence() {
            return Err(answer.refusal().into_error(doing));
        }
        Ok(answer)
    }

    /// Returns whether a token was got, and not taken for `/v2/`.
    fn is_token_refused(&self, error: &Error) -> bool {
        matches!(self.challenge(), Some(Challenge::Bearer { .. }))
            && error
                .find::<RegistryError>()
                .is_some_and(|refusal| refusal.status == 401 && refusal.url.ends_with("/v2/"))
    }
}
