//! Drives upload sessions: does what the state machine says, one blob at a time, many blobs at once.
//!
//! Large blobs share `--jobs` seats. Small blobs, of at most one chunk, have a pool of their own, because they
//! cost round trips and not bandwidth: its connections are the transport's to count, its bytes are counted in
//! traffic.rs. No decision about the protocol is made here (registry/session makes them all).

mod head_start;
pub(super) mod traffic;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt as _;

use self::{
    head_start::HeadStart,
    traffic::{Seat, Traffic},
};
use super::{
    Options, Told,
    feed::Feed,
    resume::{Opening, Resume, Trail, give_back, key},
    runtime::blocking,
};
use crate::{
    codec::Spool,
    error::{Error, ErrorKind, Result},
    event::{Event, How, Reporter},
    oci::Digest,
    plan::{self, Need},
    registry::{
        Action, Client, Fault, Lesson, Location, Pool, Reply, Request, Session, UploadBody,
        session::{Mount, News, Outcome, Resized, Settings},
    },
};

/// Sends blobs to one repository.
#[derive(Debug)]
pub(crate) struct Uploader {
    client: Client,
    repository: String,
    resume: Resume,
    reporter: Arc<dyn Reporter>,
    traffic: Traffic,
    /// Bytes handed to the network so far, repeats included.
    sent: Arc<AtomicU64>,
    told: Told,
    head_start: HeadStart,
}

impl Uploader {
    /// Prepares uploads to a repository, as far as others leave room.
    pub(crate) fn new(
        client: Client,
        repository: String,
        options: &Options,
        traffic: Traffic,
        reporter: Arc<dyn Reporter>,
    ) -> Self {
        let resume = options.resume.clone();
        Self {
            client,
            repository,
            resume,
            reporter,
            traffic,
            sent: Arc::default(),
            told: options.told.clone(),
            head_start: HeadStart::default(),
        }
    }

    /// Opens the upload of a blob before its turn, once `is_sound` says that nothing speaks against it, unless there
    /// is an earlier one to go on with. What goes wrong before it is known that the blob is missing is nothing: its
    /// turn will come.
    pub(crate) fn open_ahead(
        &self,
        digest: &Digest,
        blob: String,
        is_missing: bool,
        is_sound: impl FnOnce() -> bool + Send + 'static,
    ) {
        let (client, repository, resume) =
            (self.client.clone(), self.repository.clone(), self.resume.clone());
        let request = Request::Open { mount: None, algorithm: digest.algorithm() };
        let opening = Opening::begin(&resume, &client, &repository);
        self.head_start.begin(digest, async move {
            let key = key(&client, &repository, blob);
            blocking(move || Ok(!resume.is_unfinished(&key) && is_sound())).await.ok().filter(|go| *go)?;
            let outcome = if is_missing {
                client.exchange(&repository, &request, None, Pool::Small).await
            } else {
                Ok(client.ask_ahead(&repository, &request).await.filter(|reply| reply.status == 202)?)
            };
            let trail = opening.opened(outcome.as_ref().ok().and_then(|reply| reply.location.as_ref()));
            Some((outcome, trail))
        });
    }

    /// Returns whether the upload of a blob was opened before its turn, or is just being opened.
    pub(crate) fn has_head_start(&self, digest: &Digest) -> bool {
        self.head_start.is_for(digest)
    }

    /// Gives back what was opened before its turn and never used.
    pub(crate) async fn give_back(&self) {
        let Some((outcome, trail)) = self.head_start.take(|_| true).await else { return };
        if let Ok(Reply { location: Some(location), .. }) = outcome {
            self.cancel(&location).await;
        }
        trail.finish();
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
        let one_chunk = settings.chunk_size.unwrap_or(settings.profile.chunk_size).min(settings.chunk());
        let blob = blob.filter(|_| feed.spool().sealed().is_none_or(|(_, size)| *size > one_chunk));
        let (trail, held) =
            Trail::pick_up(&self.resume, &self.client, &self.repository, blob, &mut feed).await?;
        let session = match held {
            Some(held) => Session::resume(settings, held),
            None => Session::new(settings),
        };
        let sending = Sending { uploader: self, name, feed, trail, one_chunk, seat: None, acknowledged: 0 };
        sending.finish(session).await
    }

    /// Tells that the registry has a blob.
    fn confirmed(&self, name: &str, digest: &Digest, how: How, size: u64) {
        let (blob, digest) = (name.to_owned(), digest.to_string());
        self.reporter.event(Event::Confirmed { blob, digest, how, size });
    }

    /// Returns what the blobs so far have taught about the host: in force for all that are on their way.
    pub(crate) fn lesson(&self) -> Lesson {
        self.traffic.lesson(self.client.host())
    }

    /// Brings a blob to the registry whose bytes are not at hand: by mount, or not at all.
    pub(crate) async fn mount_only(&self, need: &Need) -> Result<(Digest, u64)> {
        let mut failure = plan::missing(&[need]);
        let Some((digest, size)) = need.identity.clone() else { return Err(failure) };
        for from in &need.origins {
            match self.mount(&digest, from).await {
                Ok(true) => {
                    self.confirmed(&need.layer.name, &digest, How::Mounted, size);
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

    async fn cancel(&self, location: &Location) {
        give_back(&self.client, &self.repository, location, Pool::Chunked).await;
    }
}

/// One blob on its way.
struct Sending<'a> {
    uploader: &'a Uploader,
    name: &'a str,
    feed: Feed,
    trail: Trail,
    /// What has no more bytes than this is small.
    one_chunk: u64,
    seat: Option<Seat>,
    acknowledged: u64,
}

impl Sending<'_> {
    /// Does what the session says, to the end. A seat is waited for when the first request is due.
    async fn finish(mut self, mut session: Session) -> Result<(Digest, u64)> {
        loop {
            let spool = self.feed.spool();
            session = match session.next(&spool) {
                Action::Done(outcome) => return self.arrived(outcome).await,
                Action::Fail(error) => return Err(self.failed(&session, error).await),
                Action::More => {
                    self.feed.more().await?;
                    continue;
                }
                Action::Wait { pause, why } => {
                    let blob = self.name.to_owned();
                    self.uploader.reporter.event(Event::Waiting { blob, pause, why });
                    tokio::time::sleep(pause).await;
                    session.on_waited()
                }
                Action::Authenticate => {
                    self.uploader.client.reauthenticate(&self.uploader.repository).await;
                    session.on_waited()
                }
                Action::Send(request) => {
                    let pool = self.seat(&spool).await?;
                    let outcome = self.exchange(&request, pool).await;
                    session.hear(self.uploader.lesson());
                    match outcome {
                        Ok(reply) => session.on_reply(reply),
                        Err(fault) => session.on_fault(fault),
                    }
                }
            };
            self.note(&mut session, &spool).await;
        }
    }

    async fn seat(&mut self, spool: &Spool) -> Result<Pool> {
        if let Some(seat) = &self.seat {
            return Ok(seat.pool);
        }
        let small = spool.sealed().map(|(_, size)| *size).filter(|size| *size <= self.one_chunk);
        let seat = self.uploader.traffic.seat(small).await?;
        Ok(self.seat.insert(seat).pool)
    }

    async fn exchange(&self, request: &Request, pool: Pool) -> Result<Reply, Fault> {
        let Uploader { client, repository, head_start, .. } = self.uploader;
        if let (Request::Open { mount: None, .. }, Some((digest, _))) = (request, self.feed.spool().sealed())
            && let Some((outcome, trail)) = head_start.take(|opened| opened == digest).await
        {
            // Whoever sends the blob has one of its own.
            trail.finish();
            return outcome;
        }
        let body = match request {
            Request::Patch { range, .. } => Some(self.feed.body(range.start, range.end)),
            Request::Commit { body: Some(size), .. } if *size > 0 => Some(self.feed.body(0, *size)),
            Request::Commit { .. } => {
                self.feed.prove().await.map_err(Fault::Fatal)?;
                None
            }
            _ => None,
        };
        let body = body.map(|body| self.counted(body));
        client.exchange(repository, request, body, pool).await
    }

    /// Tells of every frame that leaves.
    fn counted(&self, body: UploadBody) -> UploadBody {
        let (sent, reporter) = (Arc::clone(&self.uploader.sent), Arc::clone(&self.uploader.reporter));
        let blob = self.name.to_owned();
        let frames = body.frames.inspect_ok(move |frame| {
            let size = frame.len() as u64;
            let bytes = sent.fetch_add(size, Ordering::Relaxed) + size;
            reporter.event(Event::Sent { blob: blob.clone(), bytes });
        });
        UploadBody { size: body.size, frames: Box::pin(frames) }
    }

    /// Passes on what the session knows by now: to other uploads, to the user, to a later process.
    async fn note(&mut self, session: &mut Session, spool: &Spool) {
        let Uploader { client, reporter, traffic, .. } = self.uploader;
        traffic.learn(client.host(), session.lesson());
        let News { given_up, shrunk, warnings } = session.take_news();
        for message in warnings {
            reporter.event(Event::Warning { message });
        }
        self.tell_of_chunks(session, shrunk);
        if let Some(location) = given_up {
            self.trail.give_up(&location).await;
        }
        self.trail.follow(session.location());
        if session.acknowledged() != self.acknowledged {
            self.acknowledged = session.acknowledged();
            self.trail.note(session.held(), spool);
            let (blob, offset) = (self.name.to_owned(), self.acknowledged);
            let size = spool.sealed().map(|(_, size)| *size);
            reporter.event(Event::Acknowledged { blob, offset, size });
        }
    }

    /// Says that chunks have shrunk, and that they are not as large as was asked for.
    fn tell_of_chunks(&self, session: &Session, shrunk: Option<String>) {
        let Uploader { client, repository, reporter, told, .. } = self.uploader;
        let host = client.host();
        let tell = |message| told.once(host, session.most(), || reporter.event(Event::Warning { message }));
        if let Some(message) = shrunk {
            tell(message);
        }
        if let Some(Resized { message, may_be_tried }) = session.resized() {
            let again = format!("; `longshore doctor {host}/{repository}` tries larger ones again");
            let again = if may_be_tried { &again } else { "" };
            tell(format!("`{host}` gets {message}{again}"));
        }
    }

    async fn arrived(mut self, outcome: Outcome) -> Result<(Digest, u64)> {
        self.trail.finish();
        let (digest, size) = self.feed.sealed().await?;
        let how = match outcome {
            Outcome::Mounted => How::Mounted,
            Outcome::Present => How::Present,
            Outcome::Uploaded => How::Uploaded,
        };
        self.uploader.confirmed(self.name, &digest, how, size);
        Ok((digest, size))
    }

    /// Leaves nothing behind that nobody will go on with.
    async fn failed(self, session: &Session, error: Error) -> Error {
        let Uploader { client, repository, .. } = self.uploader;
        // The registry is well: it need not keep what will never be finished.
        if matches!(error.kind(), ErrorKind::Local | ErrorKind::Source) {
            if let Some(location) = session.location() {
                self.uploader.cancel(location).await;
            }
            self.trail.finish();
        } else if let Some(location) = session.location() {
            self.trail.give_up(location).await;
        }
        client.explain(repository, error).while_doing(format!("uploading `{}`", self.name))
    }
}
