//! Getting in: challenges, and the tokens that answer them.
//!
//! Nothing is shown before the registry asks: a 401 brings a [`Challenge`], which is remembered and from then
//! on answered in advance, per scope. Basic shows the login; Bearer fetches a token from the realm, once for
//! all who wait, and again before it is too old for the body it shall carry. Realms pass through the
//! guard. Refusals name where the credential came from, never the credential.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_auth::ChallengeParser;
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use url::{Url, form_urlencoded};

use super::{
    credentials::{Credential, Credentials, Login, Secret},
    guard::origin,
    retry::is_transient,
    session::Fault,
    transport::{Incoming, Outgoing, Payload, Transport},
};
use crate::error::{Error, ErrorKind, Result};

/// Tokens with long lists of rights are a few KiB.
const ANSWER_LIMIT: usize = 256 << 10;

/// What a token lives when nobody says (the distribution project's token specification).
const LIFE: Duration = Duration::from_secs(60);

/// A token server that takes longer is down.
const PATIENCE: Duration = Duration::from_secs(60);

/// Told to token servers.
const CLIENT_ID: &str = "longshore";

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// Where.
        realm: Url,
        /// What the registry calls itself there.
        service: Option<String>,
        /// What it asks for.
        scopes: Vec<String>,
    },
}

impl Challenge {
    /// Reads the `WWW-Authenticate` headers of an answer: the first usable Bearer, else Basic.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
            // A syntax error voids what follows it, not what was read before.
            for challenge in ChallengeParser::new(value).map_while(std::result::Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    // Nexus has sent `null://` (gh:sonatype/nexus-public#580).
                    let realm = parameter("realm").and_then(|realm| realm.parse::<Url>().ok());
                    let Some(realm) = realm.filter(|realm| matches!(realm.scheme(), "http" | "https")) else {
                        continue;
                    };
                    let scopes = parameter("scope").unwrap_or_default();
                    let scopes = scopes.split_ascii_whitespace().map(str::to_owned).collect();
                    return Some(Self::Bearer { realm, service: parameter("service"), scopes });
                }
            }
        }
        basic
    }
}

/// What a request needs to be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) repository: String,
    /// A blob is to be mounted from here.
    pub(crate) from: Option<String>,
}

impl Scope {
    pub(crate) fn of(repository: &str) -> Self {
        Self { repository: repository.to_owned(), from: None }
    }

    fn names(&self) -> Vec<String> {
        let push = format!("repository:{}:pull,push", self.repository);
        let mount = self.from.iter().map(|from| format!("repository:{from}:pull"));
        std::iter::once(push).chain(mount).collect()
    }
}

/// Answers the challenges of one registry.
#[derive(Debug)]
pub(crate) struct Authenticator {
    /// As the user wrote it.
    host: String,
    credentials: Credentials,
    /// The newest challenge: repositories that were not yet asked for will be asked the same.
    challenge: Mutex<Option<Challenge>>,
    grants: Mutex<HashMap<Scope, Arc<AsyncMutex<Grant>>>>,
}

/// What one scope has got so far.
#[derive(Debug, Default)]
struct Grant {
    challenge: Option<Challenge>,
    token: Option<Token>,
    /// The credential was refused: asking again would only lock an account.
    denied: Option<Error>,
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Authenticator {
    pub(crate) fn new(host: &str, credentials: Credentials) -> Self {
        Self { host: host.to_owned(), credentials, challenge: Mutex::default(), grants: Mutex::default() }
    }

    /// Finds what is shown for a repository, and where it comes from.
    pub(crate) fn login(&self, repository: &str) -> Login {
        self.credentials.find(&self.host, repository)
    }

    /// Returns the `Authorization` header for a request that will go on for `outlive`, if one is asked for.
    pub(crate) async fn authorization(
        &self,
        transport: &Transport,
        scope: &Scope,
        outlive: Duration,
    ) -> Result<Option<HeaderValue>, Fault> {
        let grant = self.grant(scope);
        let mut grant = grant.lock().await;
        if grant.challenge.is_none() {
            grant.challenge.clone_from(&self.challenge.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let Some(challenge) = grant.challenge.clone() else { return Ok(None) };
        let login = self.login(&scope.repository);
        match (challenge, &login.credential) {
            (_, Some(Credential::Token(token))) => Ok(Some(bearer(token.reveal())?)),
            (Challenge::Basic, Some(Credential::Login { user, password })) => {
                Ok(Some(basic(user, password)?))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scopes }, credential) => {
                let wanted =
                    TokenRequest { realm, service, scopes: joined(scope.names(), scopes), credential };
                match self.token(transport, &mut grant, &wanted, outlive).await {
                    // The source of a mount may be what is forbidden: without it the mount fails, and nothing else.
                    Err(Fault::Fatal(error)) if error.kind() == ErrorKind::Denied && scope.from.is_some() => {
                        drop(grant);
                        let narrow = Scope::of(&scope.repository);
                        Box::pin(self.authorization(transport, &narrow, outlive)).await
                    }
                    Err(Fault::Fatal(error)) if error.kind() == ErrorKind::Denied => {
                        Err(Fault::Fatal(error.with_hint(login.hint())))
                    }
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
        let Some(challenge) = Challenge::read(headers) else { return false };
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
        let more = match (&challenge, self.login(&scope.repository).credential) {
            (_, Some(Credential::Token(_))) | (Challenge::Basic, Some(Credential::Login { .. })) => {
                shown.is_none()
            }
            (Challenge::Basic, _) => false,
            (Challenge::Bearer { .. }, _) => true,
        };
        grant.challenge = Some(challenge);
        more
    }

    fn grant(&self, scope: &Scope) -> Arc<AsyncMutex<Grant>> {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(grants.entry(scope.clone()).or_default())
    }

    async fn token(
        &self,
        transport: &Transport,
        grant: &mut MutexGuard<'_, Grant>,
        wanted: &TokenRequest<'_>,
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
        let token = match wanted.fetch(transport).await {
            Ok(token) => token,
            Err(fault) => {
                if let Fault::Fatal(error) = &fault {
                    grant.denied = Some(error.clone());
                }
                return Err(fault);
            }
        };
        Ok(grant.token.insert(token).header.clone())
    }
}

/// One question to a token server.
struct TokenRequest<'a> {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
    credential: &'a Option<Credential>,
}

impl TokenRequest<'_> {
    async fn fetch(&self, transport: &Transport) -> Result<Token, Fault> {
        let base = transport.base();
        transport.guard.check(&self.realm, &base).map_err(Fault::Fatal)?;
        if self.realm.scheme() == "http" && self.realm.host() != base.host() {
            let words = format!("the token server {} is another host and has no TLS", origin(&self.realm));
            return Err(Fault::Fatal(Error::new(ErrorKind::Refused, words)));
        }
        if let Some(Credential::Identity(token)) = self.credential {
            let answer = transport.send(self.post(token)).await?;
            // Token servers older than OAuth2 know only GET.
            if !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
                return Token::of(&answer, &Method::POST);
            }
        }
        let answer = transport.send(self.get()?).await?;
        Token::of(&answer, &Method::GET)
    }

    fn get(&self) -> Result<Outgoing, Fault> {
        let mut headers = HeaderMap::new();
        let mut url = self.realm.clone();
        let mut query = url.query_pairs_mut();
        query.extend_pairs(self.service.iter().map(|service| ("service", service)));
        query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        query.append_pair("client_id", CLIENT_ID);
        match self.credential {
            Some(Credential::Login { user, password }) => {
                query.append_pair("account", user);
                headers.insert(header::AUTHORIZATION, basic(user, password)?);
            }
            // As a password of nobody: how docker logs in with a refresh token at servers without OAuth2.
            Some(Credential::Identity(token)) => {
                headers.insert(header::AUTHORIZATION, basic("<token>", token)?);
            }
            Some(Credential::Token(_)) | None => {}
        }
        drop(query);
        Ok(Outgoing { headers, ..ask(Method::GET, url) })
    }

    fn post(&self, token: &Secret) -> Outgoing {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &self.scopes.join(" "))
            .append_pair("refresh_token", token.reveal())
            .finish();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        Outgoing {
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, form_type)]),
            payload: Payload::Bytes(Bytes::from(form)),
            ..ask(Method::POST, self.realm.clone())
        }
    }
}

/// A question without headers or body.
fn ask(method: Method, url: Url) -> Outgoing {
    let (headers, payload) = (HeaderMap::new(), Payload::Empty);
    Outgoing { method, url, headers, payload, patience: PATIENCE, limit: ANSWER_LIMIT }
}

impl Token {
    fn of(answer: &Incoming, method: &Method) -> Result<Self, Fault> {
        if !answer.status.is_success() {
            let refusal = answer.refusal(method);
            if is_transient(refusal.status) {
                return Err(Fault::Connect { why: refusal.to_string() });
            }
            return Err(Fault::Fatal(refusal.into_error("getting a token")));
        }
        Self::read(&answer.body).ok_or_else(|| {
            let words = format!("the token server {} answered without a token", origin(&answer.url));
            Fault::Fatal(Error::new(ErrorKind::Refused, words))
        })
    }

    fn read(body: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(body).ok()?;
        let field = |name: &str| answer.get(name).and_then(Value::as_str).filter(|token| !token.is_empty());
        let token = field("token").or_else(|| field("access_token"))?;
        let stated = answer.get("expires_in").and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let life = stated.map(Duration::from_secs).or_else(|| jwt_life(token)).unwrap_or(LIFE);
        // By our own clock, from now: token servers' clocks are off.
        let expires = Instant::now() + life.min(Duration::from_secs(24 * 60 * 60));
        Some(Self { header: bearer(token).ok()?, expires })
    }
}

/// Reads how long a JWT lives. ACR sends no `expires_in`.
fn jwt_life(token: &str) -> Option<Duration> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let expires = claims.get("exp")?.as_u64()?;
    let issued = match claims.get("iat").and_then(Value::as_u64) {
        Some(issued) => issued,
        None => SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs(),
    };
    Some(Duration::from_secs(expires.saturating_sub(issued)))
}

/// Adds those of the registry's scopes that ours do not cover.
fn joined(mut ours: Vec<String>, theirs: Vec<String>) -> Vec<String> {
    for scope in theirs {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((&scope, ""));
        let covered = ours.iter().any(|our| {
            our.rsplit_once(':').is_some_and(|(our_name, our_actions)| {
                our_name == name
                    && actions.split(',').all(|action| our_actions.split(',').any(|ours| ours == action))
            })
        });
        if !covered {
            ours.push(scope);
        }
    }
    ours
}

fn basic(user: &str, password: &Secret) -> Result<HeaderValue, Fault> {
    authorization("Basic", &BASE64_STANDARD.encode(format!("{user}:{}", password.reveal())))
}

fn bearer(token: &str) -> Result<HeaderValue, Fault> {
    authorization("Bearer", token)
}

fn authorization(scheme: &str, secret: &str) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::try_from(format!("{scheme} {secret}")).map_err(|_| {
        Fault::Fatal(Error::new(ErrorKind::Denied, "the token holds characters that no header takes"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let values = values
            .iter()
            .map(|value| (header::WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        Challenge::read(&values.collect())
    }

    fn bearer_from(realm: &str, service: Option<&str>, scopes: &[&str]) -> Challenge {
        Challenge::Bearer {
            realm: realm.parse().unwrap(),
            service: service.map(str::to_owned),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        }
    }

    #[test]
    fn challenges_are_read_in_every_spelling() {
        for (values, expected) in [
            (vec![r#"Basic realm="x""#], Some(Challenge::Basic)),
            (vec![r#"BASIC realm="Sonatype""#], Some(Challenge::Basic)),
            (
                vec![r#"Bearer realm="https://a/token",service="s",scope="repository:x:pull,push""#],
                Some(bearer_from("https://a/token", Some("s"), &["repository:x:pull,push"])),
            ),
            (
                vec![r#"bearer Service="s", Realm="https://a/token?x=1", scope="a:b:pull c:d:push""#],
                Some(bearer_from("https://a/token?x=1", Some("s"), &["a:b:pull", "c:d:push"])),
            ),
            (
                vec![r#"Basic realm="a, b", Bearer realm="https://a/token""#],
                Some(bearer_from("https://a/token", None, &[])),
            ),
            (
                vec![
                    "Negotiate",
                    r#"Basic realm="x""#,
                    r#"Bearer realm="https://a/t",error="insufficient_scope""#,
                ],
                Some(bearer_from("https://a/t", None, &[])),
            ),
            (vec![r#"Bearer realm="null://""#, r#"Basic realm="x""#], Some(Challenge::Basic)),
            (vec![r#"Bearer realm="/token""#], None),
            (vec![r#"Bearer realm="https://a/t",scope="ü""#, "Basic"], Some(Challenge::Basic)),
            (vec!["Bearer realm=\"unfinished"], None),
            (vec!["", ",,,", "="], None),
            (vec![], None),
        ] {
            assert_eq!(challenge(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn scopes_are_added_where_ours_do_not_cover_them() {
        let ours = || Scope { repository: "a".into(), from: Some("b".into()) }.names();
        assert_eq!(ours(), ["repository:a:pull,push", "repository:b:pull"]);
        for covered in ["repository:a:pull", "repository:a:push,pull", "repository:b:pull"] {
            assert_eq!(joined(ours(), vec![covered.into()]), ours(), "{covered}");
        }
        for new in ["repository:a:delete", "repository:b:push", "repository:library/a:pull", "odd"] {
            assert_eq!(joined(ours(), vec![new.into()]).last().unwrap(), new);
        }
    }

    #[test]
    fn tokens_live_as_long_as_somebody_says() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let lives = |body: String| {
            let token = Token::read(body.as_bytes())?;
            // A second may pass in between.
            Some((token.expires - Instant::now() + Duration::from_secs(1)).as_secs())
        };
        for (body, life) in [
            (r#"{"token":"t"}"#.to_owned(), Some(60)),
            (r#"{"token":"","access_token":"t","expires_in":300}"#.to_owned(), Some(300)),
            (r#"{"token":"t","expires_in":0}"#.to_owned(), Some(60)),
            (r#"{"token":"t","expires_in":20}"#.to_owned(), Some(20)),
            (format!(r#"{{"token":"t","expires_in":{}}}"#, u64::MAX), Some(86_400)),
            (format!(r#"{{"token":"{}"}}"#, jwt(r#"{"iat":100,"exp":1000}"#)), Some(900)),
            (format!(r#"{{"token":"{}"}}"#, jwt("{}")), Some(60)),
            (r#"{"token":"a\nb"}"#.to_owned(), None),
            (r#"{"token":5}"#.to_owned(), None),
            ("<html>".to_owned(), None),
        ] {
            assert_eq!(lives(body.clone()), life, "{body}");
        }
    }

    #[test]
    fn a_token_is_not_seen() {
        let token = Token::read(br#"{"token":"xyzzy"}"#).unwrap();
        assert!(!format!("{token:?} {:?}", token.header).contains("xyzzy"));
    }
}
