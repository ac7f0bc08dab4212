//! Who is let in: Basic, or Bearer with a token endpoint of its own.
//!
//! Tokens do not die by the clock (no test waits for one): [`Fault::ExpireTokens`](super::Fault) kills them.

use std::collections::{BTreeSet, HashMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    http::{Answer, Head},
    script::Route,
    store::Call,
};

/// Who is let in.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    Anonymous,
    Basic {
        user: &'static str,
        password: &'static str,
    },
    /// Tokens for whoever shows this user and password; `expires_in` is only said.
    Bearer {
        user: &'static str,
        password: &'static str,
        expires_in: Option<u64>,
    },
}

/// The tokens given out, and what each is good for.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: u32,
    valid: HashMap<String, BTreeSet<Right>>,
}

/// A repository and an action.
type Right = (String, String);

impl Tokens {
    /// Answers a request for a token.
    pub(super) fn give(&mut self, auth: &Auth, head: &Head) -> Answer {
        let Auth::Bearer { user, password, expires_in } = auth else { return Answer::new(404) };
        if !is_basic(head, user, password) {
            return Answer::new(401).with("WWW-Authenticate", "Basic realm=\"tokens\"");
        }
        self.given += 1;
        let token = format!("token-{}", self.given);
        let rights = head.parameters("scope").iter().flat_map(|scope| rights_of(scope)).collect();
        self.valid.insert(token.clone(), rights);
        let mut said = serde_json::json!({ "token": token });
        if let Some(seconds) = expires_in {
            said["expires_in"] = (*seconds).into();
        }
        let mut answer = Answer::new(200).with("Content-Type", "application/json");
        answer.body = said.to_string().into();
        answer
    }

    /// Makes every token given out so far worthless.
    pub(super) fn expire(&mut self) {
        self.valid.clear();
    }

    /// Returns the refusal, where a request may not do what it asks for.
    pub(super) fn refusal(&self, auth: &Auth, base: &str, call: &Call) -> Option<Answer> {
        let needed = needed(call);
        match auth {
            Auth::Anonymous => None,
            Auth::Basic { user, password } => {
                (!is_basic(&call.head, user, password)).then(|| challenge(auth, base, &needed, false))
            }
            Auth::Bearer { .. } => {
                let shown = call.head.header("Authorization").and_then(|value| value.strip_prefix("Bearer "));
                match shown.and_then(|token| self.valid.get(token)) {
                    Some(rights) if needed.iter().all(|right| rights.contains(right)) => None,
                    known => Some(challenge(auth, base, &needed, known.is_some())),
                }
            }
        }
    }
}

/// Returns the 401 that whoever asks is sent.
pub(super) fn unauthorized(auth: &Auth, base: &str, call: &Call) -> Answer {
    challenge(auth, base, &needed(call), false)
}

fn challenge(auth: &Auth, base: &str, needed: &[Right], insufficient: bool) -> Answer {
    let value = match auth {
        Auth::Anonymous | Auth::Basic { .. } => "Basic realm=\"the fault registry\"".to_owned(),
        Auth::Bearer { .. } => {
            let mut scopes: Vec<(&str, Vec<&str>)> = Vec::new();
            for (repository, action) in needed {
                match scopes.iter_mut().find(|(known, _)| known == repository) {
                    Some((_, actions)) => actions.push(action),
                    None => scopes.push((repository, vec![action])),
                }
            }
            let scopes = scopes
                .iter()
                .map(|(repository, actions)| format!("repository:{repository}:{}", actions.join(",")));
            let scope = scopes.collect::<Vec<_>>().join(" ");
            let error = if insufficient { ",error=\"insufficient_scope\"" } else { "" };
            format!("Bearer realm=\"{base}/token\",service=\"faults\",scope=\"{scope}\"{error}")
        }
    };
    let mut answer =
        Answer::new(401).with("WWW-Authenticate", value).with("Content-Type", "application/json");
    answer.body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.into();
    answer
}

/// What distribution asks for: `delete` for giving a session back, which most tokens lack; both repositories
/// of a mount.
fn needed(call: &Call) -> Vec<Right> {
    let right = |repository: &str, action: &str| (repository.to_owned(), action.to_owned());
    let repository = call.repository.as_str();
    let actions: &[&str] = match (call.route, call.head.method.as_str()) {
        (Route::Base, _) => return Vec::new(),
        (_, "GET" | "HEAD") => &["pull"],
        (_, "DELETE") => &["delete"],
        _ => &["pull", "push"],
    };
    let mut needed: Vec<_> = actions.iter().map(|action| right(repository, action)).collect();
    needed.extend(call.head.parameter("from").map(|from| right(&from, "pull")));
    needed
}

fn rights_of(scope: &str) -> Vec<Right> {
    let one = |scope: &str| {
        let (repository, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        Some(actions.split(',').map(|action| (repository.to_owned(), action.to_owned())).collect::<Vec<_>>())
    };
    scope.split(' ').filter_map(one).flatten().collect()
}

fn is_basic(head: &Head, user: &str, password: &str) -> bool {
    let right = BASE64_STANDARD.encode(format!("{user}:{password}"));
    head.header("Authorization").and_then(|value| value.strip_prefix("Basic ")) == Some(right.as_str())
}
