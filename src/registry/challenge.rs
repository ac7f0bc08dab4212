//! What a 401 asks for: the `WWW-Authenticate` headers, in all their spellings.
//!
//! Several headers, several challenges in one, any case, commas in quotes, schemes that nobody here speaks: all of it
//! is seen. A challenge that is no use (a realm that is no URL) is passed over for the next.

use http::{HeaderMap, header};
use http_auth::ChallengeParser;
use url::Url;

/// A challenge names one or two. A hostile one can name a hundred thousand in one header.
const SCOPES: usize = 16;

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
            for challenge in ChallengeParser::new(value).map_while(Result::ok) {
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
                    let scopes = scopes.split_ascii_whitespace().take(SCOPES).map(str::to_owned).collect();
                    return Some(Self::Bearer { realm, service: parameter("service"), scopes });
                }
            }
        }
        basic
    }

    /// Returns what it asks for, whatever it was about.
    pub(super) fn without_scopes(self) -> Self {
        match self {
            Self::Basic => self,
            Self::Bearer { realm, service, .. } => Self::Bearer { realm, service, scopes: Vec::new() },
        }
    }
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
