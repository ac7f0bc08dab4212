//! The producers: encodes plain layers, or passes over encoded ones, and says how far it is.
//!
//! One thread works through the jobs in the order given, all cores on one layer before the next; layers that
//! only have to be passed over are independent and go side by side. What is encoded lands in the cache. A
//! job whose upload is gone stops.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    thread,
};

use super::spool;
use crate::{
    blob::Blob,
    cache::{Cache, Writer},
    codec::{self, Compression, Encoded, Encoding, Spool},
    error::{Context as _, Error, ErrorKind, Result, chain},
    event::{Event, Reporter},
    source::{Data, Layer, Source},
};

/// A layer to be produced.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) layer: Layer,
    pub(crate) work: Work,
    pub(crate) output: spool::Source,
}

/// What has to be done to a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Encode it into the cache.
    Encode(Encoding),
    /// Leave it as it is; find its digest and check its diff ID.
    Prove,
}

/// What the producers need.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) workers: usize,
    pub(crate) reporter: Arc<dyn Reporter>,
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

impl Workshop {
    /// Starts on the jobs. Results go to each job's spool.
    pub(crate) fn start(self, jobs: Vec<Job>) -> Result<Working> {
        if jobs.is_empty() {
            return Ok(Working(None));
        }
        thread::Builder::new()
            .name("transcode".to_owned())
            .spawn(move || self.run(jobs))
            .map(|thread| Working(Some(thread)))
            .context(ErrorKind::Local, || "starting a thread".to_owned())
    }

    fn run(&self, jobs: Vec<Job>) {
        let (encode, prove): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| matches!(job.work, Work::Encode(_)));
        // Passing over is quick and its bytes can be sent at once, so it comes first.
        let queue = Mutex::new(VecDeque::from(prove));
        let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
        thread::scope(|scope| {
            for _ in 0..self.workers {
                scope.spawn(|| {
                    while let Some(job) = next() {
                        finish(&job, self.prove(&job));
                    }
                });
            }
        });
        for job in encode {
            let Work::Encode(encoding) = job.work else { continue };
            self.encode(&job, encoding);
        }
    }

    /// Encodes a layer, tells its digest, and only then keeps it: the closing request does not wait for this
    /// machine's disk.
    fn encode(&self, job: &Job, encoding: Encoding) {
        match self.encode_into_cache(job, encoding) {
            Err(error) => finish(job, Err(error)),
            Ok((encoded, writer)) => {
                finish(job, Ok(encoded.clone()));
                if let Err(error) = writer.commit(&encoded, encoding) {
                    let message = format!("the encoded layer is not kept: {}", chain(&error));
                    self.reporter.event(Event::Warning { message });
                }
            }
        }
    }

    fn encode_into_cache(&self, job: &Job, encoding: Encoding) -> Result<(Encoded, Writer)> {
        let mut plain = plain(self.source.open(&job.layer)?)?;
        let mut writer = self.cache.writer()?;
        let bytes = Blob::from_file(writer.blob_file(), u64::MAX);
        job.output.file.set(bytes).map_err(|_| Error::internal("a layer was produced twice"))?;
        let blob = &job.layer.name;
        let encoded = codec::transcode(&mut plain, encoding, self.workers, &mut writer, &|progress| {
            self.reporter.event(Event::Encoded { blob: blob.clone(), plain: progress.plain });
            announce(job, progress.encoded)
        })?;
        check(&job.layer, &encoded)?;
        Ok((encoded, writer))
    }

    fn prove(&self, job: &Job) -> Result<Encoded> {
        let Data::Stored(blob) = self.source.open(&job.layer)? else {
            return Err(Error::internal("only stored layers go out as they are"));
        };
        job.output.file.set(blob.clone()).map_err(|_| Error::internal("a layer was produced twice"))?;
        let encoded = codec::prove(&blob, &|progress| announce(job, progress.encoded))?;
        check(&job.layer, &encoded)?;
        Ok(encoded)
    }
}

/// Ends a job's spool: with the digest and size of everything, or with why there is nothing.
fn finish(job: &Job, result: Result<Encoded>) {
    let end = result
        .map(|encoded| (encoded.digest, encoded.size))
        .map_err(|error| error.while_doing(format!("layer `{}`", job.layer.name)));
    job.output.spool.send_modify(|spool| {
        if let Ok((_, size)) = end {
            spool.written = size;
        }
        spool.end = Some(end);
    });
}

/// Publishes how far a job is; breaks off when nobody listens any more.
fn announce(job: &Job, written: u64) -> ControlFlow<()> {
    job.output.spool.send_modify(|spool: &mut Spool| spool.written = written);
    if job.output.spool.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

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
    let mut head = [0; 16];
    let head = &mut head[..blob.size().min(16) as usize];
    blob.read_exact_at(head, 0)
        .context(ErrorKind::Source, || format!("reading `{}`", blob.path().display()))?;
    Ok(Compression::detect(head))
}

fn check(layer: &Layer, encoded: &Encoded) -> Result<()> {
    match &layer.diff_id {
        Some(expected) if *expected != encoded.diff_id => Err(Error::source(format!(
            "diff ID mismatch: the image config says {expected}, the layer is {}",
            encoded.diff_id
        ))),
        _ => Ok(()),
    }
}
