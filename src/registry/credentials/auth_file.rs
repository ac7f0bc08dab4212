//! docker's `config.json`, containers' `auth.json`, the older `.dockercfg`: what they say about a registry.
//!
//! One entry that cannot be read does not void a file. Registries are spelled in many ways here, all of which are
//! one [`Key`]; below a registry there may be entries for namespaces and repositories, of which the most specific
//! counts. What is in a file is only read: changing one is [`crate::registry::login`]'s.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::credential::{Credential, Secret};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    oci::reference::registry_name,
};

/// A hundred thousand logins take less.
const LIMIT: u64 = 16 << 20;

/// What a file says.
#[derive(Clone, Debug, Default)]
pub(super) struct AuthFile {
    auths: BTreeMap<Key, Credential>,
    helpers: BTreeMap<Key, String>,
    store: Option<String>,
}

/// What a file has for a repository, in the order in which it counts.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    Credential(&'a Credential),
    /// A credential helper has it, if anybody.
    Helper(&'a str),
}

impl AuthFile {
    pub(super) fn parse(label: &str, json: &[u8]) -> Result<Self> {
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
        let name = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        let mut file = Self { store: root.get("credsStore").and_then(name), ..Self::default() };
        for (host, helper) in root.get("credHelpers").and_then(Value::as_object).into_iter().flatten() {
            file.helpers.extend(name(helper).map(|helper| (Key::of(host), helper)));
        }
        let (urls, hosts): (Vec<_>, Vec<_>) =
            entries.into_iter().flatten().partition(|(key, _)| key.contains("://"));
        // `docker.io` and `https://index.docker.io/v1/` are one registry: the plain spelling wins.
        for (key, entry) in hosts.into_iter().chain(urls) {
            match credential(entry) {
                Ok(Some(credential)) => {
                    file.auths.entry(Key::of(key)).or_insert(credential);
                }
                Ok(None) => {}
                Err(defect) => {
                    tracing::warn!("the entry `{}` of `{label}` is ignored: {defect}", key.escape_debug());
                }
            }
        }
        Ok(file)
    }

    /// Looks for the registry's helper, then for `host/a/b`, `host/a`, `host`, then for everybody's helper: the
    /// order of podman for the first and of docker for the last.
    pub(super) fn find(&self, host: &str, repository: &str) -> impl Iterator<Item = Found<'_>> {
        let helper = self.helpers.get(&Key::of(host));
        let mut whole = Key::of(host).0;
        if !repository.is_empty() {
            whole = format!("{whole}/{repository}");
        }
        let shorter = |key: &Key| key.0.rsplit_once('/').map(|(shorter, _)| Key(shorter.to_owned()));
        let entry = std::iter::successors(Some(Key(whole)), shorter).find_map(|key| self.auths.get(&key));
        let helper = helper.map(|helper| Found::Helper(helper));
        let entry = entry.map(Found::Credential);
        let store = self.store.as_deref().map(Found::Helper);
        helper.into_iter().chain(entry).chain(store)
    }
}

/// Reads a file of logins: a device without an end is none.
pub(in crate::registry) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("`{}` is too large for a file of logins", path.display())));
    }
    Ok(bytes)
}

/// A registry, or something below it, as these files name it: `host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Reads any spelling: a URL stands for its whole host, and so does `h/v1/`, an API's address; `h/v1` is a
    /// namespace. Docker Hub has several.
    pub fn of(text: &str) -> Self {
        let (text, is_url) = text.split_once("://").map_or((text, false), |(_, rest)| (rest, true));
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let host = registry_name(host);
        Self(match path.trim_end_matches('/') {
            "" => host,
            _ if is_url || matches!(path, "v1/" | "v2/") => host,
            path => format!("{host}/{path}"),
        })
    }

    /// Returns the registry alone.
    pub fn host(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(host, _)| host)
    }

    /// Returns what is below the registry; nothing for all of it.
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }

    /// Returns the spelling that files are written with. docker knows its Hub by this one only, the others by any.
    pub(in crate::registry) fn written(&self) -> &str {
        if self.0 == "docker.io" { "https://index.docker.io/v1/" } else { &self.0 }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
            // The decoder of docker and podman passes over the line breaks that `base64` makes.
            let plain =
                BASE64_STANDARD.decode(auth.replace(['\r', '\n'], "")).map_err(|_| "`auth` is not base64")?;
            let plain = String::from_utf8(plain).map_err(|_| "`auth` is not UTF-8")?;
            let (user, password) = plain.split_once(':').ok_or("`auth` holds no colon")?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        (None, Some(user), Some(password)) => (user.to_owned(), password.to_owned()),
        _ => return Ok(None),
    };
    Credential::of(&user, &password).ok_or("it names no user").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Credential {
        Credential::Login { user: user.to_owned(), password: Secret::new(password) }
    }

    fn file(json: &str) -> AuthFile {
        AuthFile::parse("auth.json", json.as_bytes()).unwrap()
    }

    fn first(file: &AuthFile, host: &str, repository: &str) -> Option<Credential> {
        file.find(host, repository).find_map(|found| match found {
            Found::Credential(credential) => Some(credential.clone()),
            Found::Helper(_) => None,
        })
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
            let found = first(&file(&format!(r#"{{"auths":{{"{key}":{bob}}}}}"#)), host, "a/b");
            assert_eq!(found, Some(login("bob", "pa:ss")), "{key}");
        }
        let other = file(&format!(r#"{{"auths":{{"r.example.com:5000":{bob}}}}}"#));
        assert_eq!(first(&other, "r.example.com", "a"), None);
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let file = file(
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
            ("", "host", "1"),
        ] {
            assert_eq!(first(&file, "h", repository), Some(login(user, password)), "{repository}");
        }
    }

    #[test]
    fn a_namespace_may_be_called_as_an_api_is() {
        let file = file(
            r#"{"auths":{"h/v1":{"auth":"Ym9iOng="},"h":{"auth":"bWU6eA=="},"e/v2":{"auth":"Ym9iOng="}}}"#,
        );
        assert_eq!(first(&file, "h", "v1/app"), Some(login("bob", "x")));
        assert_eq!(first(&file, "h", "app"), Some(login("me", "x")));
        assert_eq!(first(&file, "e", "app"), None);
    }

    #[test]
    fn a_registrys_helper_comes_first_and_everybodys_last() {
        let file = file(
            r#"{"auths":{"h":{"auth":"Ym9iOng="},"e":{}},
                "credHelpers":{"h":"one","https://e/v2/":"two","odd":5,"none":""},"credsStore":"desktop"}"#,
        );
        let bob = login("bob", "x");
        for (host, expected) in [
            ("h", vec![Found::Helper("one"), Found::Credential(&bob), Found::Helper("desktop")]),
            ("e", vec![Found::Helper("two"), Found::Helper("desktop")]),
            ("odd", vec![Found::Helper("desktop")]),
            ("none", vec![Found::Helper("desktop")]),
        ] {
            assert_eq!(file.find(host, "a/b").collect::<Vec<_>>(), expected, "{host}");
        }
        assert_eq!(self::file(r#"{"credsStore":""}"#).find("h", "").count(), 0);
    }

    #[test]
    fn every_kind_of_entry_is_understood() {
        for (entry, expected) in [
            (r#"{"identitytoken":"t","auth":"Ym9iOng="}"#, Some(Credential::Identity(Secret::new("t")))),
            (r#"{"registrytoken":"t"}"#, Some(Credential::Token(Secret::new("t")))),
            (r#"{"username":"<token>","password":"t"}"#, Some(Credential::Identity(Secret::new("t")))),
            (r#"{"auth":"Ym9iOng="}"#, Some(login("bob", "x"))),
            // As `base64` breaks its lines.
            (r#"{"auth":"Ym9i\nOng=\r\n"}"#, Some(login("bob", "x"))),
            (r#"{"auth":"","username":"bob","password":"x"}"#, Some(login("bob", "x"))),
            ("{}", None),
            ("null", None),
            (r#"{"auth":5}"#, None),
            (r#"{"auth":"???"}"#, None),
            (r#"{"auth":"Ym9i"}"#, None),
            (r#"{"auth":"OmJvYg=="}"#, None),
        ] {
            // A broken entry leaves its neighbours alone.
            let file = file(&format!(r#"{{"auths":{{"a":{entry},"h":{{"auth":"Ym9iOng="}}}}}}"#));
            assert_eq!(first(&file, "a", "x"), expected, "{entry}");
            assert_eq!(first(&file, "h", "x"), Some(login("bob", "x")), "{entry}");
        }
    }

    #[test]
    fn the_old_docker_file_has_no_auths_around_its_entries() {
        let old = br#"{"https://h/v1/":{"auth":"Ym9iOng="}}"#;
        let file = AuthFile::parse("/root/.dockercfg", old).unwrap();
        assert_eq!(first(&file, "h", "x"), Some(login("bob", "x")));
        assert_eq!(first(&self::file(""), "h", "x"), None);
    }

    #[test]
    fn keys_have_a_host_and_a_path_and_are_written_as_docker_wants_its_own() {
        for (text, host, path, written) in [
            ("h:5000/a/b", "h:5000", "a/b", "h:5000/a/b"),
            ("https://h/v2/a", "h", "", "h"),
            ("h/v2/", "h", "", "h"),
            ("h/v2", "h", "v2", "h/v2"),
            ("docker.io", "docker.io", "", "https://index.docker.io/v1/"),
            ("index.docker.io/me", "docker.io", "me", "docker.io/me"),
        ] {
            let key = Key::of(text);
            assert_eq!((key.host(), key.path(), key.written()), (host, path, written), "{text}");
            assert_eq!(Key::of(key.written()), key);
        }
    }
}
