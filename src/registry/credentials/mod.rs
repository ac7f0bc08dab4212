//! Where secrets come from: the command line, then docker's `config.json` and containers' `auth.json`, then the
//! credential helpers that these name.
//!
//! The caller says which files in which order (their places follow from the environment, which only the
//! command line reads); the first that has something for the repository wins. A helper has to be asked, which takes
//! a program: looking only says which one is next.

pub mod auth_file;
mod credential;
pub(super) mod helper;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::credential::{Credential, Secret};
use self::{
    auth_file::{AuthFile, Found, read},
    helper::{PATIENCE, Question},
};
use crate::error::{Error, Result};

/// All places that may hold credentials, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// How long a credential helper may take.
    pub helper_timeout: Duration,
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// What the user knows it by.
    label: String,
    /// Where it was read, and may be read again.
    path: Option<PathBuf>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    File(AuthFile),
    Given(Credential),
    Helper(String),
    Missing,
    /// A file that cannot be read, which matters to who gets as far as it.
    Broken(Error),
}

/// What credential helpers have said so far.
pub(super) type Answers = HashMap<Question, Result<Option<Credential>>>;

/// What was found for one repository.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// What to show, if anything.
    pub(super) credential: Option<Credential>,
    /// Whose it is and where it came from, or where it was looked for. For messages.
    pub(super) source: String,
    /// To whom the credential is owed, where a helper has it.
    pub(super) helper: Option<Question>,
    /// A helper that has to be asked before more can be said.
    pub(super) next: Option<Question>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { helper_timeout: PATIENCE, places: Vec::new() }
    }
}

impl Credentials {
    /// Adds a credential that is meant for whatever registry is pushed to; `label` says where it was given.
    pub fn give(&mut self, label: &str, credential: Credential) {
        self.add(label, Content::Given(credential));
    }

    /// Adds the content of a configuration file that lies in a variable.
    pub fn give_text(&mut self, label: &str, json: &str) -> Result<()> {
        let file = AuthFile::parse(label, json.as_bytes())?;
        self.add(&format!("`{label}`"), Content::File(file));
        Ok(())
    }

    /// Adds a configuration file, which may be missing.
    pub fn give_file(&mut self, path: &Path) {
        let (label, path) = (format!("`{}`", path.display()), Some(path.to_owned()));
        let content = Content::Missing;
        self.places.push(Place { label, path, content }.read());
    }

    /// Reads all files once more: others write them too.
    pub(super) fn reread(self) -> Self {
        Self { places: self.places.into_iter().map(Place::read).collect(), ..self }
    }

    /// Adds the helper `docker-credential-NAME` for every registry; `label` says what names it.
    pub fn give_helper(&mut self, label: &str, name: &str) {
        self.add(label, Content::Helper(name.to_owned()));
    }

    /// Finds what is to be shown to `host` for a repository of it, as far as that can be said after these answers.
    pub(super) fn find(&self, host: &str, repository: &str, answers: &Answers) -> Result<Login> {
        let mut looked = Vec::new();
        // A keychain that is locked, or not installed here, hides nobody who comes later.
        let mut failure = None;
        for Place { label, content, .. } in &self.places {
            let found: Vec<_> = match content {
                Content::File(file) => file.find(host, repository).collect(),
                Content::Given(credential) => vec![Found::Credential(credential)],
                Content::Helper(name) => vec![Found::Helper(name)],
                Content::Missing => {
                    looked.push(format!("{label} (missing)"));
                    continue;
                }
                Content::Broken(error) => return Err(error.clone()),
            };
            let mut asked = String::new();
            for found in found {
                let name = match found {
                    Found::Credential(credential) => return Ok(Login::found(credential, label, None)),
                    Found::Helper(name) => name,
                };
                let question = Question::new(name, host, label);
                match answers.get(&question) {
                    Some(Ok(Some(credential))) => {
                        return Ok(Login::found(credential, label, Some(question)));
                    }
                    Some(Ok(None)) => asked = format!(" (and asked `{}`)", question.helper),
                    Some(Err(error)) => drop(failure.get_or_insert(error)),
                    None => return Ok(Login { next: Some(question), ..Login::none(host, &looked) }),
                }
            }
            looked.push(format!("{label}{asked}"));
        }
        failure.map_or_else(|| Ok(Login::none(host, &looked)), |error| Err(error.clone()))
    }

    fn add(&mut self, label: &str, content: Content) {
        self.places.push(Place { label: label.to_owned(), path: None, content });
    }
}

impl Place {
    /// Reads the place's file, if it is one.
    fn read(self) -> Self {
        let Some(path) = &self.path else { return self };
        let content = match read(path) {
            Ok(bytes) => AuthFile::parse(&path.display().to_string(), &bytes).map(Content::File),
            Err(error) if is_missing(&error) => Ok(Content::Missing),
            Err(error) => Err(Error::local("reading credentials").because(error)),
        };
        Self { content: content.unwrap_or_else(Content::Broken), ..self }
    }
}

impl Login {
    fn none(host: &str, looked: &[String]) -> Self {
        let mut source = format!("no credentials for `{host}`");
        if !looked.is_empty() {
            source = format!("{source}; looked in: {}", looked.join(", "));
        }
        Self { credential: None, source, helper: None, next: None }
    }

    fn found(credential: &Credential, label: &str, helper: Option<Question>) -> Self {
        let from = match &helper {
            Some(question) => format!("`{}`, named by {label}", question.helper),
            None => label.to_owned(),
        };
        let source = match credential {
            Credential::Identity(_) => format!("an identity token from {from}"),
            Credential::Login { user, .. } => format!("user `{}` from {from}", user.escape_debug()),
            Credential::Token(_) => format!("a token from {from}"),
        };
        Self { credential: Some(credential.clone()), source, helper, next: None }
    }

    /// Returns what to tell somebody who was not let in.
    pub(super) fn hint(&self) -> String {
        match self.credential {
            Some(_) => format!("the registry was shown {}", self.source),
            None => self.source.clone(),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, chain};

    fn login(user: &str, password: &str) -> Credential {
        Credential::Login { user: user.to_owned(), password: Secret::new(password) }
    }

    fn source(credentials: &Credentials, host: &str) -> String {
        credentials.find(host, "x", &Answers::new()).unwrap().source
    }

    #[test]
    fn places_are_asked_in_order_and_named_when_none_knows() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("auth.json");
        let second = dir.path().join("config.json");
        fs_err::write(&second, r#"{"auths":{"h":{}}}"#).unwrap();
        let mut credentials = Credentials::default();
        credentials.give_file(&first);
        credentials.give_file(&second);
        let looked = format!(
            "no credentials for `h`; looked in: `{}` (missing), `{}`",
            first.display(),
            second.display()
        );
        assert_eq!(source(&credentials, "h"), looked);

        credentials.give_text("late", r#"{"auths":{"h":{"auth":"Ym9iOng="}}}"#).unwrap();
        assert_eq!(source(&credentials, "h"), "user `bob` from `late`");
        let mut given = Credentials::default();
        given.give("the command line", Credential::Token(Secret::new("t")));
        given.give_file(&second);
        assert_eq!(source(&given, "any"), "a token from the command line");
    }

    #[test]
    fn a_helper_is_asked_before_anybody_who_comes_later() {
        let mut credentials = Credentials::default();
        credentials.give_text("first", r#"{"credHelpers":{"h":"one"},"credsStore":"two"}"#).unwrap();
        credentials.give_text("second", r#"{"auths":{"h":{"auth":"Ym9iOng="}}}"#).unwrap();
        credentials.give_helper("third", "three");
        let mut answers = Answers::new();
        let one = Question::new("one", "h", "`first`");
        let two = Question::new("two", "h", "`first`");
        for next in [&one, &two] {
            let login = credentials.find("h", "x", &answers).unwrap();
            assert_eq!((login.credential, login.next.as_ref()), (None, Some(next)));
            answers.insert(next.clone(), Ok(None));
        }
        let login = credentials.find("h", "x", &answers).unwrap();
        assert_eq!((login.source.as_str(), login.next), ("user `bob` from `second`", None));

        answers.insert(two.clone(), Ok(Some(self::login("me", "y"))));
        let login = credentials.find("h", "x", &answers).unwrap();
        assert_eq!(login.source, "user `me` from `docker-credential-two`, named by `first`");
        assert_eq!(login.helper, Some(two.clone()));

        // One that is broken hides nobody who comes later.
        answers.insert(one, Err(Error::local("it is broken")));
        let login = credentials.find("h", "x", &answers).unwrap();
        assert_eq!(login.source, "user `me` from `docker-credential-two`, named by `first`");
        answers.insert(two, Ok(None));
        assert_eq!(credentials.find("h", "x", &answers).unwrap().source, "user `bob` from `second`");
        let mut alone = Credentials::default();
        alone.give_text("first", r#"{"credHelpers":{"h":"one"},"credsStore":"two"}"#).unwrap();
        assert_eq!(alone.find("h", "x", &answers).unwrap_err().message(), "it is broken");

        let mut answers = Answers::new();
        for (host, next) in
            [("e", Question::new("two", "e", "`first`")), ("e", Question::new("three", "e", "third"))]
        {
            assert_eq!(credentials.find(host, "x", &answers).unwrap().next, Some(next.clone()));
            answers.insert(next, Ok(None));
        }
        let source = credentials.find("e", "x", &answers).unwrap().source;
        assert!(source.ends_with(
            "looked in: `first` (and asked `docker-credential-two`), `second`, third (and asked `docker-credential-three`)"
        ), "{source}");
    }

    #[test]
    fn a_broken_file_is_this_machines_fault_where_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs_err::write(&path, "{\"auths\":").unwrap();
        for broken in [path.as_path(), dir.path(), Path::new("/dev/zero")] {
            let mut credentials = Credentials::default();
            credentials.give_text("first", r#"{"auths":{"h":{"auth":"Ym9iOng="}}}"#).unwrap();
            credentials.give_file(broken);
            // What comes before it is not hidden by it, as for podman.
            assert_eq!(source(&credentials, "h"), "user `bob` from `first`");
            let error = credentials.find("e", "x", &Answers::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Local);
            assert!(chain(&error).contains(&broken.display().to_string()), "{error:?}");
        }
    }

    #[test]
    fn secrets_are_not_seen() {
        let mut credentials = Credentials::default();
        credentials.give_text("auth.json", r#"{"auths":{"h":{"auth":"Ym9iOnh5enp5"}}}"#).unwrap();
        let shown = format!("{credentials:?} {:?}", credentials.find("h", "x", &Answers::new()));
        assert!(shown.contains("bob") && !shown.contains("xyzzy") && !shown.contains("Ym9i"), "{shown}");
    }
}
