//! A registry in a bucket, for any number of processes that know nothing of each other:
//!
//! * `<repository>/_blobs/<algorithm>/<hex>`: that the repository has a blob, and which objects its bytes are ([`Body`]);
//! * `<repository>/_manifests/<algorithm>/<hex>`: a manifest, byte for byte, its media type noted beside it;
//! * `<repository>/_tags/<tag>`: the digest of the manifest it names;
//! * `<repository>/_referrers/<hex>/<hex>`: that the second manifest is about the first;
//! * `_blobs/<algorithm>/<hex>`: where a blob's bytes are, for whoever brings them once more;
//! * `_uploads/<id>`: what is known of an upload ([`sessions`]);
//! * `_data/<id>/<name>`: the bytes it has brought, of a blob as of one on its way.
//!
//! Nothing is shared that would have to be changed: each fact is an object of its own, written whole, after those that
//! it names. What has a state is the upload, and whoever replaces that must have seen the one before.

mod body;
mod manifests;
mod parts;
mod sessions;
mod store;
mod upload;

use std::{fmt, ops::Range};

use bytes::Bytes;
use futures_util::stream::BoxStream;

pub(super) use self::upload::Upload;
use self::{body::Body, parts::Room, store::Store};
use crate::{
    bucket::Bucket,
    error::Result,
    oci::Digest,
    server::protocol::{Name, Refusal},
};

/// Everything a registry in a bucket has.
#[derive(Clone)]
pub(in crate::server) struct Objects {
    store: Store,
    room: Room,
}

/// A blob to be read.
pub(in crate::server) struct Stored {
    store: Store,
    body: Body,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    /// Opens a bucket, and finds out what it can do.
    pub(super) async fn open(bucket: Bucket) -> Result<Self> {
        Ok(Self { store: Store::open(bucket).await?, room: Room::new() })
    }

    /// Opens a blob of a repository.
    pub(super) async fn blob(&self, name: Name, digest: Digest) -> Result<Option<Stored>> {
        let body = self.body(&blob_key(&name, &digest)).await?;
        Ok(body.map(|body| Stored { store: self.store.clone(), body }))
    }

    /// Makes a blob of one repository one of another, without copying it. Returns whether there was such a blob: where
    /// none is named, that any has it cannot be known.
    pub(super) async fn mount(&self, name: Name, digest: Digest, from: Option<Name>) -> Result<bool> {
        let Some(from) = from else { return Ok(false) };
        let Some(body) = self.body(&blob_key(&from, &digest)).await? else { return Ok(false) };
        self.store.put(&blob_key(&name, &digest), body.to_bytes()).await?;
        Ok(true)
    }

    /// Takes a blob out of a repository. Returns whether it was there. Its bytes stay: that nobody begins to use them
    /// at this moment cannot be known here.
    pub(super) async fn remove_blob(&self, name: Name, digest: Digest) -> Result<bool, Refusal> {
        let key = blob_key(&name, &digest);
        if self.store.exists(&key).await? {
            self.store.remove(vec![key]).await?;
            return Ok(true);
        }
        if self.store.exists(&manifests::key(&name, &digest)).await? {
            return Err(Refusal::manifest_as_blob());
        }
        Ok(false)
    }

    async fn body(&self, key: &str) -> Result<Option<Body>> {
        self.store.read(key).await?.map(|document| Body::parse(&document.bytes)).transpose()
    }
}

impl Stored {
    /// Returns how many bytes it has.
    pub(super) fn size(&self) -> u64 {
        self.body.size()
    }

    /// Reads a range of it.
    pub(in crate::server) fn bytes(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        self.body.bytes(&self.store, range)
    }
}

/// Returns where it is said that a repository has a blob.
fn blob_key(name: &Name, digest: &Digest) -> String {
    format!("{name}/{}", shared_key(digest))
}

/// Returns where it is said that there is a blob at all.
fn shared_key(digest: &Digest) -> String {
    format!("_blobs/{}", digest.path())
}

#[cfg(test)]
mod tests;
