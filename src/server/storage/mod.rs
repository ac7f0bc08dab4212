//! What the registry has, as the endpoints see it: repositories with their blobs, manifests and tags, and uploads on
//! their way in. They know nothing of files, objects or locks: that is `folder` and `objects`, which do the same.
//!
//! In a folder the body of an upload flows from the socket through a hasher into a file and is never held; what the next
//! request has to know of it lies beside that file, so several processes can serve one folder. Everything there can be
//! read by other tools: each repository is an OCI layout. In a bucket it is collected to parts, and any number of
//! processes can serve one bucket.

mod folder;
#[cfg(feature = "buckets")]
mod objects;
mod session;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

#[cfg(feature = "buckets")]
use self::objects::Objects;
pub(super) use self::{folder::Folder, session::Session};
use super::protocol::{Name, Needed, Refusal, Target};
use crate::{
    blob::Blob,
    bucket::Bucket,
    error::Result,
    oci::{Algorithm, Digest, Manifest},
};

/// Where a registry keeps what it has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Place {
    /// A bucket, for any number of processes on any machines.
    Bucket(Bucket),
    /// A folder, for the processes of one machine; made if it is not there.
    Folder(PathBuf),
}

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<&Path> for Place {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.to_owned())
    }
}

impl From<Bucket> for Place {
    fn from(bucket: Bucket) -> Self {
        Self::Bucket(bucket)
    }
}

/// Everything the registry has.
#[derive(Clone, Debug)]
pub(super) enum Storage {
    Folder(Folder),
    #[cfg(feature = "buckets")]
    Objects(Objects),
}

/// An upload that one request appends to.
#[derive(Debug)]
#[must_use = "what is not saved or committed does not count"]
pub(super) enum Upload {
    Folder(folder::Upload),
    #[cfg(feature = "buckets")]
    Objects(objects::Upload),
}

/// A blob to be read.
pub(super) enum Stored {
    Folder(Blob),
    #[cfg(feature = "buckets")]
    Objects(objects::Stored),
}

/// What came of taking a manifest or a tag away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Done,
    NoManifest,
    NoRepository,
}

/// Does with a folder what its disk does, on a thread that may wait for that, and with a bucket what is done there.
macro_rules! done {
    ($storage:expr, $disk:ident => $on_disk:expr, $objects:ident => $in_bucket:expr) => {
        match $storage {
            Self::Folder(folder) => folder.on_disk(move |$disk| $on_disk).await,
            #[cfg(feature = "buckets")]
            Self::Objects($objects) => $in_bucket.await,
        }
    };
}

/// Does the same with either.
macro_rules! each {
    ($value:expr, $each:ident => $do:expr) => {
        match $value {
            Self::Folder($each) => $do,
            #[cfg(feature = "buckets")]
            Self::Objects($each) => $do,
        }
    };
}

impl Storage {
    /// Opens a place, and makes what has to be there.
    pub(super) async fn open(place: Place) -> Result<Self> {
        Ok(match place {
            Place::Folder(root) => Self::Folder(Folder::open(root).await?),
            #[cfg(feature = "buckets")]
            Place::Bucket(bucket) => Self::Objects(Objects::open(bucket).await?),
            #[cfg(not(feature = "buckets"))]
            Place::Bucket(bucket) => bucket.never(),
        })
    }

    /// Clears what nobody needs, such as uploads that were not touched for `lifetime`.
    pub(super) async fn clear(&self, lifetime: Duration) -> Result<()> {
        done!(self, disk => disk.clear(lifetime), objects => objects.clear(lifetime))
    }

    /// Returns how many uploads there are.
    pub(super) async fn count_uploads(&self) -> Result<usize> {
        done!(self, disk => disk.count_uploads(), objects => objects.count_uploads())
    }

    /// Opens a blob of a repository.
    pub(super) async fn blob(&self, name: Name, digest: Digest) -> Result<Option<Stored>> {
        done!(self,
            disk => Ok(disk.blob(&name, &digest)?.map(Stored::Folder)),
            objects => async { Ok(objects.blob(name, digest).await?.map(Stored::Objects)) })
    }

    /// Makes a blob of one repository (of any, if none is named and that can be found out) one of another, without
    /// copying it. Returns whether there was such a blob.
    pub(super) async fn mount(&self, name: Name, digest: Digest, from: Option<Name>) -> Result<bool> {
        done!(self, disk => disk.mount(&name, &digest, from.as_ref()), objects => objects.mount(name, digest, from))
    }

    /// Takes a blob out of a repository. Returns whether it was there.
    pub(super) async fn remove_blob(&self, name: Name, digest: Digest) -> Result<bool, Refusal> {
        done!(self, disk => disk.remove_blob(&name, &digest), objects => objects.remove_blob(name, digest))
    }

    /// Returns the first of these that a repository does not have.
    pub(super) async fn first_missing(&self, name: Name, needed: Vec<Needed>) -> Result<Option<Needed>> {
        done!(self, disk => disk.first_missing(&name, needed), objects => objects.first_missing(name, needed))
    }

    /// Finds a manifest.
    pub(super) async fn manifest(&self, name: Name, target: Target) -> Result<Option<Manifest>> {
        done!(self, disk => disk.find_manifest(&name, &target), objects => objects.manifest(name, target))
    }

    /// Stores a manifest under its digest and these tags.
    pub(super) async fn put_manifest(
        &self,
        name: Name,
        tags: Vec<String>,
        manifest: Manifest,
    ) -> Result<(), Refusal> {
        done!(self,
            disk => disk.put_manifest(&name, &tags, &manifest),
            objects => objects.put_manifest(name, tags, manifest))
    }

    /// Takes a tag away, or a manifest with all its tags.
    pub(super) async fn remove_manifest(&self, name: Name, target: Target) -> Result<Removal> {
        done!(self, disk => disk.remove_manifest(&name, &target), objects => objects.remove_manifest(name, target))
    }

    /// Returns the names of all repositories, sorted; nothing of a bucket, where each would cost a request.
    pub(super) async fn repositories(&self) -> Result<Option<Vec<String>>> {
        done!(self, disk => Ok(Some(disk.repositories())), _objects => async { Ok(None) })
    }

    /// Returns the tags of a repository, sorted; nothing if there is no such repository.
    pub(super) async fn tags(&self, name: Name) -> Result<Option<Vec<String>>> {
        done!(self, disk => disk.tags(&name), objects => objects.tags(name))
    }

    /// Returns the manifests that are about another one.
    pub(super) async fn referrers(&self, name: Name, subject: Digest) -> Result<Vec<Manifest>> {
        done!(self, disk => disk.referrers(&name, &subject), objects => objects.referrers(name, subject))
    }

    /// Begins an upload that other requests go on with.
    pub(super) async fn begin(&self, name: Name, algorithm: Algorithm) -> Result<Session> {
        done!(self, disk => disk.begin(name, algorithm), objects => objects.begin(name, algorithm))
    }

    /// Begins an upload of one request, which commits or discards it.
    pub(super) async fn receive(&self, name: Name, algorithm: Algorithm) -> Result<Upload> {
        Ok(match self {
            Self::Folder(folder) => Upload::Folder(folder.receive(name, algorithm).await?),
            #[cfg(feature = "buckets")]
            Self::Objects(objects) => Upload::Objects(objects.receive(name, algorithm).await?),
        })
    }

    /// Finds an upload, and whether a request is saving what has come of it.
    pub(super) async fn find(&self, name: Name, id: String) -> Result<(Session, bool), Refusal> {
        let session = Session::named(name, id)?;
        done!(self, disk => disk.find(session), objects => objects.find(session))
    }

    /// Goes on with an upload, here or where another process has left it.
    pub(super) async fn take(&self, name: Name, id: String) -> Result<Upload, Refusal> {
        let session = Session::named(name, id)?;
        Ok(match self {
            Self::Folder(folder) => Upload::Folder(folder.take(session).await?),
            #[cfg(feature = "buckets")]
            Self::Objects(objects) => Upload::Objects(objects.take(session).await?),
        })
    }

    /// Ends an upload; its bytes are lost.
    pub(super) async fn cancel(&self, name: Name, id: String) -> Result<(), Refusal> {
        let session = Session::named(name, id)?;
        done!(self, disk => disk.cancel(session), objects => objects.cancel(session))
    }
}

impl Upload {
    /// Returns what is known of it.
    pub(super) fn session(&self) -> &Session {
        each!(self, upload => upload.session())
    }

    /// Waits for its client.
    pub(super) async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        each!(self, upload => upload.wait_for(next).await)
    }

    /// Waits until it may take a batch.
    pub(super) async fn make_room(&mut self) -> Result<(), Refusal> {
        each!(self, upload => upload.make_room().await)
    }

    /// Takes the next bytes.
    pub(super) async fn append(&mut self, batch: Vec<Bytes>) -> Result<(), Refusal> {
        each!(self, upload => upload.append(batch).await)
    }

    /// Makes what was appended count, for other requests too.
    pub(super) async fn save(&mut self) -> Result<(), Refusal> {
        each!(self, upload => upload.save().await)
    }

    /// Ends it as a blob of its repository, if its bytes are what `digest` says; otherwise they are lost.
    pub(super) async fn commit(self, digest: Digest) -> Result<(), Refusal> {
        each!(self, upload => upload.commit(digest).await)
    }

    /// Throws one of a single request away.
    pub(super) async fn discard(self) {
        each!(self, upload => upload.discard().await);
    }
}

impl Stored {
    /// Returns how many bytes it has.
    pub(super) fn size(&self) -> u64 {
        each!(self, blob => blob.size())
    }
}
