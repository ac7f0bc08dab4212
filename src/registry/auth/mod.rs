//! Getting in: challenges, and the tokens that answer them.
//!
//! Nothing is shown before the registry asks: a 401 brings a [`Challenge`], which is remembered and from then
//! on answered in advance, per scope. Basic shows the login; Bearer fetches a token from the realm, once for
//! all who wait, and again before it is too old for the body it shall carry. Refusals name where the credential came from,
//! never the credential.

mod challenge;
mod logins;
mod token;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

pub use self::challenge::Challenge;
pub(super) use self::token::is_basic;
use self::{
    logins::Logins,
    token::{Token, TokenRequest, basic, bearer, joined},
};
use super::{
    credentials::{Credential, Credentials, Login},
    registry_error::RegistryError,
    session::Fault,
    transport::Transport,
};
use crate::error::{Error, ErrorKind, Result};

/// What a request needs to be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// Empty for nothing but being let in.
    pub(crate) repository: String,
    /// A blob is to be mounted from here.
    pub(crate) from: Option<String>,
}

impl Scope {
    pub(crate) fn of(repository: &str) -> Self {
        Self { repository: repository.to_owned(), from: None }
    }

    fn names(&self) -> Vec<String> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let push = format!("repository:{}:pull,push", self.repository);
        let mount = self.from.iter().map(|from| format!("repository:{from}:pull"));
        std::iter::once(push).chain(mount).collect()
    }
}

/// Answers the challenges of one registry.
#[derive(Debug)]
pub(crate) struct Authenticator {
    logins: Logins,
    /// The newest challenge: repositories that were not yet asked for will be asked the same.
    challenge: Mutex<Option<Challenge>>,
    grants: Mutex<HashMap<Scope, Arc<AsyncMutex<Grant>>>>,
    /// The repositories of which a question was answered to our login.
    answered: Mutex<HashSet<String>>,
}

/// What one scope has got so far.
#[derive(Debug, Default)]
struct Grant {
    challenge: Option<Challenge>,
    token: Option<Token>,
    /// The credential was refused: asking again would only lock an account.
    denied: Option<Error>,
    /// When the token server last had no answer, and why.
    broke: Option<(Instant, Fault)>,
}

impl Authenticator {
    pub(crate) fn new(host: &str, credentials: Credentials) -> Result<Self> {
        Ok(Self {
            logins: Logins::new(host, credentials)?,
            challenge: Mutex::default(),
            grants: Mutex::default(),
            answered: Mutex::default(),
        })
    }

    /// Returns what the registry has asked for so far, if anything.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().clone()
    }

    /// Says whose credentials are shown for a repository and where they come from, or where they were looked
    /// for. Never the secret.
    pub(crate) fn source(&self, repository: &str) -> String {
        self.logins.known(repository).map_or_else(|error| error.to_string(), |login| login.source)
    }

    /// Says whose credentials are shown for a repository, and where they come from, or that they are nobody's.
    pub(crate) fn account(&self, repository: &str) -> String {
        match self.logins.known(repository) {
            Ok(Login { credential: None, .. }) => "nobody".to_owned(),
            Ok(login) => login.source,
            Err(error) => error.to_string(),
        }
    }

    /// Takes note that the registry has answered what our login asked about a repository.
    pub(crate) fn answered(&self, repository: &str) {
        self.answered.lock().insert(repository.to_owned());
    }

    /// Adds to a refusal of our credentials whose they were, unless it says so already, and what to do.
    pub(crate) fn explain(&self, repository: &str, error: Error) -> Error {
        if error.kind() != ErrorKind::Denied {
            return error;
        }
        let Ok(login) = self.logins.known(repository) else { return error };
        let refusal = error.find::<RegistryError>();
        let status = refusal.map(|refusal| refusal.status);
        // A page is a proxy's, which may mind something else.
        let is_let_in = login.credential.is_some()
            && refusal.is_some_and(|refusal| refusal.opens_upload() && !refusal.page)
            && self.answered.lock().contains(repository);
        let hint = match (status, self.challenge(), &login.credential) {
            (Some(401), None, Some(_)) => {
                format!("{} was not shown: the registry asks for no login by Basic or Bearer", login.source)
            }
            (Some(401), Some(Challenge::Basic), Some(Credential::Identity(_))) => {
                format!("{} was not shown: the registry asks for a user and a password", login.source)
            }
            _ => login.hint(),
        };
        if error.hints().contains(&hint.as_str()) {
            return error;
        }
        let error = error.with_hint(hint);
        // Who was answered, or is forbidden something, has been let in; and who logs in knows how.
        if is_let_in {
            error.with_hint(format!(
                "the registry knows this login, but does not let it push to `{}/{repository}`",
                self.logins.host
            ))
        } else if status == Some(403) || repository.is_empty() {
            error
        } else {
            error.with_hint(format!("log in by `longshore login {}`", self.logins.host))
        }
    }

    /// Returns the `Authorization` header for a request that will go on for `outlive`, if one is asked for.
    pub(crate) async fn authorization(
        &self,
        transport: &Transport,
        scope: &Scope,
        outlive: Duration,
    ) -> Result<Option<HeaderValue>, Fault> {
        let (grant, asked) = (self.grant(scope), Instant::now());
        let mut grant = grant.lock().await;
        // Whoever waited for somebody else's question has heard what became of it.
        if let Some((at, fault)) = &grant.broke
            && *at >= asked
        {
            return Err(fault.clone());
        }
        if grant.challenge.is_none() {
            // Its scopes are another repository's: who may not have those would get nothing.
            grant.challenge = self.challenge().map(Challenge::without_scopes);
        }
        let Some(challenge) = grant.challenge.clone() else { return Ok(None) };
        let login = self.logins.find(&scope.repository).await.map_err(Fault::Fatal)?;
        match (challenge, &login.credential) {
            (_, Some(Credential::Token(token))) => Ok(Some(bearer(token.reveal())?)),
            (Challenge::Basic, Some(Credential::Login { user, password })) => {
                Ok(Some(basic(user, password)?))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scopes }, _) => {
                let wanted = TokenRequest { realm, service, scopes: joined(scope.names(), scopes) };
                match self.token(transport, &scope.repository, &mut grant, &wanted, outlive).await {
                    // The source of a mount may be what is forbidden: without it the mount fails, and nothing else.
                    Err(Fault::Fatal(error)) if error.kind() == ErrorKind::Denied && scope.from.is_some() => {
                        drop(grant);
                        let narrow = Scope::of(&scope.repository);
                        Box::pin(self.authorization(transport, &narrow, outlive)).await
                    }
                    Err(Fault::Fatal(error)) => Err(Fault::Fatal(self.explain(&scope.repository, error))),
                    other => other.map(Some),
                }
            }
        }
    }

    /// Takes note of a 401: what it asks for, and that `shown` was not enough. Returns whether there is now
    /// something else to show.
    pub(crate) async fn refused(
        &self,
        scope: &Scope,
        shown: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> bool {
        let grant = self.grant(scope);
        let mut grant = grant.lock().await;
        // Somebody else may have got a newer one in the meantime.
        if grant.token.as_ref().map(|token| &token.header) == shown {
            grant.token = None;
        }
        // What was asked of others may have been learned while this one was under way.
        let asked = Challenge::read(headers).or_else(|| self.challenge().filter(|_| shown.is_none()));
        let Some(challenge) = asked else { return false };
        *self.challenge.lock() = Some(challenge.clone());
        grant.challenge = Some(challenge.clone());
        // Why a helper fails is said when its credential is wanted.
        let Ok(login) = self.logins.find(&scope.repository).await else { return shown.is_none() };
        match (&challenge, &login.credential) {
            (Challenge::Basic, Some(Credential::Login { user, password })) => {
                let other = basic(user, password).is_ok_and(|newest| Some(&newest) != shown);
                other || self.logins.renew(&login).await
            }
            (_, Some(Credential::Token(_))) => shown.is_none(),
            (Challenge::Basic, _) => false,
            (Challenge::Bearer { .. }, _) => true,
        }
    }

    fn grant(&self, scope: &Scope) -> Arc<AsyncMutex<Grant>> {
        let mut grants = self.grants.lock();
        Arc::clone(grants.entry(scope.clone()).or_default())
    }

    async fn token(
        &self,
        transport: &Transport,
        repository: &str,
        grant: &mut Grant,
        wanted: &TokenRequest,
        outlive: Duration,
    ) -> Result<HeaderValue, Fault> {
        if let Some(error) = &grant.denied {
            return Err(Fault::Fatal(error.clone()));
        }
        if let Some(token) = &grant.token
            && token.expires.saturating_duration_since(Instant::now()) > outlive
        {
            return Ok(token.header.clone());
        }
        let mut login = self.logins.find(repository).await.map_err(Fault::Fatal)?;
        let mut answer = wanted.fetch(transport, login.credential.as_ref()).await;
        if matches!(&answer, Err(Fault::Fatal(error)) if error.kind() == ErrorKind::Denied)
            && self.logins.renew(&login).await
        {
            login = self.logins.find(repository).await.map_err(Fault::Fatal)?;
            answer = wanted.fetch(transport, login.credential.as_ref()).await;
        }
        match answer {
            Ok(token) => Ok(grant.token.insert(token).header.clone()),
            Err(fault) => {
                match &fault {
                    Fault::Fatal(error) => grant.denied = Some(error.clone()),
                    passing => grant.broke = Some((Instant::now(), passing.clone())),
                }
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::registry::credentials::Secret;

    #[test]
    fn a_scope_is_what_the_request_needs() {
        let mount = Scope { repository: "a".into(), from: Some("b".into()) };
        assert_eq!(mount.names(), ["repository:a:pull,push", "repository:b:pull"]);
        assert_eq!(Scope::of("").names(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_401_without_a_challenge_asks_what_others_were_asked() {
        let mut credentials = Credentials::default();
        let (user, password) = ("bob".to_owned(), Secret::new("xyzzy"));
        let shown = basic(&user, &password).unwrap();
        credentials.give("a test", Credential::Login { user, password });
        let auth = Authenticator::new("registry.example", credentials).unwrap();
        let scope = Scope::of("demo");
        let bare = HeaderMap::new();
        assert!(!auth.refused(&scope, None, &bare).await, "nobody was asked anything");
        let challenge = HeaderMap::from_iter([(header::WWW_AUTHENTICATE, "Basic".parse().unwrap())]);
        assert!(auth.refused(&scope, None, &challenge).await);
        assert!(auth.refused(&scope, None, &bare).await);
        assert!(!auth.refused(&scope, Some(&shown), &bare).await, "there is nothing else to show");
    }
}
