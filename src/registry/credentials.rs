//! Where secrets come from: the command line, then docker's `config.json` and containers' `auth.json`.
//!
//! The caller says which files in which order (their places follow from the environment, which only the
//! command line reads); the first that has something for the repository wins. One broken entry does not void a
//! file. Credential helpers are not run: where only a helper would know, messages say so. A secret
//! has no `Display`, and its `Debug` is empty.

use std::{collections::BTreeMap, fmt, io, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::error::{Context as _, Error, ErrorKind, Result};

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

/// All places that may hold credentials, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// What the user knows it by.
    label: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    File(AuthFile),
    Given(Credential),
    Missing,
}

/// What was found for one repository.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// What to show, if anything.
    pub(crate) credential: Option<Credential>,
    /// Whose it is and where it came from, or where it was looked for. For messages.
    pub(crate) source: String,
}

impl Credentials {
    /// Adds a credential that is meant for whatever registry is pushed to; `label` says where it was given.
    pub fn give(&mut self, label: &str, credential: Credential) {
        self.places.push(Place { label: label.to_owned(), content: Content::Given(credential) });
    }

    /// Adds the content of a configuration file that lies in a variable.
    pub fn give_text(&mut self, label: &str, json: &str) -> Result<()> {
        let file = AuthFile::parse(label, json.as_bytes())?;
        self.places.push(Place { label: format!("`{label}`"), content: Content::File(file) });
        Ok(())
    }

    /// Adds a configuration file, which may be missing.
    pub fn give_file(&mut self, path: &Path) -> Result<()> {
        let content = match fs_err::read(path) {
            Ok(bytes) => Content::File(AuthFile::parse(&path.display().to_string(), &bytes)?),
            Err(error) if is_missing(&error) => Content::Missing,
            Err(error) => return Err(Error::local("reading credentials").because(error)),
        };
        self.places.push(Place { label: format!("`{}`", path.display()), content });
        Ok(())
    }

    /// Finds what is to be shown to `host` for a repository of it.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Login {
        let mut looked = Vec::new();
        for Place { label, content } in &self.places {
            match content {
                Content::Given(credential) => {
                    return Login::found(credential, label);
                }
                Content::File(file) => match file.find(host, repository) {
                    Some(Found::Credential(credential)) => return Login::found(credential, label),
                    Some(Found::Helper(helper)) => {
                        looked.push(format!("{label} (whose credential helper `{helper}` is not asked)"));
                    }
                    None => looked.push(label.clone()),
                },
                Content::Missing => looked.push(format!("{label} (missing)")),
            }
        }
        let mut source = format!("no credentials for `{host}`");
        if !looked.is_empty() {
            source = format!("{source}; looked in: {}", looked.join(", "));
        }
        Login { credential: None, source }
    }
}

impl Login {
    fn found(credential: &Credential, label: &str) -> Self {
        let source = match credential {
            Credential::Identity(_) => format!("an identity token from {label}"),
            Credential::Login { user, .. } => format!("user `{}` from {label}", user.escape_debug()),
            Credential::Token(_) => format!("a token from {label}"),
        };
        Self { credential: Some(credential.clone()), source }
    }

    /// Returns what to tell somebody who was not let in.
    pub(crate) fn hint(&self) -> String {
        match self.credential {
            Some(_) => format!("the registry was shown {}", self.source),
            None => self.source.clone(),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// docker's `config.json`, containers' `auth.json`, or the older `.dockercfg`.
#[derive(Clone, Debug, Default)]
struct AuthFile {
    auths: BTreeMap<String, Credential>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

enum Found<'a> {
    Credential(&'a Credential),
    Helper(&'a str),
}

impl AuthFile {
    fn parse(label: &str, json: &[u8]) -> Result<Self> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let root: Value = serde_json::from_slice(json)
            .context(ErrorKind::Local, || format!("reading credentials from `{label}`"))?;
        let Value::Object(root) = root else {
            return Err(Error::local(format!("reading credentials from `{label}`: no JSON object")));
        };
        let entries = match root.get("auths") {
            Some(auths) => auths.as_object(),
            None if label.ends_with(".dockercfg") => Some(&root),
            None => None,
        };
        let mut file = Self {
            store: root
                .get("credsStore")
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty())
                .map(Into::into),
            ..Self::default()
        };
        for (host, helper) in root.get("credHelpers").and_then(Value::as_object).into_iter().flatten() {
            if let Some(helper) = helper.as_str() {
                file.helpers.insert(normalized(host), helper.to_owned());
            }
        }
        let (urls, hosts): (Vec<_>, Vec<_>) =
            entries.into_iter().flatten().partition(|(key, _)| key.contains("://"));
        // `docker.io` and `https://index.docker.io/v1/` are one registry: the plain spelling wins.
        for (key, entry) in hosts.into_iter().chain(urls) {
            match credential(entry) {
                Ok(Some(credential)) => {
                    file.auths.entry(normalized(key)).or_insert(credential);
                }
                Ok(None) => {}
                Err(defect) => {
                    tracing::warn!("the entry `{}` of `{label}` is ignored: {defect}", key.escape_debug());
                }
            }
        }
        Ok(file)
    }

    /// Looks for `host/a/b`, then `host/a`, then `host`.
    fn find(&self, host: &str, repository: &str) -> Option<Found<'_>> {
        let host = normalized(host);
        let whole = format!("{host}/{repository}");
        let mut key = whole.as_str();
        loop {
            if let Some(credential) = self.auths.get(key) {
                return Some(Found::Credential(credential));
            }
            let Some((shorter, _)) = key.rsplit_once('/') else { break };
            key = shorter;
        }
        self.helpers.get(&host).or(self.store.as_ref()).map(|helper| Found::Helper(helper))
    }
}

/// Reads one entry. An empty one means that a helper has the secret.
fn credential(entry: &Value) -> Result<Option<Credential>, &'static str> {
    let field = |name: &str| match entry.get(name).and_then(Value::as_str) {
        Some("") | None => None,
        Some(text) => Some(text),
    };
    if let Some(token) = field("registrytoken") {
        return Ok(Some(Credential::Token(Secret::new(token))));
    }
    if let Some(token) = field("identitytoken") {
        return Ok(Some(Credential::Identity(Secret::new(token))));
    }
    let (user, password) = match (field("auth"), field("username"), field("password")) {
        (Some(auth), ..) => {
            let plain = BASE64_STANDARD.decode(auth).map_err(|_| "`auth` is not base64")?;
            let plain = String::from_utf8(plain).map_err(|_| "`auth` is not UTF-8")?;
            let (user, password) = plain.split_once(':').ok_or("`auth` holds no colon")?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        (None, Some(user), Some(password)) => (user.to_owned(), password.to_owned()),
        _ => return Ok(None),
    };
    Ok(Some(match user.as_str() {
        "" => return Err("it names no user"),
        // How docker's credential helpers mark a refresh token.
        "<token>" => Credential::Identity(Secret::new(password)),
        _ => Credential::Login { user, password: Secret::new(password) },
    }))
}

/// Brings a key of `auths` to `host[:port][/path]`.
fn normalized(key: &str) -> String {
    let (host, path) = match key.split_once("://") {
        // A URL stands for its whole host.
        Some((_, rest)) => (rest.split_once('/').map_or(rest, |(host, _)| host), ""),
        None => key.trim_end_matches('/').split_once('/').unwrap_or((key.trim_end_matches('/'), "")),
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    };
    match path {
        "" | "v1" | "v2" => host,
        path => format!("{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Credential {
        Credential::Login { user: user.to_owned(), password: Secret::new(password) }
    }

    fn file(json: &str) -> Credentials {
        let mut credentials = Credentials::default();
        credentials.give_text("auth.json", json).unwrap();
        credentials
    }

    #[test]
    fn entries_are_found_by_any_spelling_of_their_registry() {
        // bob:pa:ss
        let bob = r#"{"auth":"Ym9iOnBhOnNz"}"#;
        for (key, host) in [
            ("r.example.com", "r.example.com"),
            ("r.example.com:5000", "r.example.com:5000"),
            ("R.Example.com", "r.example.com"),
            ("https://r.example.com/v2/", "r.example.com"),
            ("http://r.example.com:5000", "r.example.com:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            let found = file(&format!(r#"{{"auths":{{"{key}":{bob}}}}}"#)).find(host, "a/b");
            assert_eq!(found.credential, Some(login("bob", "pa:ss")), "{key}");
            assert_eq!(found.source, "user `bob` from `auth.json`");
        }
        let other = file(&format!(r#"{{"auths":{{"r.example.com:5000":{bob}}}}}"#));
        assert_eq!(other.find("r.example.com", "a").credential, None);
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let credentials = file(
            r#"{"auths":{
                "h":{"username":"host","password":"1"},
                "h/a":{"username":"space","password":"2"},
                "h/a/b":{"username":"repository","password":"3"}}}"#,
        );
        for (repository, user, password) in [
            ("a/b", "repository", "3"),
            ("a/b/c", "repository", "3"),
            ("a/x", "space", "2"),
            ("ab", "host", "1"),
        ] {
            assert_eq!(
                credentials.find("h", repository).credential,
                Some(login(user, password)),
                "{repository}"
            );
        }
    }

    #[test]
    fn every_kind_of_entry_is_understood() {
        for (entry, expected) in [
            (r#"{"identitytoken":"t","auth":"Ym9iOng="}"#, Some(Credential::Identity(Secret::new("t")))),
            (r#"{"registrytoken":"t"}"#, Some(Credential::Token(Secret::new("t")))),
            (r#"{"username":"<token>","password":"t"}"#, Some(Credential::Identity(Secret::new("t")))),
            (r#"{"auth":"Ym9iOng="}"#, Some(login("bob", "x"))),
            (r#"{"auth":"","username":"bob","password":"x"}"#, Some(login("bob", "x"))),
            ("{}", None),
            ("null", None),
            (r#"{"auth":5}"#, None),
            (r#"{"auth":"???"}"#, None),
            (r#"{"auth":"Ym9i"}"#, None),
            (r#"{"auth":"OmJvYg=="}"#, None),
        ] {
            // A broken entry leaves its neighbours alone.
            let json = format!(r#"{{"auths":{{"a":{entry},"h":{{"auth":"Ym9iOng="}}}}}}"#);
            let credentials = file(&json);
            assert_eq!(credentials.find("a", "x").credential, expected, "{entry}");
            assert_eq!(credentials.find("h", "x").credential, Some(login("bob", "x")), "{entry}");
        }
    }

    #[test]
    fn places_are_asked_in_order_and_named_when_none_knows() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("auth.json");
        let second = dir.path().join("config.json");
        fs_err::write(
            &second,
            r#"{"auths":{"h":{}},"credsStore":"desktop","credHelpers":{"e":"ecr-login"}}"#,
        )
        .unwrap();
        let mut credentials = Credentials::default();
        credentials.give_file(&first).unwrap();
        credentials.give_file(&second).unwrap();
        let source = credentials.find("h", "x").source;
        assert!(source.contains(&format!("`{}` (missing)", first.display())), "{source}");
        assert!(source.contains("helper `desktop` is not asked"), "{source}");
        assert!(credentials.find("e", "x").source.contains("helper `ecr-login`"));

        credentials.give_text("late", r#"{"auths":{"h":{"auth":"Ym9iOng="}}}"#).unwrap();
        assert_eq!(credentials.find("h", "x").source, "user `bob` from `late`");
        let mut given = Credentials::default();
        given.give("the command line", Credential::Token(Secret::new("t")));
        given.give_file(&second).unwrap();
        assert_eq!(given.find("any", "x").source, "a token from the command line");
    }

    #[test]
    fn a_broken_file_is_this_machines_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs_err::write(&path, "{\"auths\":").unwrap();
        let error = Credentials::default().give_file(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Local);
        assert!(error.message().contains("config.json"), "{error}");
        let unreadable = Credentials::default().give_file(dir.path()).unwrap_err();
        assert_eq!(unreadable.kind(), ErrorKind::Local);
    }

    #[test]
    fn the_old_docker_file_has_no_auths_around_its_entries() {
        let mut credentials = Credentials::default();
        credentials.give_text("/root/.dockercfg", r#"{"https://h/v1/":{"auth":"Ym9iOng="}}"#).unwrap();
        assert_eq!(credentials.find("h", "x").credential, Some(login("bob", "x")));
        assert_eq!(file("").find("h", "x").credential, None);
    }

    #[test]
    fn secrets_are_not_seen() {
        let credentials = file(r#"{"auths":{"h":{"auth":"Ym9iOnh5enp5"}}}"#);
        let shown = format!("{credentials:?} {:?}", credentials.find("h", "x"));
        assert!(shown.contains("bob") && !shown.contains("xyzzy") && !shown.contains("Ym9i"), "{shown}");
    }
}
