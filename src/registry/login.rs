//! Logging in and out: trying a login at a registry, keeping it in an `auth.json` or `config.json`, forgetting it.
//!
//! Only what concerns the registry is changed; whatever else is in the file stays, understood or not. A file that
//! names a credential helper for the registry gets no secret: the helper does. Files are written beside their place,
//! for their owner only, and moved there.

use std::{
    fs::DirBuilder,
    io::{ErrorKind as IoErrorKind, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    auth::Challenge,
    client::{Call, Client},
    credentials::{
        Secret,
        auth_file::{Key, read},
        helper::{PATIENCE, Question},
    },
    registry_error::RegistryError,
    transport::{Incoming, NoTls},
};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    lock::Locked,
};

/// How one was let in.
#[derive(Debug)]
pub enum Entrance {
    /// By what was shown.
    Guarded,
    /// Without being asked for anything.
    Open,
    /// Not at all: nobody answered.
    Unreachable(Error),
}

impl Client {
    /// Asks to be let in, with whatever the registry demands, and for nothing else.
    pub async fn enter(&self) -> Result<Entrance> {
        match self.knock("", "logging in").await {
            Err(error) if error.kind() == ErrorKind::Network && error.find::<NoTls>().is_none() => {
                Ok(Entrance::Unreachable(error))
            }
            Err(error) => Err(error),
            Ok(_) if self.auth().challenge().is_some() => Ok(Entrance::Guarded),
            Ok(_) => Ok(Entrance::Open),
        }
    }

    /// Asks for `/v2/`, with the rights for a repository if one is named; what is there is a registry.
    pub(super) async fn knock(&self, repository: &str, doing: &str) -> Result<Incoming> {
        let mut url = self.url("", "");
        url.set_path("/v2/");
        let answer = self.insist(repository, Call::new(Method::GET, url), || doing.to_owned()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(answer.refusal(&Method::GET).into_error(doing));
        }
        Ok(answer)
    }

    /// Returns what the registry has asked for so far, if anything.
    pub fn challenge(&self) -> Option<Challenge> {
        self.auth().challenge()
    }

    /// Says whose credentials are shown for a repository and where they come from, or where they were looked
    /// for. Never the secret.
    pub fn credential_source(&self, repository: &str) -> String {
        self.auth().source(repository)
    }

    /// Adds to a refusal of our credentials whose they were, unless it says so already. Hosts that the registry sends
    /// us to have not seen them.
    pub fn explain(&self, repository: &str, error: Error) -> Error {
        let by = error.find::<RegistryError>().and_then(|refusal| refusal.url.parse().ok());
        if by.is_some_and(|url| !self.may_see_credentials(&url)) {
            return error;
        }
        self.auth().explain(repository, error)
    }
}

/// A file of logins, to be changed.
#[derive(Debug)]
pub struct LoginFile {
    path: PathBuf,
    root: Map<String, Value>,
}

impl LoginFile {
    /// Reads a file, which may be missing.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("reading credentials from `{}`", path.display());
        let bytes = match read(path) {
            Err(error) if error.kind() == IoErrorKind::NotFound => Vec::new(),
            bytes => bytes.context(ErrorKind::Local, doing)?,
        };
        let root = match bytes.trim_ascii() {
            [] => Map::new(),
            json => serde_json::from_slice(json).context(ErrorKind::Local, doing)?,
        };
        Ok(Self { path: path.to_owned(), root })
    }

    /// Keeps a login. Returns where: the file or a program.
    pub async fn log_in(self, key: &Key, user: &str, password: &Secret) -> Result<String> {
        let mut entry = json!({});
        let mut place = format!("`{}`", self.path.display());
        if let Some(helper) = self.helper(key) {
            helper.store(user, password, PATIENCE).await?;
            place = format!("`{}`", helper.helper);
        } else {
            let pair = format!("{user}:{}", password.reveal());
            entry = json!({ "auth": BASE64_STANDARD.encode(pair) });
        }
        self.change(|file| {
            file.remove(key);
            let auths = file.root.entry("auths").or_insert_with(|| json!({}));
            if !auths.is_object() {
                *auths = json!({});
            }
            auths[key.written()] = entry;
        })?;
        Ok(place)
    }

    /// Forgets logins. Returns those that there were.
    pub async fn log_out(mut self, keys: &[Key]) -> Result<Vec<Key>> {
        let (mut forgotten, mut changed) = (Vec::new(), false);
        for key in keys {
            let had = match self.helper(key) {
                Some(helper) => helper.erase(PATIENCE).await?,
                None => false,
            };
            let removed = self.remove(key);
            changed |= removed;
            if had || removed {
                forgotten.push(key.clone());
            }
        }
        if changed {
            self.change(|file| {
                for key in keys {
                    file.remove(key);
                }
            })?;
        }
        Ok(forgotten)
    }

    /// Returns what logins the file knows of, helpers' included.
    pub fn keys(&self) -> Vec<Key> {
        let names =
            |field: &str| self.root.get(field).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let mut keys: Vec<_> = names("auths").chain(names("credHelpers")).map(|name| Key::of(name)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Returns the helper that has the login, if one has. Helpers know registries only as a whole.
    fn helper(&self, key: &Key) -> Option<Question> {
        if !key.path().is_empty() {
            return None;
        }
        let helpers = self.root.get("credHelpers").and_then(Value::as_object).into_iter().flatten();
        let own = helpers.filter(|(host, _)| Key::of(host) == *key).map(|(_, name)| name).next();
        let name = own.or(self.root.get("credsStore"))?.as_str().filter(|name| !name.is_empty())?;
        Some(Question::new(name, key.host(), &format!("`{}`", self.path.display())))
    }

    /// Removes an entry, however it is spelled.
    fn remove(&mut self, key: &Key) -> bool {
        let Some(auths) = self.root.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|name, _| Key::of(name) != *key);
        auths.len() < before
    }

    /// Changes what is in the file by now: somebody may have logged in elsewhere since it was opened.
    fn change(&self, how: impl FnOnce(&mut Self)) -> Result<()> {
        let doing = || format!("writing `{}`", self.path.display());
        // Who keeps such files elsewhere, by symlinks, wants to go on doing so.
        let path = fs_err::canonicalize(&self.path).unwrap_or(self.path.clone());
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).context(ErrorKind::Local, doing)?;
        // The file is replaced, so its folder is what can be locked; where that has no locks (NFS), nobody waits.
        let _alone = fs_err::File::open(dir).and_then(Locked::wait).ok();
        let mut changed = Self::open(&self.path)?;
        how(&mut changed);
        let mut text = serde_json::to_vec_pretty(&changed.root).context(ErrorKind::Internal, doing)?;
        text.push(b'\n');
        // For the owner only is what temporary files are.
        let mut file = tempfile::NamedTempFile::new_in(dir).context(ErrorKind::Local, doing)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).context(ErrorKind::Local, doing)?;
        file.persist(&path).map_err(|error| error.error).context(ErrorKind::Local, doing)?;
        Ok(())
    }
}
