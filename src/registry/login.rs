//! Logging in and out: keeping a login in an `auth.json` or `config.json`, forgetting it.
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
use serde_json::{Map, Value, json};

pub use super::client::Entrance;
use super::credentials::{
    Secret,
    auth_file::{Key, read},
    helper::{PATIENCE, Question},
};
use crate::{
    error::{Context as _, ErrorKind, Result},
    lock::Locked,
};

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
