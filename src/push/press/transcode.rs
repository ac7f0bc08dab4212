//! The producers: encodes plain layers, or passes over encoded ones, and says how far it is.
//!
//! One thread works through the jobs in the order given, all cores on one layer before the next; layers that
//! only have to be passed over are independent and go side by side. What is encoded lands in the cache. A
//! job whose upload is gone stops.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{Press, Until};
use crate::{
    blob::Blob,
    cache::{Claim, Entry, Writer},
    codec::{self, Compression, Encoded, Encoding},
    error::{Context as _, Error, ErrorKind, Result, chain},
    event::Event,
    oci::{Descriptor, Digest},
    push::feed::{Feed, Producer},
    source::{Data, Layer, Source},
};

/// A layer to be produced.
#[derive(Debug)]
pub(crate) struct Job {
    layer: Layer,
    work: Work,
    output: Producer,
}

/// What has to be done to a layer.
#[derive(Debug)]
enum Work {
    /// Encode it into the cache.
    Encode(Encoding),
    /// Fetch it from the shared cache; where that is not to be had, encode it for those who follow `instead`.
    Fetch { entry: Entry, encoding: Encoding, instead: Producer },
    /// Leave it as it is; find its digest and check its diff ID.
    Prove,
}

impl Job {
    /// Encodes a layer, for the feed.
    pub(in crate::push) fn encode(layer: Layer, encoding: Encoding) -> (Self, Feed) {
        Self::new(layer, Work::Encode(encoding))
    }

    /// Fetches a layer from the shared cache, for the feed, or encodes it for the one behind that.
    pub(in crate::push) fn fetch(layer: Layer, entry: Entry, encoding: Encoding) -> (Self, Feed) {
        let (instead, other) = Feed::growing();
        let (job, feed) = Self::new(layer, Work::Fetch { entry, encoding, instead });
        (job, feed.or(other))
    }

    /// Finds out the digest of a layer that goes as it is, for the feed.
    pub(in crate::push) fn prove(layer: Layer) -> (Self, Feed) {
        Self::new(layer, Work::Prove)
    }

    fn new(layer: Layer, work: Work) -> (Self, Feed) {
        let (output, feed) = Feed::growing();
        (Self { layer, work, output }, feed)
    }
}

/// Beneath the error of a fetch that came to nothing: the layer is encoded instead.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the shared cache does not have it")]
pub(crate) struct NotShared;

/// What came of an attempt to encode a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Somebody else encodes it.
    Busy,
    Done,
}

/// A layer whose bytes and digest are told, and that is not in the cache yet.
#[derive(Debug)]
struct Fresh {
    encoded: Encoded,
    encoding: Encoding,
    writer: Writer,
    /// Nobody else begins with it until it is kept.
    _claim: Claim,
}

/// What the producers need.
#[derive(Debug)]
struct Workshop {
    source: Arc<dyn Source>,
    press: Press,
}

/// Producers at work.
#[derive(Debug)]
#[must_use = "producers left alone would leave temp files behind"]
pub(crate) struct Working(Option<thread::JoinHandle<()>>);

impl Working {
    /// Waits until they have stopped.
    pub(crate) fn join(self) -> Result<()> {
        match self.0.map(thread::JoinHandle::join) {
            Some(Err(_)) => Err(Error::internal("the encoder panicked")),
            _ => Ok(()),
        }
    }
}

/// Starts on jobs about layers of `source`. Results go to each job's feed.
pub(in crate::push) fn start(source: Arc<dyn Source>, press: Press, jobs: Vec<Job>) -> Result<Working> {
    if jobs.is_empty() {
        return Ok(Working(None));
    }
    thread::Builder::new()
        .name("transcode".to_owned())
        .spawn(move || Workshop { source, press }.run(jobs))
        .map(|thread| Working(Some(thread)))
        .context(ErrorKind::Local, || "starting a thread".to_owned())
}

impl Workshop {
    fn run(&self, jobs: Vec<Job>) {
        let (encode, others): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| matches!(job.work, Work::Encode(_)));
        let (prove, fetch): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|job| matches!(job.work, Work::Prove));
        let unfit = Mutex::new(VecDeque::new());
        thread::scope(|scope| {
            // What waits for the network leaves the cores to the others.
            scope.spawn(|| {
                side_by_side(fetch, FETCHES, |job| {
                    if let Some(job) = self.fetch(job) {
                        unfit.lock().push_back(job);
                    }
                });
            });
            // Passing over is quick and its bytes can be sent at once, so it comes first.
            side_by_side(prove, self.press.workers, |job| finish(&job, self.prove(&job)));
            self.encode_all(encode.into());
        });
        self.encode_all(unfit.into_inner());
    }

    /// Encodes layer after layer. One that another process is at just now is put off, and its work is taken.
    /// What is done is kept by a thread of its own: the next layer does not wait for this machine's disk.
    fn encode_all(&self, mut queue: VecDeque<Job>) {
        thread::scope(|scope| {
            let (fresh, done) = mpsc::channel();
            scope.spawn(move || done.into_iter().for_each(|fresh| self.keep(fresh)));
            let mut put_off = 0;
            while let Some(job) = queue.pop_front() {
                match self.encode(&job, &fresh) {
                    Err(error) => finish(&job, Err(error)),
                    Ok(Attempt::Done) => put_off = 0,
                    Ok(Attempt::Busy) if job.output.is_abandoned() => {}
                    Ok(Attempt::Busy) => {
                        queue.push_back(job);
                        put_off += 1;
                        if put_off >= queue.len() {
                            // A lock of another process cannot be waited for and given up at the same time.
                            thread::sleep(CLAIM_PAUSE);
                            put_off = 0;
                        }
                    }
                }
            }
        });
    }

    /// Encodes a layer, tells its digest, and only then lets it be kept, as the closing request need not wait
    /// for that either.
    fn encode(&self, job: &Job, fresh: &mpsc::Sender<Fresh>) -> Result<Attempt> {
        let (&Work::Encode(encoding), Some(diff_id)) = (&job.work, &job.layer.diff_id) else {
            return Err(Error::internal(format!("layer `{}` cannot be encoded", job.layer.name)));
        };
        let cache = &self.press.cache;
        let Some(claim) = cache.claim(diff_id, encoding)? else { return Ok(Attempt::Busy) };
        // Whoever had it before us may have finished it.
        if let Some((entry, blob)) = cache.lookup(diff_id, encoding)? {
            if blob.verify(&Descriptor::new("", entry.digest.clone(), entry.size)).is_ok() {
                job.output.begin(blob)?;
                finish(job, Ok((entry.digest, entry.size)));
                return Ok(Attempt::Done);
            }
            cache.forget(diff_id, encoding)?;
        }
        let (encoded, writer) = self.encode_into_cache(job, encoding)?;
        finish(job, Ok((encoded.digest.clone(), encoded.size)));
        fresh
            .send(Fresh { encoded, encoding, writer, _claim: claim })
            .map_err(|_| Error::internal("keeping encoded layers panicked"))?;
        Ok(Attempt::Done)
    }

    fn keep(&self, Fresh { encoded, encoding, writer, _claim }: Fresh) {
        if let Some(blob) = self.press.keep(writer, &encoded, encoding) {
            self.press.share(&encoded, encoding, blob);
        }
    }

    fn encode_into_cache(&self, job: &Job, encoding: Encoding) -> Result<(Encoded, Writer)> {
        let Job { layer, output, .. } = job;
        let mut plain = plain(self.source.open(layer)?)?;
        let pressed = self.press.encode(&mut plain, &layer.name, encoding, output, Until::Abandoned)?;
        check(layer, &pressed.0)?;
        Ok(pressed)
    }

    /// Fetches a layer and keeps it, as if it had been encoded here; returns what is to be done where that fails.
    fn fetch(&self, Job { layer, work, output }: Job) -> Option<Job> {
        let Work::Fetch { entry, encoding, instead } = work else { return None };
        let shared = self.press.shared.as_ref();
        let cache = &self.press.cache;
        match shared.and_then(|shared| shared.fetch(&layer, &entry, encoding, cache, &output)) {
            Some((encoded, writer)) => {
                output.end(Ok((encoded.digest.clone(), encoded.size)));
                self.press.keep(writer, &encoded, encoding);
                None
            }
            None if output.is_abandoned() => None,
            None => {
                output.end(Err(Error::source(format!("layer `{}`", layer.name)).because(NotShared)));
                Some(Job { layer, work: Work::Encode(encoding), output: instead })
            }
        }
    }

    fn prove(&self, job: &Job) -> Result<(Digest, u64)> {
        let Job { layer, output, .. } = job;
        let Data::Stored(blob) = self.source.open(layer)? else {
            return Err(Error::internal("only stored layers go out as they are"));
        };
        output.begin(blob.clone())?;
        let encoded = codec::prove(&blob, &|progress| {
            let (blob, bytes) = (layer.name.clone(), progress.encoded);
            self.press.reporter.event(Event::Hashed { blob, bytes });
            output.announce(&progress);
            if output.is_abandoned() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        check(layer, &encoded)?;
        if let Err(error) = self.press.cache.remember(&encoded.digest, &encoded.diff_id) {
            tracing::debug!("what a layer decodes to is not remembered: {}", chain(&error));
        }
        Ok((encoded.digest, encoded.size))
    }
}

/// Does the jobs on so many threads.
fn side_by_side(jobs: Vec<Job>, threads: usize, work: impl Fn(Job) + Sync) {
    let threads = threads.min(jobs.len());
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().pop_front();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = next() {
                    work(job);
                }
            });
        }
    });
}

/// Ends a job's spool.
fn finish(job: &Job, result: Result<(Digest, u64)>) {
    job.output.end(result.map_err(|error| error.while_doing(format!("layer `{}`", job.layer.name))));
}

/// Layers fetched at once: each has a thread, a decoder's window and a few frames.
const FETCHES: usize = 4;
/// A layer takes seconds.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// Returns the plain bytes of a layer, whatever it is packed in.
fn plain(data: Data) -> Result<Box<dyn std::io::Read + Send>> {
    match data {
        Data::Absorbed(digest) => Err(Error::internal(format!("absorbed layer {digest} is encoded already"))),
        Data::Stream(stream) => Ok(stream),
        Data::Stored(blob) => match compression(&blob)? {
            Compression::None => Ok(Box::new(blob.reader())),
            packed => packed
                .decoder(Box::new(blob.reader()))
                .context(ErrorKind::Source, || format!("decoding `{}`", blob.path().display())),
        },
    }
}

/// Returns what a stored layer is packed in, by its first bytes.
pub(crate) fn compression(blob: &Blob) -> Result<Compression> {
    blob.head(Compression::MAGIC_LENGTH).map(|head| Compression::detect(&head))
}

fn check(layer: &Layer, encoded: &Encoded) -> Result<()> {
    match &layer.diff_id {
        Some(expected) if *expected != encoded.diff_id => Err(expected.mismatch(&encoded.diff_id)),
        _ => Ok(()),
    }
}
