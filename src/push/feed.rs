//! Bytes on their way to the registry: a file that is complete or still being written, read by range.
//!
//! A [`Feed`] is what an upload draws from. Its [`Spool`] says how far the bytes are at hand; the producer
//! (press/transcode.rs) publishes it after each write. Bytes that nobody has hashed while producing them (a stored
//! blob) are hashed here, in one sequential pass right before they are handed to the socket, and the last
//! frame is withheld unless the digest is the promised one.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::{sync::watch, task::spawn_blocking};

use super::runtime::blocking;
use crate::{
    blob::{self, Blob},
    codec::{Progress, Spool},
    error::{Context as _, Error, ErrorKind, Result},
    oci::{Algorithm, Descriptor, Digest, Hasher},
    registry::UploadBody,
};

/// So many bytes are read, hashed and handed over at a time, while as many are on their way: larger frames
/// cost memory and gain nothing.
const FRAME: u64 = 128 << 10;

/// What an upload draws from.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    bytes: Backing,
    spool: watch::Receiver<Spool>,
    proof: Option<Arc<Mutex<Proof>>>,
    instead: Option<Box<Self>>,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
enum Backing {
    File(Arc<OnceLock<Blob>>),
    Memory(Bytes),
}

/// The sequential pass over a stored blob: everything before `hashed` has been seen.
#[derive(Debug)]
struct Proof {
    hasher: Hasher,
    hashed: u64,
    expected: Descriptor,
    name: String,
}

/// The producer's end of a [`Feed`].
#[derive(Debug)]
pub(crate) struct Producer {
    file: Arc<OnceLock<Blob>>,
    spool: watch::Sender<Spool>,
}

impl Producer {
    /// Says where the bytes will be, before the first are announced.
    pub(crate) fn begin(&self, bytes: Blob) -> Result<()> {
        self.file.set(bytes).map_err(|_| Error::internal("a layer was produced twice"))
    }

    /// Says how far the bytes are: these can be read.
    pub(crate) fn announce(&self, progress: &Progress) {
        self.spool.send_modify(|spool| spool.advance(progress));
    }

    /// Returns whether nobody follows any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.spool.is_closed()
    }

    /// Says that no more will come: the digest and size of everything, or why there is nothing.
    pub(crate) fn end(&self, end: Result<(Digest, u64)>) {
        self.spool.send_modify(|spool| {
            if let Ok((_, size)) = end {
                spool.written = size;
            }
            spool.end = Some(end);
        });
    }
}

impl Feed {
    /// Feeds from memory.
    pub(crate) fn memory(bytes: Bytes, digest: Digest) -> Self {
        let size = bytes.len() as u64;
        Self { bytes: Backing::Memory(bytes), spool: complete(digest, size), proof: None, instead: None }
    }

    /// Feeds from a stored blob, hashing it on the way; `name` is what an error calls it.
    pub(crate) fn stored(blob: Blob, expected: Descriptor, name: String) -> Self {
        let spool = complete(expected.digest.clone(), expected.size);
        let hasher = Hasher::new(expected.digest.algorithm());
        let proof = Proof { hasher, hashed: 0, expected, name };
        Self {
            bytes: Backing::File(Arc::new(OnceLock::from(blob))),
            spool,
            proof: Some(Arc::new(Mutex::new(proof))),
            instead: None,
        }
    }

    /// Feeds from a file that is still being written, or passed over.
    pub(crate) fn growing() -> (Producer, Self) {
        let (sender, spool) = watch::channel(Spool::default());
        let file = Arc::new(OnceLock::new());
        (
            Producer { file: Arc::clone(&file), spool: sender },
            Self { bytes: Backing::File(file), spool, proof: None, instead: None },
        )
    }

    /// Returns whether these are the bytes of a stored blob, which are hashed on their way.
    pub(crate) const fn is_stored(&self) -> bool {
        self.proof.is_some()
    }

    /// Returns the digest of the first `size` bytes, which are at hand.
    pub(crate) fn prefix(&self, size: u64, algorithm: Algorithm) -> Result<Digest> {
        let mut hasher = Hasher::new(algorithm);
        let mut offset = 0;
        while offset < size {
            let length = FRAME.min(size - offset);
            match &self.bytes {
                Backing::Memory(bytes) => hasher.update(&bytes[offset as usize..(offset + length) as usize]),
                Backing::File(file) => {
                    let mut frame = vec![0; length as usize];
                    read(opened(file)?, &mut frame, offset)?;
                    hasher.update(&frame);
                }
            }
            offset += length;
        }
        Ok(hasher.finish())
    }

    /// Names what is drawn from if this one ends with nothing that can be used.
    pub(crate) fn or(self, instead: Self) -> Self {
        Self { instead: Some(Box::new(instead)), ..self }
    }

    /// Returns what is drawn from instead, once.
    pub(crate) fn take_instead(&mut self) -> Option<Self> {
        self.instead.take().map(|feed| *feed)
    }

    /// Returns how far the bytes are at hand.
    pub(crate) fn spool(&self) -> Spool {
        self.spool.borrow().clone()
    }

    /// Waits until more bytes are at hand or no more will come.
    pub(crate) async fn more(&mut self) -> Result<()> {
        self.spool.changed().await.map_err(|_| Error::internal("the producer of a blob ended without a word"))
    }

    /// Waits until the digest is known.
    pub(crate) async fn sealed(&mut self) -> Result<(Digest, u64)> {
        loop {
            if let Some(end) = self.spool.borrow_and_update().end.clone() {
                return end;
            }
            self.more().await?;
        }
    }

    /// Returns the bytes of a range as the body of one request. While a frame is on its way to the socket, the
    /// next one is read and hashed: one and no more, since they are hashed in order.
    pub(crate) fn body(&self, start: u64, end: u64) -> UploadBody {
        let feed = self.clone();
        let read = move |offset: u64| {
            let (feed, size) = (feed.clone(), FRAME.min(end - offset));
            (offset + size, spawn_blocking(move || feed.frame(offset, size)))
        };
        let ahead = (start < end).then(|| read(start));
        let frames = stream::unfold(ahead, move |ahead| {
            let read = read.clone();
            async move {
                let (offset, frame) = ahead?;
                let frame = frame.await.map_err(|error| Error::internal("a reader failed").because(error));
                // After an error the stream ends.
                match frame.and_then(|frame| frame) {
                    Ok(frame) => Some((Ok(frame), (offset < end).then(|| read(offset)))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        UploadBody { size: end - start, frames: Box::pin(frames) }
    }

    /// Makes sure that every byte has been hashed and the digest is right, before an upload is closed whose
    /// bytes another session or process may have sent.
    pub(crate) async fn prove(&self) -> Result<()> {
        let (Some(proof), Backing::File(file)) = (self.proof.clone(), &self.bytes) else { return Ok(()) };
        let file = Arc::clone(file);
        blocking(move || {
            let mut proof = proof.lock();
            let size = proof.expected.size;
            proof.catch_up(opened(&file)?, size)?;
            // An empty blob has no frame that would have been compared.
            proof.take(&[], size)
        })
        .await
    }

    fn frame(&self, offset: u64, size: u64) -> Result<Bytes> {
        let file = match &self.bytes {
            Backing::Memory(bytes) => return Ok(bytes.slice(offset as usize..(offset + size) as usize)),
            Backing::File(file) => file,
        };
        let blob = opened(file)?;
        let mut frame = vec![0; size as usize];
        read(blob, &mut frame, offset)?;
        if let Some(proof) = &self.proof {
            let mut proof = proof.lock();
            if offset == 0 {
                proof.begin();
            }
            proof.catch_up(blob, offset)?;
            proof.take(&frame, offset)?;
        }
        Ok(Bytes::from(frame))
    }
}

impl Proof {
    /// Begins a pass. A blob that is sent from its first byte again is hashed again: it may have changed, or
    /// the registry have found out that it is not what we thought.
    fn begin(&mut self) {
        self.hasher = Hasher::new(self.expected.digest.algorithm());
        self.hashed = 0;
    }

    /// Hashes what lies between the last byte hashed and `offset`: bytes that were acknowledged before.
    fn catch_up(&mut self, blob: &Blob, offset: u64) -> Result<()> {
        let mut frame = vec![0; FRAME as usize];
        while self.hashed < offset {
            let size = FRAME.min(offset - self.hashed);
            let frame = &mut frame[..size as usize];
            read(blob, frame, self.hashed)?;
            self.take(frame, self.hashed)?;
        }
        Ok(())
    }

    /// Hashes a frame, or what of it is new. The whole blob's digest is compared as soon as it is known.
    fn take(&mut self, frame: &[u8], offset: u64) -> Result<()> {
        let known = (self.hashed - offset).min(frame.len() as u64);
        self.hasher.update(&frame[known as usize..]);
        self.hashed += frame.len() as u64 - known;
        if self.hashed < self.expected.size {
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        if found == self.expected.digest {
            Ok(())
        } else {
            Err(blob::mismatch(&self.name, &self.expected, self.hashed, &found))
        }
    }
}

fn complete(digest: Digest, size: u64) -> watch::Receiver<Spool> {
    watch::channel(Spool::complete(digest, size)).1
}

fn opened(file: &OnceLock<Blob>) -> Result<&Blob> {
    file.get().ok_or_else(|| Error::internal("bytes were announced before their file"))
}

fn read(blob: &Blob, frame: &mut [u8], offset: u64) -> Result<()> {
    blob.read_exact_at(frame, offset)
        .context(ErrorKind::Source, || format!("reading `{}` at {offset}", blob.path().display()))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn stored(content: &[u8], digest: Digest) -> (tempfile::TempDir, Feed) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        fs_err::write(&path, content).unwrap();
        let expected = Descriptor::new("x", digest, content.len() as u64);
        let feed = Feed::stored(Blob::open(&path).unwrap(), expected, "blob".to_owned());
        (dir, feed)
    }

    async fn collect(body: UploadBody) -> Result<Vec<u8>> {
        let mut frames = body.frames;
        let mut all = Vec::new();
        while let Some(frame) = frames.next().await {
            all.extend_from_slice(&frame?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn ranges_may_repeat_and_the_digest_is_still_checked() {
        let content: Vec<u8> = (0..700_000_u32).map(|i| i as u8).collect();
        let (_dir, feed) = stored(&content, Digest::of(&content));
        assert_eq!(collect(feed.body(0, 300_000)).await.unwrap(), content[..300_000]);
        assert_eq!(collect(feed.body(100_000, 500_000)).await.unwrap(), content[100_000..500_000]);
        assert_eq!(collect(feed.body(500_000, 700_000)).await.unwrap(), content[500_000..]);
        feed.prove().await.unwrap();
    }

    #[tokio::test]
    async fn the_last_frame_of_wrong_bytes_never_leaves() {
        let content = vec![7; 600_000];
        let (_dir, feed) = stored(&content, Digest::of(b"other"));
        let mut frames = feed.body(0, 600_000).frames;
        let mut sent = 0;
        let error = loop {
            match frames.next().await.unwrap() {
                Ok(frame) => sent += frame.len(),
                Err(error) => break error,
            }
        };
        assert!(sent < 600_000);
        assert!(error.message().contains("digest mismatch"), "{error}");
        assert!(frames.next().await.is_none());
    }

    #[tokio::test]
    async fn an_upload_that_skips_bytes_hashes_them_all_the_same() {
        let content = vec![7; 600_000];
        let (_dir, feed) = stored(&content, Digest::of(b"other"));
        assert!(collect(feed.body(599_999, 600_000)).await.is_err());
        let (_dir, feed) = stored(&content, Digest::of(b"other"));
        assert!(feed.prove().await.is_err());
    }
}
