//! What a registry does with a bucket: small documents that are written whole, some only if nobody else has written
//! them meanwhile, and large objects in parts. All of it ends in bounded time.
//!
//! Not every store heeds the conditions of a request (`If-None-Match`, `If-Match`). Whether this one does is tried when
//! it is opened. Where it does not, a document is looked at right before it is written: two that write it within the
//! same moment do not notice each other.

use std::{ops::Range, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream, stream::BoxStream,
};
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, GetRange, ObjectStoreExt as _, PutMode,
    PutOptions, PutResult, UpdateVersion,
    multipart::{MultipartStore, PartId},
    path::Path,
};

use crate::{
    bucket::{Bucket, failed},
    error::{Error, Result},
};

/// No document is longer.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// So many questions of one request are asked at once.
const AT_ONCE: usize = 16;
/// A document is created in so many attempts at most, while the bucket says that others write it.
const TRIES: usize = 5;
/// What a document is beside its bytes.
const NOTE: &str = "longshore";

/// A bucket with a registry in it.
#[derive(Clone)]
pub(super) struct Store {
    bucket: Bucket,
    multipart: Arc<dyn MultipartStore>,
    heeds_conditions: bool,
}

/// A document as it was read.
pub(super) struct Document {
    pub(super) bytes: Bytes,
    pub(super) version: Version,
    /// What was noted with it.
    pub(super) note: Option<String>,
}

/// Which of the contents that a document has had.
#[derive(Clone, Debug)]
pub(super) struct Version {
    e_tag: Option<String>,
    /// Not every answer has one.
    number: Option<String>,
}

impl Document {
    /// Returns what it is known by if these are its bytes: then it was us who wrote it, in an attempt that nobody
    /// answered, or somebody who did the same.
    fn version_if(self, bytes: &Bytes) -> Option<Version> {
        (self.bytes == *bytes).then_some(self.version)
    }
}

impl Version {
    /// Returns whether the document is what it was.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.e_tag == other.e_tag
    }
}

impl From<PutResult> for Version {
    fn from(put: PutResult) -> Self {
        Self { e_tag: put.e_tag, number: put.version }
    }
}

impl Store {
    /// Finds out whether the bucket lets us in, and what it can do.
    pub(super) async fn open(bucket: Bucket) -> Result<Self> {
        let opening = format!("opening the registry in `{}`", bucket.name());
        let multipart = bucket.multipart().cloned().ok_or_else(|| {
            Error::usage("a registry cannot lie at such an address")
                .with_hint("a folder is served by its path")
                .while_doing(opening.clone())
        })?;
        let mut store = Self { bucket, multipart, heeds_conditions: true };
        store.heeds_conditions = store.probe().await.map_err(|error| error.while_doing(opening))?;
        if !store.heeds_conditions {
            tracing::warn!(
                "`{}` writes whatever the conditions are: of two clients at one upload, both may be told that they were first",
                store.bucket.name()
            );
        }
        Ok(store)
    }

    /// Reads a document, if it is there.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Document>> {
        let path = self.bucket.path(key)?;
        self.in_time(reading(key), async {
            let found = match self.bucket.objects().get(&path).await {
                Err(StoreError::NotFound { .. }) => return Ok(None),
                found => found.map_err(failed)?,
            };
            if found.meta.size > DOCUMENT_LIMIT {
                return Err(Error::local("it is no document of a registry"));
            }
            let version = Version { e_tag: found.meta.e_tag.clone(), number: found.meta.version.clone() };
            let note =
                found.attributes.get(&Attribute::Metadata(NOTE.into())).map(|note| note.as_ref().to_owned());
            let bytes = found.bytes().await.map_err(failed)?;
            Ok(Some(Document { bytes, version, note }))
        })
        .await
    }

    /// Reads many documents at once, in order, those that are there.
    pub(super) async fn read_all(&self, keys: Vec<String>) -> Result<Vec<(String, Document)>> {
        stream::iter(keys)
            .map(|key| async move { Ok(self.read(&key).await?.map(|document| (key, document))) })
            .buffered(AT_ONCE)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await
    }

    /// Returns whether there is an object.
    pub(super) async fn exists(&self, key: &str) -> Result<bool> {
        let path = self.bucket.path(key)?;
        self.in_time(reading(key), async {
            match self.bucket.objects().head(&path).await {
                Err(StoreError::NotFound { .. }) => Ok(false),
                found => found.map(|_| true).map_err(failed),
            }
        })
        .await
    }

    /// Returns the first of these keys under which there is nothing, by its place.
    pub(super) async fn first_missing(&self, keys: Vec<String>) -> Result<Option<usize>> {
        let mut found = stream::iter(keys)
            .map(|key| async move { self.exists(&key).await })
            .buffered(AT_ONCE)
            .enumerate();
        while let Some((at, exists)) = found.next().await {
            if !exists? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Writes an object, whatever is there.
    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.overwrite(key, bytes, PutOptions::default()).await.map(drop)
    }

    /// Writes a document with a note.
    pub(super) async fn put_noted(&self, key: &str, bytes: Bytes, note: &str) -> Result<()> {
        let attributes = Attributes::from_iter([(Attribute::Metadata(NOTE.into()), note.to_owned())]);
        self.overwrite(key, bytes, attributes.into()).await.map(drop)
    }

    /// Writes a document if there is none; nothing if there is one.
    pub(super) async fn create(&self, key: &str, bytes: Bytes) -> Result<Option<Version>> {
        if !self.heeds_conditions {
            if self.exists(key).await? {
                return Ok(None);
            }
            return self.overwrite(key, bytes, PutOptions::default()).await.map(Some);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.write(key, bytes.clone(), PutMode::Create.into()).await? {
                Err(error @ StoreError::AlreadyExists { .. }) => match self.read(key).await? {
                    Some(document) => return Ok(document.version_if(&bytes)),
                    // S3 says the same of a moment in which several write: 409 `ConditionalRequestConflict`.
                    None if tries == TRIES => return Err(unwritten(key)(error)),
                    None => {}
                },
                written => return written.map(|put| Some(put.into())).map_err(unwritten(key)),
            }
        }
    }

    /// Writes a document that still is what it was; nothing if somebody else has changed or removed it.
    pub(super) async fn replace(&self, key: &str, bytes: Bytes, was: &Version) -> Result<Option<Version>> {
        if !self.heeds_conditions {
            if self.read(key).await?.is_none_or(|is| !is.version.is(was)) {
                return Ok(None);
            }
            return self.overwrite(key, bytes, PutOptions::default()).await.map(Some);
        }
        let was = UpdateVersion { e_tag: was.e_tag.clone(), version: was.number.clone() };
        match self.write(key, bytes.clone(), PutMode::Update(was).into()).await? {
            Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
                Ok(self.read(key).await?.and_then(|document| document.version_if(&bytes)))
            }
            written => written.map(|put| Some(put.into())).map_err(unwritten(key)),
        }
    }

    /// Lists the objects below a key, sorted: what comes behind it, and when they were written.
    pub(super) async fn list(&self, key: &str) -> Result<Vec<(String, SystemTime)>> {
        let (path, mut found) = (self.bucket.path(key)?, Vec::new());
        let mut listing = self.bucket.objects().list(Some(&path));
        while let Some(object) = self.in_time(reading(key), listing.try_next().map_err(failed)).await? {
            if let Some(behind) = object.location.prefix_match(&path) {
                let behind: Vec<_> = behind.map(|part| part.as_ref().to_owned()).collect();
                found.push((behind.join("/"), object.last_modified.into()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Returns whether there is anything below a key.
    pub(super) async fn is_any_below(&self, key: &str) -> Result<bool> {
        let path = self.bucket.path(key)?;
        let mut listing = self.bucket.objects().list(Some(&path));
        let first = self.in_time(reading(key), listing.try_next().map_err(failed)).await?;
        Ok(first.is_some())
    }

    /// Removes objects; those that are not there are gone already.
    pub(super) async fn remove(&self, keys: Vec<String>) -> Result<()> {
        let paths: Vec<Path> = keys.iter().map(|key| self.bucket.path(key)).collect::<Result<_>>()?;
        for paths in paths.chunks(1000) {
            let paths = stream::iter(paths.to_vec()).map(Ok).boxed();
            let mut removed = self.bucket.objects().delete_stream(paths);
            while let Some(gone) = self.in_time("removing".into(), removed.next().map(Ok)).await? {
                match gone {
                    Err(StoreError::NotFound { .. }) | Ok(_) => {}
                    Err(error) => return Err(failed(error).while_doing("removing")),
                }
            }
        }
        Ok(())
    }

    /// Returns a range of an object's bytes, piece by piece as they come.
    pub(super) fn bytes(&self, key: &str, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let (store, key) = (self.clone(), key.to_owned());
        let opened = async move {
            let path = store.bucket.path(&key)?;
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            let finding = store.bucket.objects().get_opts(&path, options).map_err(failed);
            let pieces = store.in_time(reading(&key), finding).await?.into_stream();
            Ok::<_, Error>(stream::try_unfold((store, key, pieces), |(store, key, mut pieces)| async move {
                let piece = store.in_time(reading(&key), pieces.try_next().map_err(failed)).await?;
                Ok(piece.map(|piece| (piece, (store, key, pieces))))
            }))
        };
        stream::once(opened).try_flatten().boxed()
    }

    /// Begins an object whose parts come one by one; returns what they are put to.
    pub(super) async fn begin(&self, key: &str) -> Result<String> {
        let path = self.bucket.path(key)?;
        self.in_time(writing(key), self.multipart.create_multipart(&path).map_err(failed)).await
    }

    /// Puts one of the parts of an object.
    pub(super) async fn put_part(&self, key: &str, id: &str, index: usize, bytes: Bytes) -> Result<PartId> {
        let (path, id, size) = (self.bucket.path(key)?, id.to_owned(), bytes.len() as u64);
        let putting = self.multipart.put_part(&path, &id, index, bytes.into()).map_err(failed);
        self.transfer(key, size, putting).await
    }

    /// Makes an object of its parts.
    pub(super) async fn complete(&self, key: &str, id: &str, parts: Vec<PartId>, size: u64) -> Result<()> {
        let (path, id) = (self.bucket.path(key)?, id.to_owned());
        let completing = async {
            match self.multipart.complete_multipart(&path, &id, parts).await {
                // The parts are gone, and the object is there: an attempt that nobody answered has made it.
                Err(StoreError::NotFound { .. }) if self.exists(key).await? => Ok(()),
                completed => completed.map_err(failed).map(drop),
            }
        };
        self.transfer(key, size, completing).await
    }

    /// Throws the parts of an object away. They may be gone.
    pub(super) async fn abort(&self, key: &str, id: &str) {
        let aborting = async {
            let path = self.bucket.path(key)?;
            self.bucket.in_time(self.multipart.abort_multipart(&path, &id.to_owned()).map_err(failed)).await
        };
        if let Err(error) = aborting.await {
            tracing::debug!("parts of `{key}` are left in the bucket: {error}");
        }
    }

    async fn overwrite(&self, key: &str, bytes: Bytes, options: PutOptions) -> Result<Version> {
        self.write(key, bytes, options).await?.map(Into::into).map_err(unwritten(key))
    }

    /// Says apart what the bucket did not do in time, and what it answered.
    async fn write(
        &self,
        key: &str,
        bytes: Bytes,
        options: PutOptions,
    ) -> Result<Result<PutResult, StoreError>> {
        let (path, size) = (self.bucket.path(key)?, bytes.len() as u64);
        let putting = self.bucket.objects().put_opts(&path, bytes.into(), options).map(Ok);
        self.transfer(key, size, putting).await
    }

    /// Does what may take as long as so many bytes.
    async fn transfer<T>(&self, key: &str, size: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = self.bucket.within(self.bucket.allowance(size), work).await;
        done.map_err(|error| error.while_doing(writing(key)))
    }

    async fn in_time<T>(&self, doing: String, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.bucket.in_time(work).await.map_err(|error| error.while_doing(doing))
    }

    /// Tries whether conditions are heeded, on an object of its own.
    async fn probe(&self) -> Result<bool> {
        let (key, bytes) = (format!("_probes/{:032x}", rand::random::<u128>()), Bytes::from_static(b"?"));
        self.put(&key, bytes.clone()).await?;
        // None that anything has had.
        let other = UpdateVersion { e_tag: Some(format!("\"{:032x}\"", 0)), version: Some("1".into()) };
        let created = self.write(&key, bytes.clone(), PutMode::Create.into()).await?;
        let replaced = self.write(&key, bytes, PutMode::Update(other).into()).await?;
        self.remove(vec![key]).await?;
        Ok(matches!(created, Err(StoreError::AlreadyExists { .. }))
            && matches!(replaced, Err(StoreError::Precondition { .. } | StoreError::NotFound { .. })))
    }
}

fn reading(key: &str) -> String {
    format!("reading `{key}`")
}

fn writing(key: &str) -> String {
    format!("writing `{key}`")
}

fn unwritten(key: &str) -> impl FnOnce(StoreError) -> Error {
    move |error| failed(error).while_doing(writing(key))
}
