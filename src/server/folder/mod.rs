//! A registry in a folder: what `disk` knows to do with it, on threads that may wait for the disk.

mod disk;
mod index;
mod manifests;
mod staging;
mod upload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use self::disk::Disk;
pub(super) use self::upload::Upload;
use super::{
    names::{Name, Needed, Target},
    reply::Refusal,
    sessions::Session,
    tasks::blocking,
};
use crate::{
    blob::Blob,
    error::Result,
    oci::{Algorithm, Digest, Manifest},
};

/// So many batches of uploads are hashed and written at once. More would only take memory.
const TURNS: usize = 16;

/// Everything a registry in a folder has.
#[derive(Clone, Debug)]
pub(super) struct Folder {
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

    /// Clears what nobody needs: uploads that were not touched for `lifetime`, what killed processes left, and blobs
    /// of no repository.
    pub(super) async fn clear(&self, lifetime: Duration) -> Result<()> {
        self.on_disk(move |disk| disk.clear(lifetime)).await
    }

    /// Returns how many uploads there are.
    pub(super) async fn count_uploads(&self) -> Result<usize> {
        self.on_disk(Disk::count_uploads).await
    }

    /// Returns the names of all repositories, sorted.
    pub(super) async fn repositories(&self) -> Result<Vec<String>> {
        self.on_disk(|disk| Ok(disk.repositories())).await
    }

    /// Returns the folder that a repository's blobs are in, where it has some.
    pub(super) fn blobs(&self, name: &Name) -> PathBuf {
        self.disk.blobs(name)
    }

    /// Opens a blob of a repository.
    pub(super) async fn blob(&self, name: Name, digest: Digest) -> Result<Option<Blob>> {
        self.on_disk(move |disk| disk.blob(&name, &digest)).await
    }

    /// Makes a blob of one repository (of any, if none is named) one of another, without copying it. Returns
    /// whether there was such a blob.
    pub(super) async fn mount(&self, name: Name, digest: Digest, from: Option<Name>) -> Result<bool> {
        self.on_disk(move |disk| disk.mount(&name, &digest, from.as_ref())).await
    }

    /// Takes a blob out of a repository. Returns whether it was there.
    pub(super) async fn remove_blob(&self, name: Name, digest: Digest) -> Result<bool, Refusal> {
        self.on_disk(move |disk| disk.remove_blob(&name, &digest)).await
    }

    /// Returns the first of these that a repository does not have.
    pub(super) async fn first_missing(&self, name: Name, needed: Vec<Needed>) -> Result<Option<Needed>> {
        self.on_disk(move |disk| disk.first_missing(&name, needed)).await
    }

    /// Finds a manifest.
    pub(super) async fn manifest(&self, name: Name, target: Target) -> Result<Option<Manifest>> {
        self.on_disk(move |disk| disk.find_manifest(&name, &target)).await
    }

    /// Stores a manifest under its digest and these tags.
    pub(super) async fn put_manifest(
        &self,
        name: Name,
        tags: Vec<String>,
        manifest: Manifest,
    ) -> Result<(), Refusal> {
        self.on_disk(move |disk| disk.put_manifest(&name, &tags, &manifest)).await
    }

    /// Takes a tag away, or a manifest with all its tags. Returns whether it was there; nothing if there is no such
    /// repository.
    pub(super) async fn remove_manifest(&self, name: Name, target: Target) -> Result<Option<bool>> {
        self.on_disk(move |disk| disk.remove_manifest(&name, &target)).await
    }

    /// Returns the tags of a repository, sorted; nothing if there is no such repository.
    pub(super) async fn tags(&self, name: Name) -> Result<Option<Vec<String>>> {
        self.on_disk(move |disk| disk.tags(&name)).await
    }

    /// Returns the manifests that are about another one.
    pub(super) async fn referrers(&self, name: Name, subject: Digest) -> Result<Vec<Manifest>> {
        self.on_disk(move |disk| disk.referrers(&name, &subject)).await
    }

    /// Begins an upload that other requests go on with.
    pub(super) async fn begin(&self, name: Name, algorithm: Algorithm) -> Result<Session> {
        self.on_disk(move |disk| disk.begin(name, algorithm)).await
    }

    /// Begins an upload of one request: it is gone if that does not commit it.
    pub(super) async fn receive(&self, name: Name, algorithm: Algorithm) -> Result<Upload> {
        let session = Session::new(name);
        let id = session.id().to_owned();
        let staging = self.on_disk(move |disk| disk.stage(&id, algorithm)).await?;
        Ok(Upload::new(self.clone(), session, staging))
    }

    /// Finds an upload that is kept, and whether a request is appending to it.
    pub(super) async fn find(&self, name: Name, id: String) -> Result<(Session, bool), Refusal> {
        self.on_disk(move |disk| disk.find(name, id)).await
    }

    /// Goes on with an upload, and keeps every other request from appending, of whatever process.
    pub(super) async fn take(&self, name: Name, id: String) -> Result<Upload, Refusal> {
        let (session, staging) = self.on_disk(move |disk| disk.take(name, id)).await?;
        Ok(Upload::new(self.clone(), session, staging))
    }

    /// Ends an upload; its bytes are lost.
    pub(super) async fn cancel(&self, name: Name, id: String) -> Result<(), Refusal> {
        self.on_disk(move |disk| disk.cancel(name, id)).await
    }

    async fn on_disk<T, E>(&self, work: impl FnOnce(&Disk) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<crate::Error> + Send + 'static,
    {
        let disk = self.disk.clone();
        blocking(move || work(&disk)).await
    }
}
