//! A registry in a folder: what `disk` knows to do with it, on threads that may wait for the disk.

mod disk;
mod index;
mod manifests;
mod staging;
mod upload;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Semaphore;

use self::disk::Disk;
pub(super) use self::upload::Upload;
use super::session::Session;
use crate::{
    error::Result,
    oci::Algorithm,
    server::{
        protocol::{Name, Refusal},
        tasks::blocking,
    },
};

/// So many batches of uploads are hashed and written at once. More would only take memory.
const TURNS: usize = 16;

/// Everything a registry in a folder has.
#[derive(Clone, Debug)]
pub(in crate::server) struct Folder {
    disk: Disk,
    /// Leave to write a batch.
    turns: Arc<Semaphore>,
}

impl Folder {
    /// Opens a folder, and makes it if need be.
    pub(super) async fn open(root: PathBuf) -> Result<Self> {
        let disk = blocking(move || Disk::open(&root)).await?;
        Ok(Self { disk, turns: Arc::new(Semaphore::new(TURNS)) })
    }

    /// Returns the folder that a repository's blobs are in, where it has some.
    pub(in crate::server) fn blobs(&self, name: &Name) -> PathBuf {
        self.disk.blobs(name)
    }

    /// Begins an upload of one request: it is gone if that does not commit it.
    pub(super) async fn receive(&self, name: Name, algorithm: Algorithm) -> Result<Upload> {
        let session = Session::new(name);
        let id = session.id().to_owned();
        let staging = self.on_disk(move |disk| disk.stage(&id, algorithm)).await?;
        Ok(Upload::new(self.clone(), session, staging))
    }

    /// Goes on with an upload, and keeps every other request from appending, of whatever process.
    pub(super) async fn take(&self, session: Session) -> Result<Upload, Refusal> {
        let (session, staging) = self.on_disk(move |disk| disk.take(session)).await?;
        Ok(Upload::new(self.clone(), session, staging))
    }

    /// Does something with the disk, on a thread that may wait for it.
    pub(super) async fn on_disk<T, E>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::Error> + Send + 'static,
    {
        let disk = self.disk.clone();
        blocking(move || work(&disk)).await
    }
}
