//! Tokens: asking a realm for one, reading its answer, and how long it lives.
//!
//! Realms pass through the guard, and one without TLS is asked only on the registry's own host. A password goes
//! there as Basic by GET, a refresh token by POST as OAuth2 has it, or by GET where the server is older.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::{
    error::{Error, ErrorKind, Result},
    registry::{
        body::Payload,
        credentials::{Credential, Secret},
        location::{REDIRECTS, keep_origin},
        origin::{is_same_server, origin},
        retry::is_transient,
        session::Fault,
        transport::{Incoming, Outgoing, Transport},
    },
};

/// Tokens with long lists of rights are a few KiB.
const ANSWER_LIMIT: usize = 256 << 10;

/// What a token lives when nobody says (the distribution project's token specification).
const LIFE: Duration = Duration::from_secs(60);

/// Told to token servers.
const CLIENT_ID: &str = "longshore";

/// One question to a token server.
pub(super) struct TokenRequest {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scopes: Vec<String>,
}

impl TokenRequest {
    /// Gets a token for whoever has this credential, or for anybody.
    pub(super) async fn fetch(
        &self,
        transport: &Transport,
        credential: Option<&Credential>,
    ) -> Result<Token, Fault> {
        let base = transport.base();
        let realm = self.realm(&base);
        transport.guard.check(&realm, &base).map_err(Fault::Fatal)?;
        if realm.scheme() == "http" && realm.host() != base.host() {
            let words = format!("the token server {} is another host and has no TLS", origin(&realm));
            return Err(Fault::Fatal(Error::new(ErrorKind::Refused, words)));
        }
        if let Some(Credential::Identity(token)) = credential {
            let answer = follow(transport, || Ok(self.post(realm.clone(), token))).await?;
            // Token servers older than OAuth2 know only GET.
            if !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
                return Token::of(&answer);
            }
        }
        let answer = follow(transport, || self.get(realm.clone(), credential)).await?;
        Token::of(&answer)
    }

    /// Returns where to ask: a registry behind a proxy that speaks TLS for it may not know that of its realm either.
    fn realm(&self, registry: &Url) -> Url {
        let mut realm = self.realm.clone();
        if realm.port().is_none() && (registry.scheme(), realm.scheme()) == ("https", "http") {
            keep_origin(&mut realm, registry);
        }
        realm
    }

    fn get(&self, mut url: Url, credential: Option<&Credential>) -> Result<Outgoing, Fault> {
        let mut headers = HeaderMap::new();
        let mut query = url.query_pairs_mut();
        query.extend_pairs(self.service.iter().map(|service| ("service", service)));
        query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        query.append_pair("client_id", CLIENT_ID);
        match credential {
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
        Ok(Outgoing { headers, limit: ANSWER_LIMIT, ..Outgoing::new(Method::GET, url) })
    }

    fn post(&self, realm: Url, token: &Secret) -> Outgoing {
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
            limit: ANSWER_LIMIT,
            ..Outgoing::new(Method::POST, realm)
        }
    }
}

/// What a registry is shown, for a time.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    pub(super) expires: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Token {
    fn of(answer: &Incoming) -> Result<Self, Fault> {
        if !answer.status.is_success() {
            let refusal = answer.refusal();
            if is_transient(refusal.status) {
                return Err(Fault::Connect { why: refusal.to_string() });
            }
            return Err(Fault::Fatal(refusal.into_error("getting a token")));
        }
        if answer.is_cut_off(ANSWER_LIMIT) {
            return Err(Fault::Connect { why: format!("{} broke its answer off", origin(&answer.url)) });
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

/// Asks, and asks again where the token server has moved the question to, by a slash or to TLS. Nobody else is shown
/// what it carries.
async fn follow(
    transport: &Transport,
    question: impl Fn() -> Result<Outgoing, Fault>,
) -> Result<Incoming, Fault> {
    let mut moved = None;
    for _ in 0..=REDIRECTS {
        let mut asked = question()?;
        asked.url = moved.take().unwrap_or(asked.url);
        let answer = transport.send(asked).await?;
        let Some(target) = answer.redirect(&transport.guard)? else { return Ok(answer) };
        if !is_same_server(&target, &answer.url) {
            return Ok(answer);
        }
        moved = Some(target);
    }
    let words = "the token server redirects in a circle";
    Err(Fault::Fatal(Error::new(ErrorKind::Refused, words)))
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
pub(super) fn joined(mut ours: Vec<String>, theirs: Vec<String>) -> Vec<String> {
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

pub(super) fn basic(user: &str, password: &Secret) -> Result<HeaderValue, Fault> {
    authorization("Basic", &BASE64_STANDARD.encode(format!("{user}:{}", password.reveal())))
}

pub(super) fn bearer(token: &str) -> Result<HeaderValue, Fault> {
    authorization("Bearer", token)
}

/// Returns whether an `Authorization` shows a password as it is.
pub(in crate::registry) fn is_basic(authorization: &HeaderValue) -> bool {
    authorization.as_bytes().starts_with(b"Basic ")
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

    #[test]
    fn scopes_are_added_where_ours_do_not_cover_them() {
        let ours = || vec!["repository:a:pull,push".to_owned(), "repository:b:pull".to_owned()];
        for covered in ["repository:a:pull", "repository:a:push,pull", "repository:b:pull"] {
            assert_eq!(joined(ours(), vec![covered.into()]), ours(), "{covered}");
        }
        for new in ["repository:a:delete", "repository:a:pull,delete", "repository:library/a:pull", "odd"] {
            assert_eq!(joined(ours(), vec!["strange".into(), new.into()]).last().unwrap(), new);
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
            (r#"{"token":""}"#.to_owned(), None),
            ("<html>".to_owned(), None),
        ] {
            assert_eq!(lives(body.clone()), life, "{body}");
        }
    }

    #[test]
    fn a_realm_that_forgets_our_tls_is_asked_with_it() {
        for (registry, realm, asked) in [
            ("https://r.example.com", "http://r.example.com/token?x=1", "https://r.example.com/token?x=1"),
            ("https://r.example.com:8443", "http://r.example.com/token", "https://r.example.com:8443/token"),
            ("https://r.example.com", "https://r.example.com:5001/auth", "https://r.example.com:5001/auth"),
            ("http://r.example.com:5000", "http://r.example.com/token", "http://r.example.com/token"),
            // Another port is somebody else, and another host is too.
            ("https://r.example.com", "http://r.example.com:5001/auth", "http://r.example.com:5001/auth"),
            ("https://r.example.com", "http://auth.example.com/", "http://auth.example.com/"),
        ] {
            let request = TokenRequest { realm: realm.parse().unwrap(), service: None, scopes: Vec::new() };
            assert_eq!(request.realm(&registry.parse().unwrap()).as_str(), asked, "{registry}");
        }
    }

    #[test]
    fn a_token_is_not_seen() {
        let token = Token::read(br#"{"token":"xyzzy"}"#).unwrap();
        assert!(!format!("{token:?} {:?}", token.header).contains("xyzzy"));
    }
}
