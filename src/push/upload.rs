//! Drives upload sessions: does what the state machine says, one blob at a time, many blobs at once.
//!
//! Large blobs share `--jobs` places. Small blobs, of at most one chunk, have a pool of their own, because they
//! cost round trips and not bandwidth: its connections are the transport's to count, its bytes are counted here. No
//! decision about the protocol is made here (registry/session.rs makes them all).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Options,
    resume::{Resume, Trail},
    spool::Feed,
};
use crate::{
    error::{Error, ErrorKind, Result},
    event::{Event, How, Reporter},
    oci::Digest,
    plan::{self, Need},
    registry::{
        Action, Client, Fault, Lesson, Location, Pool, Reply, Request, Session, UploadBody,
        session::{Mount, Outcome, Settings},
    },
};

/// Bytes of small blobs in flight at once, in KiB: a semaphore counts in `u32`. What is larger is no small blob, even
/// where chunks are.
const SMALL_KIB: u32 = 16 << 10;

/// Sends blobs to one repository.
#[derive(Debug)]
pub(crate) struct Uploader {
    client: Client,
    repository: String,
    resume: Resume,
    reporter: Arc<dyn Reporter>,
    places: Places,
    /// Bytes handed to the network so far, repeats included.
    sent: Arc<AtomicU64>,
    /// What the blobs so far have taught about the host: in force for all that come after.
    lesson: Mutex<Lesson>,
}

/// Who may send at the same time.
#[derive(Debug)]
struct Places {
    chunked: Arc<Semaphore>,
    small_kib: Arc<Semaphore>,
}

/// A place taken; given back when dropped.
#[derive(Debug)]
struct Place {
    pool: Pool,
    _permits: OwnedSemaphorePermit,
}

impl Uploader {
    /// Prepares uploads to a repository, `--jobs` large blobs at a time.
    pub(crate) fn new(
        client: Client,
        repository: String,
        options: &Options,
        reporter: Arc<dyn Reporter>,
    ) -> Self {
        let (jobs, resume) = (options.jobs, options.resume.clone());
        let places = Places {
            chunked: Arc::new(Semaphore::new(jobs.max(1))),
            small_kib: Arc::new(Semaphore::new(SMALL_KIB as usize)),
        };
        Self { client, repository, resume, reporter, places, sent: Arc::default(), lesson: Mutex::default() }
    }

    /// Sends one blob; returns when the registry has confirmed it. `name` is what the user knows it by, `blob` what
    /// a later process may know it by.
    pub(crate) async fn upload(
        &self,
        mut feed: Feed,
        mut settings: Settings,
        name: &str,
        blob: Option<String>,
    ) -> Result<(Digest, u64)> {
        settings.lesson = settings.lesson.and(self.lesson());
        let one_chunk = settings.chunk_size.unwrap_or(settings.profile.chunk_size);
        let blob = blob.filter(|_| feed.spool().sealed().is_none_or(|(_, size)| *size > one_chunk));
        let (mut trail, held) =
            Trail::pick_up(&self.resume, &self.client, &self.repository, blob, &mut feed).await?;
        let mut session = match held {
            Some(held) => Session::resume(settings, held),
            None => Session::new(settings),
        };
        let mut place = None;
        let mut acknowledged = 0;
        let outcome = loop {
            let spool = feed.spool();
            session = match session.next(&spool) {
                Action::Done(outcome) => break outcome,
                Action::Fail(error) => {
                    // The registry is well: it need not keep what will never be finished.
                    if matches!(error.kind(), ErrorKind::Local | ErrorKind::Source) {
                        self.abandon(&session).await;
                        trail.finish();
                    }
                    let error = self.client.explain(&self.repository, error);
                    return Err(error.while_doing(format!("uploading `{name}`")));
                }
                Action::More => {
                    feed.more().await?;
                    continue;
                }
                Action::Wait { pause, why } => {
                    self.reporter.event(Event::Waiting { blob: name.to_owned(), pause, why });
                    tokio::time::sleep(pause).await;
                    session.on_waited()
                }
                Action::Authenticate => {
                    self.client.reauthenticate(&self.repository).await;
                    session.on_waited()
                }
                Action::Send(request) => {
                    if place.is_none() {
                        let size = spool.sealed().map(|(_, size)| *size);
                        place = Some(self.places.take(size.filter(|size| *size <= one_chunk)).await?);
                    }
                    let pool = place.as_ref().map_or(Pool::Chunked, |place| place.pool);
                    match self.exchange(name, &feed, &request, pool).await {
                        Ok(reply) => session.on_reply(reply),
                        Err(fault) => session.on_fault(fault),
                    }
                }
            };
            self.learn(session.lesson());
            for message in session.take_warnings() {
                self.reporter.event(Event::Warning { message });
            }
            trail.follow(session.location());
            if session.acknowledged() != acknowledged {
                acknowledged = session.acknowledged();
                trail.note(session.held(), &spool);
                let size = spool.sealed().map(|(_, size)| *size);
                self.reporter.event(Event::Acknowledged {
                    blob: name.to_owned(),
                    offset: acknowledged,
                    size,
                });
            }
        };
        trail.finish();
        let (digest, size) = feed.sealed().await?;
        let how = match outcome {
            Outcome::Mounted => How::Mounted,
            Outcome::Present => How::Present,
            Outcome::Uploaded => How::Uploaded,
        };
        let (blob, named) = (name.to_owned(), digest.to_string());
        self.reporter.event(Event::Confirmed { blob, digest: named, how, size });
        Ok((digest, size))
    }

    /// Returns what the blobs so far have taught about the host.
    pub(crate) fn lesson(&self) -> Lesson {
        *self.lesson.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, newer: Lesson) {
        let mut lesson = self.lesson.lock().unwrap_or_else(PoisonError::into_inner);
        *lesson = lesson.and(newer);
    }

    /// Brings a blob to the registry whose bytes are not at hand: by mount, or not at all.
    pub(crate) async fn mount_only(&self, need: &Need) -> Result<(Digest, u64)> {
        let mut failure = plan::missing(need);
        let Some((digest, size)) = need.identity.clone() else { return Err(failure) };
        for from in &need.origins {
            match self.mount(&digest, from).await {
                Ok(true) => {
                    let (blob, named) = (need.layer.name.clone(), digest.to_string());
                    self.reporter.event(Event::Confirmed { blob, digest: named, how: How::Mounted, size });
                    return Ok((digest, size));
                }
                Ok(false) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Asks for a mount, and returns whether it was granted. The session that a registry opens instead is given
    /// back.
    pub(crate) async fn mount(&self, digest: &Digest, from: &str) -> Result<bool> {
        let mount = Some(Mount { digest: digest.clone(), from: from.to_owned() });
        let request = Request::Open { mount, algorithm: digest.algorithm() };
        match self.client.exchange(&self.repository, &request, None, Pool::Small).await {
            Ok(Reply { status: 201, .. }) => return Ok(true),
            Ok(Reply { location: Some(location), .. }) => self.cancel(&location).await,
            Err(Fault::Fatal(error)) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(false)
    }

    async fn exchange(&self, name: &str, feed: &Feed, request: &Request, pool: Pool) -> Result<Reply, Fault> {
        let body: Option<UploadBody> = match request {
            Request::Patch { range, .. } => Some(feed.body(range.start, range.end)),
            Request::Commit { body: Some(size), .. } if *size > 0 => Some(feed.body(0, *size)),
            Request::Commit { .. } => {
                feed.prove().await.map_err(Fault::Fatal)?;
                None
            }
            _ => None,
        };
        let body = body.map(|body| self.counted(name, body));
        self.client.exchange(&self.repository, request, body, pool).await
    }

    /// Tells of every frame that leaves.
    fn counted(&self, name: &str, body: UploadBody) -> UploadBody {
        let (name, sent, reporter) = (name.to_owned(), Arc::clone(&self.sent), Arc::clone(&self.reporter));
        let frames = body.frames.inspect_ok(move |frame| {
            let size = frame.len() as u64;
            let bytes = sent.fetch_add(size, Ordering::Relaxed) + size;
            reporter.event(Event::Sent { blob: name.clone(), bytes });
        });
        UploadBody { size: body.size, frames: Box::pin(frames) }
    }

    async fn abandon(&self, session: &Session) {
        if let Some(location) = session.location() {
            self.cancel(location).await;
        }
    }

    /// Gives a session back that will not be finished. Registries may refuse it: that harms nobody.
    async fn cancel(&self, location: &Location) {
        let request = Request::Cancel { location: location.clone() };
        if let Err(fault) = self.client.exchange(&self.repository, &request, None, Pool::Chunked).await {
            tracing::debug!(?fault, "the session could not be cancelled");
        }
    }
}

impl Places {
    /// Waits for a place for a blob whose size is known if it is at most one chunk.
    async fn take(&self, one_chunk: Option<u64>) -> Result<Place> {
        let small = one_chunk.and_then(|size| u32::try_from(size.div_ceil(1024)).ok());
        let (pool, permits) = match small.filter(|kib| *kib <= SMALL_KIB) {
            Some(kib) => (Pool::Small, Arc::clone(&self.small_kib).acquire_many_owned(kib.max(1)).await),
            None => (Pool::Chunked, Arc::clone(&self.chunked).acquire_owned().await),
        };
        let permits = permits.map_err(|_| Error::internal("a pool of connections was closed"))?;
        Ok(Place { pool, _permits: permits })
    }
}
