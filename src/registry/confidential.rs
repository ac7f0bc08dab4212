//! What a request tells its server in confidence, and nobody else may see when it comes back: the page of many a proxy
//! shows the request that it refuses, and so does a registry that is being debugged.
//!
//! That is the credential, what an upload session is known by, and whatever a `Location` has in its query. Our own
//! parameters (digests, scopes) are no secret: messages are about them.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use url::{Url, form_urlencoded};

use super::{body::Payload, location::nameless};

/// Shorter ones are parts of ordinary words.
const SHORTEST: usize = 4;

/// The parameters that we add to an address ourselves.
const OURS: [&str; 9] =
    ["account", "client_id", "digest", "digest-algorithm", "from", "mount", "scope", "service", "tag"];

/// Parts of the names of what a signed address proves itself by: Amazon's, Google's, Azure's, and the `_state` of uploads.
const PROOFS: [&str; 9] = ["auth", "cred", "jwt", "key", "policy", "secret", "sig", "state", "token"];

/// What is longer and has no name that we know may be such a proof as well.
const LONGEST_PLAIN: usize = 40;

/// What one request has told in confidence.
#[derive(Clone, Default)]
pub(super) struct Confidential(Vec<String>);

impl Confidential {
    /// Notes it for a request that goes through `proxy`, if it goes through any.
    pub(super) fn of(url: &Url, headers: &HeaderMap, payload: &Payload, proxy: Option<&Url>) -> Self {
        let mut told = Vec::new();
        if let Some((user, password)) = proxy.and_then(|proxy| Some((proxy.username(), proxy.password()?))) {
            let [user, password] = [user, password].map(decoded);
            told.push(BASE64_STANDARD.encode(format!("{user}:{password}")));
            told.push(password);
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some((scheme, credential)) = authorization.and_then(|value| value.split_once(' ')) {
            let plain = BASE64_STANDARD.decode(credential).ok().filter(|_| scheme == "Basic");
            let plain = plain.and_then(|plain| String::from_utf8(plain).ok());
            told.extend(plain.and_then(|plain| Some(plain.split_once(':')?.1.to_owned())));
            told.push(credential.to_owned());
        }
        let shown = nameless(url.path());
        let session = shown.strip_suffix('…').and_then(|shown| url.path().strip_prefix(shown));
        told.extend(session.map(str::to_owned));
        // As it was written, and as a page may write it.
        for parameter in url.query().unwrap_or_default().split('&') {
            let pairs = form_urlencoded::parse(parameter.as_bytes());
            for (_, value) in pairs.filter(|(name, _)| !OURS.contains(&name.as_ref())) {
                let raw = parameter.split_once('=').map(|(_, value)| value.to_owned());
                told.extend([parameter.to_owned(), value.into_owned()].into_iter().chain(raw));
            }
        }
        if let Payload::Bytes(bytes) = payload {
            let form = form_urlencoded::parse(bytes).filter(|(name, _)| name == "refresh_token");
            told.extend(form.map(|(_, token)| token.into_owned()));
        }
        told.retain(|secret| secret.len() >= SHORTEST);
        // What is a part of another must not cut it in two.
        told.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(told)
    }

    /// Returns what may be seen of a text. The addresses in it need not be ours: a registry may tell those that it
    /// signed for itself.
    pub(super) fn hide(&self, text: &str) -> String {
        without_proofs(&self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…")))
    }
}

/// Hides the parameters of addresses that may let somebody in. Others are words for the user: Google names the
/// project in which something has to be allowed.
fn without_proofs(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'`<>)\\".contains(c);
    let proves = |name: &str, value: &str| {
        let name = name.to_ascii_lowercase();
        PROOFS.iter().any(|proof| name.contains(proof)) || value.len() > LONGEST_PLAIN
    };
    let hidden = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if !OURS.contains(&name) && proves(name, value) => "…".to_owned(),
        _ => parameter.to_owned(),
    };
    let mut parts = text.split('?');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (query, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        let query = query.split('&').map(hidden).collect::<Vec<_>>().join("&");
        shown.extend(["?", &query, rest]);
    }
    shown
}

/// Decodes what stands before the `@` of an address: like a form, but for its signs.
fn decoded(part: &str) -> String {
    let form = part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(form.as_bytes()).map(|(name, _)| name).collect()
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confidential(…)")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn seen(url: &str, authorization: &str, form: &'static str, text: &str) -> String {
        let value = HeaderValue::try_from(authorization).unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let proxy = "http://u:p%2fxy@proxy:3128".parse().unwrap();
        let confidential =
            Confidential::of(&url.parse().unwrap(), &headers, &Payload::Bytes(form.into()), Some(&proxy));
        assert_eq!(format!("{confidential:?}"), "Confidential(…)");
        confidential.hide(text)
    }

    #[test]
    fn what_was_told_in_confidence_is_not_seen() {
        let upload = "https://r/v2/a/blobs/uploads/1-2-3?_state=a%2Bb+c==&digest=sha256%3Aabcdef";
        // me:xyzzy
        let basic = "Basic bWU6eHl6enk=";
        for (text, shown) in [
            ("PUT /v2/a/blobs/uploads/1-2-3?_state=a%2Bb+c==", "PUT /v2/a/blobs/uploads/…?…"),
            ("state=a%2Bb+c==", "state=…"),
            ("the state a+b c== is old", "the state … is old"),
            ("digest sha256:abcdef, sha256%3Aabcdef", "digest sha256:abcdef, sha256%3Aabcdef"),
            ("authorization: Basic bWU6eHl6enk=", "authorization: Basic …"),
            ("me may not come in with xyzzy", "me may not come in with …"),
            ("proxy-authorization: Basic dTpwL3h5, p/xy", "proxy-authorization: Basic …, …"),
            ("nothing else", "nothing else"),
            ("what? a=b", "what? a=b"),
            (
                "see https://s3/x?X-Sig=ab/c==&digest=sha256:0&y=1 (or <http://r?_state=1>)",
                "see https://s3/x?…&digest=sha256:0&y=1 (or <http://r?…>)",
            ),
        ] {
            assert_eq!(seen(upload, basic, "", text), shown);
        }
        let form = "grant_type=refresh_token&scope=x&refresh_token=to%2Fken";
        assert_eq!(
            seen("https://r/token", "Bearer abcd", form, "abcd to/ken refresh_token"),
            "… … refresh_token"
        );
        assert_eq!(seen("https://r/artifacts/uploads/AJ", "Basic ?", "", "no uploads/AJ"), "no …");
        // A password of three letters is in every sentence: `me:abc`.
        assert_eq!(seen("https://r/v2/", "Basic bWU6YWJj", "", "abc"), "abc");
    }
}
