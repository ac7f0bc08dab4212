//! Uploads that take several requests, by their random ids. No process owns them: every request finds its session on
//! disk, and may reach another process over the same folder than the one before.
//!
//! One request at a time may append; anybody may ask how far it is.

use std::path::PathBuf;

use http::{
    StatusCode,
    header::{LOCATION, RANGE},
};

use super::{
    reply::{Refusal, UPLOAD_ID},
    staging::{self, Staging, State, Taken},
    storage::{Name, Storage},
};
use crate::oci::Algorithm;

/// An upload as it was last written down.
#[derive(Clone, Debug)]
pub(super) struct Session {
    id: String,
    name: Name,
    folder: PathBuf,
    offset: u64,
}

impl Session {
    /// Begins one.
    pub(super) fn begin(storage: &Storage, name: Name, algorithm: Algorithm) -> Result<Self, Refusal> {
        let (id, mut staging) = storage.stage(algorithm)?;
        staging.keep(name.to_string())?;
        Ok(Self { folder: storage.upload(&id), id, name, offset: 0 })
    }

    /// Finds one, if it belongs to the repository.
    pub(super) fn find(storage: &Storage, name: Name, id: String) -> Result<Self, Refusal> {
        // What is no id might lead out of the folder.
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let folder = storage.upload(&id);
        match State::read(&folder)? {
            Some(state) if state.repository == name.to_string() => {
                Ok(Self { id, name, folder, offset: state.size })
            }
            _ => Err(unknown()),
        }
    }

    /// Keeps every other request from appending, of whatever process.
    pub(super) fn take(&mut self) -> Result<Staging, Refusal> {
        match Staging::resume(self.folder.clone())? {
            Taken::Busy => Err(self.out_of_order("another request is appending")),
            Taken::Gone => Err(unknown()),
            Taken::Ours(staging) => {
                self.offset = staging.size();
                Ok(staging)
            }
        }
    }

    /// Makes what was appended count.
    pub(super) fn save(&mut self, staging: &mut Staging) -> Result<(), Refusal> {
        staging.save().map_err(|error| self.or_gone(error))?;
        self.offset = staging.size();
        Ok(())
    }

    /// Returns whether a request is appending.
    pub(super) fn is_busy(&self) -> bool {
        staging::is_busy(&self.folder)
    }

    /// Ends it; its bytes are lost.
    pub(super) fn cancel(&self) -> Result<(), Refusal> {
        if staging::cancel(&self.folder)? { Ok(()) } else { Err(unknown()) }
    }

    /// Returns what a failure means: none of ours, where somebody has cancelled the upload meanwhile.
    pub(super) fn or_gone(&self, error: impl Into<Refusal>) -> Refusal {
        if self.folder.exists() { error.into() } else { unknown() }
    }

    /// Refuses bytes that cannot be the next ones, and says which are.
    pub(super) fn out_of_order(&self, message: &str) -> Refusal {
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            .with(LOCATION, self.location())
            .with(RANGE, self.range())
            .with(UPLOAD_ID, self.id.clone())
    }

    /// Returns where it is found.
    pub(super) fn location(&self) -> String {
        format!("/v2/{}/blobs/uploads/{}", self.name, self.id)
    }

    /// Says which bytes are there. The specification has no words for none.
    pub(super) fn range(&self) -> String {
        format!("0-{}", self.offset.saturating_sub(1))
    }

    /// Returns its id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the repository it is for.
    pub(super) const fn name(&self) -> &Name {
        &self.name
    }
}

fn unknown() -> Refusal {
    Refusal::not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn one_request_at_a_time_appends_and_anybody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let storage = || Storage::open(dir.path()).unwrap();
        let name: Name = "a".parse().unwrap();
        let mut session = Session::begin(&storage(), name.clone(), Algorithm::Sha256).unwrap();
        let find = |name: &str| Session::find(&storage(), name.parse().unwrap(), session.id.clone());
        let mut staging = session.clone().take().unwrap();
        let refusal = find("a").unwrap().take().unwrap_err().reply();
        assert_eq!(refusal.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        staging.append(&[Bytes::from_static(b"abc")]).unwrap();
        assert_eq!(find("a").unwrap().range(), "0-0");
        assert!(find("b").is_err());
        let mut saved = session.clone();
        saved.save(&mut staging).unwrap();
        assert_eq!((saved.range(), find("a").unwrap().range()), ("0-2".into(), "0-2".into()));
        drop(staging);
        assert_eq!(session.take().unwrap().size(), 3);
        assert_eq!(session.range(), "0-2");
    }

    #[test]
    fn what_is_no_id_is_looked_up_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        for id in ["..", ".", "", "x", &"g".repeat(32)] {
            let refusal = Session::find(&storage, "a".parse().unwrap(), id.into()).unwrap_err();
            assert_eq!(refusal.reply().status(), StatusCode::NOT_FOUND);
        }
    }

    #[test]
    fn a_cancelled_session_is_gone_for_who_is_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let mut session = Session::begin(&storage, "a".parse().unwrap(), Algorithm::Sha256).unwrap();
        let mut staging = session.take().unwrap();
        session.cancel().unwrap();
        staging.append(&[Bytes::from_static(b"late")]).unwrap();
        for refusal in [
            session.save(&mut staging).unwrap_err(),
            session.clone().take().unwrap_err(),
            session.cancel().unwrap_err(),
        ] {
            assert_eq!(refusal.reply().status(), StatusCode::NOT_FOUND);
        }
    }
}
