//! The shared cache: a bucket beside the local cache, for machines that come and go.
//!
//! It has the local cache's shape, and is asked after the local cache and the destination. Nothing it says is
//! believed: a blob is downloaded into the local cache and decoded there while an upload follows, and unless its
//! digest is the entry's and its diff ID the layer's, its end is never announced, so that no upload of it is closed,
//! no manifest names it and no entry is made. What is encoded here is put there, blob first. Trouble with the bucket
//! costs one warning, and the push goes on without it; a layer that is not what its entry says is encoded, and
//! replaces it.

use std::{
    collections::HashSet,
    future::Future,
    io::{self, Read, Write as _},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    blob::Blob,
    bucket::Bucket,
    cache::{Cache, Entry, Writer, entry_name, sealed},
    codec::{Encoded, Encoding, Stopped, prove::prove_stream},
    error::{Error, ErrorKind, Result, chain},
    event::{Event, Reporter},
    layout::write::blob_name,
    oci::DiffId,
    plan::{AtHand, Need},
    push::feed::Producer,
    source::Layer,
};

/// So many questions are asked at once.
const AT_ONCE: usize = 24;
/// An entry is three short fields.
const ENTRY_LIMIT: u64 = 4 << 10;
/// Frames of a download that may wait for the decoder.
const FRAMES: usize = 4;
/// Blobs on their way to the bucket at once, each with one part in memory.
const GIVING: usize = 2;

/// The shared cache during one push.
#[derive(Clone, Debug)]
pub(in crate::push) struct SharedCache {
    state: Arc<State>,
    outbox: mpsc::UnboundedSender<Parcel>,
    runtime: Handle,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    reporter: Arc<dyn Reporter>,
    /// Whether nothing is asked of the bucket any more.
    left_alone: AtomicBool,
    /// Whether nothing is put there any more.
    given_up: AtomicBool,
    /// Layers whose entry or blob is not what it should be.
    unfit: Mutex<HashSet<(DiffId, Encoding)>>,
}

/// A layer that was encoded here.
#[derive(Debug)]
struct Parcel {
    layer: DiffId,
    encoding: Encoding,
    entry: Entry,
    blob: Blob,
}

impl SharedCache {
    /// Begins to use a bucket. The future puts there what is encoded; it ends when all clones are gone and all is put.
    pub(super) fn begin(bucket: Bucket, reporter: Arc<dyn Reporter>) -> (Self, impl Future<Output = ()>) {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            bucket,
            reporter,
            left_alone: AtomicBool::default(),
            given_up: AtomicBool::default(),
            unfit: Mutex::default(),
        });
        let giver = Arc::clone(&state);
        let giving = async move {
            let parcels = stream::unfold(inbox, |mut inbox: mpsc::UnboundedReceiver<_>| async move {
                inbox.recv().await.map(|parcel| (parcel, inbox))
            });
            let give = |parcel| {
                let giver = Arc::clone(&giver);
                async move { giver.give(parcel).await }
            };
            parcels.for_each_concurrent(GIVING, give).await;
        };
        (Self { state, outbox, runtime: Handle::current() }, giving)
    }

    /// Asks for the layers that would have to be encoded, and notes which are there.
    pub(in crate::push) async fn ask(&self, needs: &mut [Need], encoding: Encoding) {
        let state = &self.state;
        if state.is_left_alone() {
            return;
        }
        let plain = needs.iter().enumerate().filter(|(_, need)| need.at_hand == AtHand::Plain);
        let sought: Vec<_> = plain.map(|(at, need)| (at, need.layer.clone())).collect();
        let asking = stream::iter(sought)
            .map(|(at, layer)| async move {
                let entry = state.entry(&layer, encoding).await?;
                Ok::<_, Error>(entry.map(|entry| (at, entry)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect::<Vec<_>>();
        match state.bucket.in_time(asking).await {
            Ok(found) => {
                for (at, entry) in found {
                    (needs[at].weight, needs[at].at_hand) = (entry.size, AtHand::Shared(entry));
                }
            }
            Err(error) => state.leave_alone(&error),
        }
    }

    /// Downloads a layer into `cache` and proves that it is what its entry says, on this thread. The followers of
    /// `output` see the bytes as they are written, and not yet the end. Where it cannot be had, why has been told.
    pub(super) fn fetch(
        &self,
        layer: &Layer,
        entry: &Entry,
        encoding: Encoding,
        cache: &Cache,
        output: &Producer,
    ) -> Option<(Encoded, Writer)> {
        if self.state.is_left_alone() {
            return None;
        }
        match self.download(layer, entry, encoding, cache, output) {
            Ok(fetched) => return Some(fetched),
            Err(_) if output.is_abandoned() => {}
            Err(error) if error.kind() == ErrorKind::Network => {
                self.state.leave_alone(&error.while_doing(format!("fetching layer `{}`", layer.name)));
            }
            Err(error) => self.state.distrust(layer, encoding, &chain(&error)),
        }
        None
    }

    fn download(
        &self,
        layer: &Layer,
        entry: &Entry,
        encoding: Encoding,
        cache: &Cache,
        output: &Producer,
    ) -> Result<(Encoded, Writer)> {
        let writer = cache.writer()?;
        output.begin(Blob::from_file(writer.blob_file(), u64::MAX))?;
        let writer = Arc::new(Mutex::new(writer));
        let (sender, frames) = mpsc::channel(FRAMES);
        let (state, key, size) = (Arc::clone(&self.state), blob_name(&entry.digest), entry.size);
        self.runtime.spawn(async move { state.bucket.download(&key, size, sender).await });
        let arriving = Arriving { frames, frame: Bytes::new(), left: size, writer: Arc::clone(&writer) };
        let proven = prove_stream(Box::new(arriving), &|progress| {
            output.announce(&progress);
            // What a few bytes expand to is bounded too.
            if output.is_abandoned() || progress.plain > entry.plain_size {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let (packed, found) = match proven {
            Err(error) if error.find::<Stopped>().is_some() => {
                return Err(Error::source("its blob decodes to more than its entry says"));
            }
            proven => proven?,
        };
        if packed != encoding.into() {
            return Err(Error::source(format!("its blob is {}, not {encoding}", packed.name())));
        }
        if Some(&found.diff_id) != layer.diff_id.as_ref() {
            return Err(Error::source(format!("its blob is another layer, {}", found.diff_id)));
        }
        if (&found.digest, found.size, found.plain_size) != (&entry.digest, entry.size, entry.plain_size) {
            return Err(Error::source(format!("its blob is not {} but {}", entry.digest, found.digest)));
        }
        let writer =
            Arc::into_inner(writer).ok_or_else(|| Error::internal("somebody still writes a layer"))?;
        Ok((found, writer.into_inner()))
    }

    /// Puts a layer there that was encoded here, some time before the push ends.
    pub(super) fn give(&self, encoded: &Encoded, encoding: Encoding, blob: Blob) {
        let Encoded { diff_id: layer, digest, size, plain_size } = encoded.clone();
        let entry = Entry { digest, size, plain_size };
        if self.outbox.send(Parcel { layer, encoding, entry, blob }).is_err() {
            tracing::debug!("a layer was encoded after the end of its push");
        }
    }
}

impl State {
    fn is_left_alone(&self) -> bool {
        self.left_alone.load(Ordering::Relaxed)
    }

    /// Reads the entry of a layer.
    async fn entry(&self, layer: &Layer, encoding: Encoding) -> Result<Option<Entry>> {
        let Some(diff_id) = &layer.diff_id else { return Ok(None) };
        if self.unfit.lock().contains(&(diff_id.clone(), encoding)) {
            return Ok(None);
        }
        let bytes = self.bucket.read(&entry_name(diff_id, encoding), ENTRY_LIMIT).await?;
        let entry = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        Ok(entry.unwrap_or_else(|_| {
            self.distrust(layer, encoding, "its entry makes no sense");
            None
        }))
    }

    async fn give(&self, parcel: Parcel) {
        // A bucket that does not answer takes nothing either.
        if self.is_left_alone() || self.given_up.load(Ordering::Relaxed) {
            return;
        }
        let name = self.bucket.name();
        if let Err(error) = self.put(parcel).await
            && !self.given_up.swap(true, Ordering::Relaxed)
        {
            self.warn(format!("nothing more is put into the shared cache `{name}`: {}", chain(&error)));
        }
    }

    /// Writes a blob and then its entry, unless they are there.
    async fn put(&self, Parcel { layer, encoding, entry, blob }: Parcel) -> Result<()> {
        let key = entry_name(&layer, encoding);
        let there = self.bucket.read(&key, ENTRY_LIMIT).await?;
        let same = there
            .is_some_and(|there| serde_json::from_slice(&there).is_ok_and(|there: Entry| there == entry));
        if same && !self.unfit.lock().contains(&(layer.clone(), encoding)) {
            return Ok(());
        }
        self.bucket.put_blob(&blob_name(&entry.digest), &blob).await?;
        self.bucket.put(&key, sealed(&key, &entry)?.into()).await?;
        tracing::info!("put layer {layer} into the shared cache");
        Ok(())
    }

    /// Uses the bucket no more.
    fn leave_alone(&self, error: &Error) {
        if !self.left_alone.swap(true, Ordering::Relaxed) {
            let name = self.bucket.name();
            self.warn(format!("the shared cache `{name}` is left alone: {}", chain(error)));
        }
    }

    /// Uses the bucket no more for this layer; what is there of it is replaced.
    fn distrust(&self, layer: &Layer, encoding: Encoding, why: &str) {
        self.unfit.lock().extend(layer.diff_id.clone().map(|diff_id| (diff_id, encoding)));
        let name = self.bucket.name();
        self.warn(format!("layer `{}` in the shared cache `{name}` is not used: {why}", layer.name));
    }

    fn warn(&self, message: String) {
        self.reporter.event(Event::Warning { message });
    }
}

/// A download, as the decoder reads it: what arrives is written before it is read.
struct Arriving {
    frames: mpsc::Receiver<Result<Bytes>>,
    frame: Bytes,
    left: u64,
    writer: Arc<Mutex<Writer>>,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame.is_empty() {
            let Some(frame) = self.frames.blocking_recv() else { return Ok(0) };
            let frame = frame.map_err(io::Error::other)?;
            let longer = || io::Error::other(Error::source("its blob is longer than its entry says"));
            self.left = self.left.checked_sub(frame.len() as u64).ok_or_else(longer)?;
            self.writer.lock().write_all(&frame)?;
            self.frame = frame;
        }
        let read = buffer.len().min(self.frame.len());
        self.frame.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
