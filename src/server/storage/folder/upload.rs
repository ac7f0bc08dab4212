//! Uploads in a folder: the sessions that lie there, and the way of one's bytes to disk.
//!
//! While a batch is hashed and written, on a thread that may wait for the disk, the next comes in behind it, in the
//! socket's buffer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Folder,
    disk::Disk,
    staging::{self, Staging, State, Taken},
};
use crate::{
    error::{Error, Result},
    oci::{Algorithm, Digest},
    server::{
        protocol::{Name, Refusal},
        storage::session::{Session, unknown},
        tasks::blocking,
    },
};

/// An upload that one request appends to.
#[derive(Debug)]
#[must_use = "what is not saved or committed does not count"]
pub(in crate::server) struct Upload {
    folder: Folder,
    session: Session,
    /// None is there while a thread has it.
    staging: Option<Staging>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Upload {
    pub(super) const fn new(folder: Folder, session: Session, staging: Staging) -> Self {
        Self { folder, session, staging: Some(staging), turn: None }
    }

    /// Returns what is known of it.
    pub(in crate::server) const fn session(&self) -> &Session {
        &self.session
    }

    /// Waits for its client.
    pub(in crate::server) async fn wait_for<T>(
        &mut self,
        next: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        Ok(next.await)
    }

    /// Waits for leave to write a batch.
    pub(in crate::server) async fn make_room(&mut self) -> Result<(), Refusal> {
        self.turn = Arc::clone(&self.folder.turns).acquire_owned().await.ok();
        Ok(())
    }

    /// Takes the next bytes.
    pub(in crate::server) async fn append(&mut self, batch: Vec<Bytes>) -> Result<(), Refusal> {
        let appended = self.with(move |_, staging| Ok(staging.append(&batch)?)).await;
        self.turn = None;
        appended
    }

    /// Makes what was appended count.
    pub(in crate::server) async fn save(&mut self) -> Result<(), Refusal> {
        let session = self.session.clone();
        self.session.offset = self
            .with(move |disk, staging| {
                staging.save().map_err(|error| disk.or_gone(&session, error))?;
                Ok::<_, Refusal>(staging.size())
            })
            .await?;
        Ok(())
    }

    /// Ends it as a blob of its repository, if its bytes are what `digest` says; otherwise they are lost.
    pub(in crate::server) async fn commit(mut self, digest: Digest) -> Result<(), Refusal> {
        let session = self.session.clone();
        self.with(move |disk, staging| {
            let committed = disk.commit(staging, session.name(), &digest);
            let committed = committed.map_err(|refusal| disk.or_gone(&session, refusal));
            // A failure of our own is no reason to send everything again.
            if !committed.as_ref().is_err_and(Refusal::is_our_fault) {
                staging.end();
            }
            committed
        })
        .await
    }

    /// Throws it away, if it is not kept.
    #[expect(clippy::unused_async, reason = "as in objects")]
    pub(in crate::server) async fn discard(self) {}

    async fn with<T, E>(
        &mut self,
        work: impl FnOnce(&Disk, &mut Staging) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (disk, staging) = (self.folder.disk.clone(), self.staging.take());
        let mut staging = staging.ok_or_else(|| Error::internal("an upload was lost"))?;
        let (staging, done) = blocking(move || {
            let done = work(&disk, &mut staging);
            Ok::<_, E>((staging, done))
        })
        .await?;
        self.staging = Some(staging);
        done
    }
}

impl Disk {
    /// Begins an upload that is kept.
    pub(in crate::server) fn begin(&self, name: Name, algorithm: Algorithm) -> Result<Session> {
        let session = Session::new(name);
        self.stage(session.id(), algorithm)?.keep(session.name().to_string())?;
        Ok(session)
    }

    /// Finds one, if it belongs to the repository, and whether a request is appending to it.
    pub(in crate::server) fn find(&self, session: Session) -> Result<(Session, bool), Refusal> {
        // First: what is saved after that counts.
        let is_busy = staging::is_busy(&self.upload(session.id()));
        Ok((self.known(session)?, is_busy))
    }

    fn known(&self, mut session: Session) -> Result<Session, Refusal> {
        match State::read(&self.upload(session.id()))? {
            Some(state) if state.repository == session.name().as_str() => {
                session.offset = state.size;
                Ok(session)
            }
            _ => Err(unknown()),
        }
    }

    /// Keeps every other request from appending.
    pub(super) fn take(&self, session: Session) -> Result<(Session, Staging), Refusal> {
        let mut session = self.known(session)?;
        match Staging::resume(self.upload(session.id()))? {
            Taken::Busy => Err(session.taken()),
            Taken::Gone => Err(unknown()),
            Taken::Ours(staging) => {
                session.offset = staging.size();
                Ok((session, staging))
            }
        }
    }

    /// Ends it.
    pub(in crate::server) fn cancel(&self, session: Session) -> Result<(), Refusal> {
        let session = self.known(session)?;
        if staging::cancel(&self.upload(session.id()))? { Ok(()) } else { Err(unknown()) }
    }

    /// Returns what a failure means: none of ours, where somebody has cancelled the upload meanwhile.
    fn or_gone(&self, session: &Session, error: impl Into<Refusal>) -> Refusal {
        if self.upload(session.id()).exists() { error.into() } else { unknown() }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::server::storage::Storage;

    async fn folder(dir: &tempfile::TempDir) -> Storage {
        Storage::open(dir.path().into()).await.unwrap()
    }

    #[tokio::test]
    async fn one_request_at_a_time_appends_and_anybody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (folder(&dir).await, folder(&dir).await);
        let name: Name = "a".parse().unwrap();
        let id = a.begin(name.clone(), Algorithm::Sha256).await.unwrap().id().to_owned();
        let mut upload = a.take(name.clone(), id.clone()).await.unwrap();
        let refusal = b.take(name.clone(), id.clone()).await.unwrap_err().reply();
        assert_eq!(refusal.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        upload.append(vec![Bytes::from_static(b"abc")]).await.unwrap();
        let (found, is_busy) = b.find(name.clone(), id.clone()).await.unwrap();
        assert_eq!((found.range(), is_busy), ("0-0".into(), true));
        assert!(b.find("b".parse().unwrap(), id.clone()).await.is_err());
        upload.save().await.unwrap();
        assert_eq!(upload.session().range(), "0-2");
        assert_eq!(b.find(name.clone(), id.clone()).await.unwrap().0.range(), "0-2");
        drop(upload);
        assert_eq!(b.take(name, id).await.unwrap().session().offset, 3);
    }

    #[tokio::test]
    async fn a_cancelled_session_is_gone_for_who_is_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir).await;
        let name: Name = "a".parse().unwrap();
        let id = folder.begin(name.clone(), Algorithm::Sha256).await.unwrap().id().to_owned();
        let mut upload = folder.take(name.clone(), id.clone()).await.unwrap();
        folder.cancel(name.clone(), id.clone()).await.unwrap();
        upload.append(vec![Bytes::from_static(b"late")]).await.unwrap();
        for refusal in [
            upload.save().await.unwrap_err(),
            folder.take(name.clone(), id.clone()).await.unwrap_err(),
            folder.cancel(name, id).await.unwrap_err(),
        ] {
            assert_eq!(refusal.reply().status(), StatusCode::NOT_FOUND);
        }
    }
}
