//! The uploads that are under way, by their random ids. This process alone knows them.
//!
//! One request at a time may append to a session ([`Exclusive`]); anybody may ask how far it is. A session
//! ends with its [`Staging`], which is dropped, or becomes a blob, once nobody holds it any more.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::{reply::Refusal, staging::Staging, storage::Name};
use crate::error::Result;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    name: Name,
    /// How many bytes are staged, readable while a request appends.
    offset: AtomicU64,
    /// Empty once they have become a blob.
    staging: Arc<tokio::sync::Mutex<Option<Staging>>>,
}

impl Sessions {
    /// Begins one.
    pub(super) fn open(&self, name: Name, id: String, staging: Staging) -> Arc<Session> {
        let session = Session::new(name, id, staging);
        self.lock().insert(session.id.clone(), Arc::clone(&session));
        session
    }

    /// Finds one, if it belongs to the repository.
    pub(super) fn find(&self, name: &Name, id: &str) -> Result<Arc<Session>, Refusal> {
        let found = self.lock().get(id).filter(|session| session.name == *name).map(Arc::clone);
        found.ok_or_else(unknown)
    }

    /// Forgets one. A request that is appending to it ends first; its bytes are lost.
    pub(super) fn forget(&self, session: &Session) {
        self.lock().remove(&session.id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        // No operation on the map can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Makes one that no other request can find.
    pub(super) fn new(name: Name, id: String, staging: Staging) -> Arc<Self> {
        let staging = Arc::new(tokio::sync::Mutex::new(Some(staging)));
        Arc::new(Self { id, name, offset: AtomicU64::new(0), staging })
    }

    /// Returns where it is found.
    pub(super) fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, self.id)
    }

    /// Returns its id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns how many bytes are staged.
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Keeps other requests from appending; nothing if one is at it.
    pub(super) fn exclusive(self: &Arc<Self>) -> Option<Exclusive> {
        let staging = Arc::clone(&self.staging).try_lock_owned().ok()?;
        Some(Exclusive { session: Arc::clone(self), staging })
    }
}

/// The right to append to a session and to end it.
#[derive(Debug)]
#[must_use = "it keeps other requests away"]
pub(super) struct Exclusive {
    session: Arc<Session>,
    staging: OwnedMutexGuard<Option<Staging>>,
}

impl Exclusive {
    /// Hashes and writes the next bytes. Waits for the disk.
    pub(super) fn append(&mut self, pieces: &[Bytes]) -> Result<(), Refusal> {
        let staging = self.staging.as_mut().ok_or_else(unknown)?;
        let appended = staging.append(pieces);
        self.session.offset.store(staging.size(), Ordering::Release);
        Ok(appended?)
    }

    /// Takes the bytes out, to make them a blob of the repository.
    pub(super) fn into_staging(mut self) -> Result<(Name, Staging), Refusal> {
        let staging = self.staging.take().ok_or_else(unknown)?;
        Ok((self.session.name.clone(), staging))
    }
}

fn unknown() -> Refusal {
    Refusal::not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn one_request_at_a_time_appends_and_anybody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, name): (_, Name) = (Sessions::default(), "a".parse().unwrap());
        let staging = Staging::create(dir.path().join("1"), Algorithm::Sha256).unwrap();
        let session = sessions.open(name.clone(), "1".into(), staging);
        let mut exclusive = session.exclusive().unwrap();
        assert!(session.exclusive().is_none());
        exclusive.append(&[Bytes::from_static(b"abc")]).unwrap();
        assert_eq!(sessions.find(&name, "1").unwrap().offset(), 3);
        assert!(sessions.find(&"b".parse().unwrap(), "1").is_err());
        drop(exclusive);
        let (_, staging) = session.exclusive().unwrap().into_staging().unwrap();
        assert_eq!(staging.size(), 3);
        assert!(session.exclusive().unwrap().append(&[]).is_err());
    }

    #[test]
    fn a_forgotten_session_takes_its_bytes_along() {
        let dir = tempfile::tempdir().unwrap();
        let (sessions, name): (_, Name) = (Sessions::default(), "a".parse().unwrap());
        let staging = Staging::create(dir.path().join("1"), Algorithm::Sha256).unwrap();
        let session = sessions.open(name.clone(), "1".into(), staging);
        let exclusive = session.exclusive().unwrap();
        sessions.forget(&session);
        drop(session);
        assert!(sessions.find(&name, "1").is_err());
        assert!(dir.path().join("1").exists());
        drop(exclusive);
        assert!(!dir.path().join("1").exists());
    }
}
