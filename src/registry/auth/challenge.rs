//! What a 401 asks for: the `WWW-Authenticate` headers, in all their spellings.
//!
//! Several headers, several challenges in one, any case, commas in quotes, schemes that nobody here speaks: all of it
//! is seen. A challenge that is no use (a realm that is no URL) is passed over for the next.

use http::{HeaderMap, header};
use http_auth::{ChallengeParser, ChallengeRef};
use url::Url;

/// A challenge names one or two. A hostile one can name a hundred thousand in one header.
const SCOPES: usize = 16;

/// So many in one header are looked for behind errors.
const CHALLENGES: usize = 16;

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
            let value = single_spaced(value);
            let mut rest = value.as_str();
            for _ in 0..CHALLENGES {
                let mut is_whole = true;
                for challenge in ChallengeParser::new(rest) {
                    match challenge.map(|challenge| Self::of(&challenge)) {
                        Ok(Some(Self::Basic)) => basic = Some(Self::Basic),
                        Ok(Some(bearer)) => return Some(bearer),
                        Ok(None) => {}
                        Err(_) => is_whole = false,
                    }
                }
                // A syntax error (the token of `Negotiate` is one here) voids what follows it, up to a comma.
                match rest.split_once(',') {
                    Some((_, behind)) if !is_whole => rest = behind.trim_start(),
                    _ => break,
                }
            }
        }
        basic
    }

    fn of(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // Nexus has sent `null://` (gh:sonatype/nexus-public#580).
        let realm = parameter("realm")?.parse::<Url>().ok();
        let realm = realm.filter(|realm| matches!(realm.scheme(), "http" | "https"))?;
        let scopes = parameter("scope").unwrap_or_default();
        let scopes = scopes.split_ascii_whitespace().take(SCOPES).map(str::to_owned).collect();
        Some(Self::Bearer { realm, service: parameter("service"), scopes })
    }

    /// Returns what it asks for, whatever it was about.
    pub(super) fn without_scopes(self) -> Self {
        match self {
            Self::Basic => self,
            Self::Bearer { realm, service, .. } => Self::Bearer { realm, service, scopes: Vec::new() },
        }
    }
}

/// Leaves one space of several, which RFC 9110 allows behind a scheme and the parser does not; quotes keep theirs.
fn single_spaced(value: &str) -> String {
    let (mut in_quotes, mut is_escaped, mut before) = (false, false, ' ');
    let keeps = |&c: &char| {
        let keeps = in_quotes || (before, c) != (' ', ' ');
        in_quotes ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        before = c;
        keeps
    };
    value.chars().filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
            (
                vec![r#"Bearer   realm = "https://a/t" , service="a  \" b""#],
                Some(bearer_from("https://a/t", Some("a  \" b"), &[])),
            ),
            (
                vec![r#"Negotiate oYG2MA==, Basic realm="x", Bearer realm="https://a/t",service="s""#],
                Some(bearer_from("https://a/t", Some("s"), &[])),
            ),
            (vec![r#"Basic realm="x", Negotiate oYG2MA=="#], Some(Challenge::Basic)),
            (
                vec![r#"Basic realm="a\\", Bearer   realm="https://a/t", service="a \"  b""#],
                Some(bearer_from("https://a/t", Some("a \"  b"), &[])),
            ),
            // Neither another scheme nor what stands in its quotes is one.
            (vec![r#"Digest realm="https://a/t""#, r#"Digest realm="a, Basic b=c, Basic d=e, f""#], None),
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
}
