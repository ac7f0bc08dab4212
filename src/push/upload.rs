//! Drives upload sessions: does what the state machine says, one blob at a time, many blobs at once.
//!
//! Large blobs share `--jobs` places. Small blobs, of at most one chunk, have a pool of their own, because they
//! cost round trips and not bandwidth: its connections are the transport's to count, its bytes are counted in
//! traffic.rs. No decision about the protocol is made here (registry/session makes them all).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt as _;

use super::{
    Options, Told,
    feed::Feed,
    head_start::HeadStart,
    resume::{Opening, Resume, Trail, give_back, key},
    runtime::blocking,
    traffic::Traffic,
};
use crate::{
    error::{ErrorKind, Result},
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
            let size = spool.sealed().map(|(_, size)| *size);
            session = match session.next(&spool) {
                Action::Done(outcome) => break outcome,
                Action::Fail(error) => {
                    // The registry is well: it need not keep what will never be finished.
                    if matches!(error.kind(), ErrorKind::Local | ErrorKind::Source) {
                        self.abandon(&session).await;
                        trail.finish();
                    } else if let Some(location) = session.location() {
                        trail.give_up(location).await;
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
                        place = Some(self.traffic.place(size.filter(|size| *size <= one_chunk)).await?);
                    }
                    let pool = place.as_ref().map_or(Pool::Chunked, |place| place.pool);
                    let outcome = self.exchange(name, &feed, &request, pool).await;
                    session.hear(self.lesson());
                    match outcome {
                        Ok(reply) => session.on_reply(reply),
                        Err(fault) => session.on_fault(fault),
                    }
                }
            };
            self.traffic.learn(self.client.host(), session.lesson());
            let News { given_up, shrunk, warnings } = session.take_news();
            self.tell(&session, shrunk, warnings);
            if let Some(location) = given_up {
                trail.give_up(&location).await;
            }
            trail.follow(session.location());
            if session.acknowledged() != acknowledged {
                acknowledged = session.acknowledged();
                trail.note(session.held(), &spool);
                let (blob, offset) = (name.to_owned(), acknowledged);
                self.reporter.event(Event::Acknowledged { blob, offset, size });
            }
        };
        trail.finish();
        let (digest, size) = feed.sealed().await?;
        let how = match outcome {
            Outcome::Mounted => How::Mounted,
            Outcome::Present => How::Present,
            Outcome::Uploaded => How::Uploaded,
        };
        self.confirmed(name, &digest, how, size);
        Ok((digest, size))
    }

    /// Tells that the registry has a blob.
    fn confirmed(&self, name: &str, digest: &Digest, how: How, size: u64) {
        let (blob, digest) = (name.to_owned(), digest.to_string());
        self.reporter.event(Event::Confirmed { blob, digest, how, size });
    }

    /// Says what the user should know of a session by now; also that chunks are not as large as was asked for.
    fn tell(&self, session: &Session, shrunk: Option<String>, warnings: Vec<String>) {
        for message in warnings {
            self.reporter.event(Event::Warning { message });
        }
        if let Some(message) = shrunk {
            self.tell_once(session.most(), message);
        }
        if let Some(Resized { message, may_be_tried }) = session.resized() {
            let host = self.client.host();
            let again = format!("; `longshore doctor {host}/{}` tries larger ones again", self.repository);
            let again = if may_be_tried { &again } else { "" };
            self.tell_once(session.most(), format!("`{host}` gets {message}{again}"));
        }
    }

    /// Says something about chunks of at most this size, unless it is no news.
    fn tell_once(&self, most: u64, message: String) {
        self.told.once(self.client.host(), most, || self.reporter.event(Event::Warning { message }));
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

    async fn exchange(&self, name: &str, feed: &Feed, request: &Request, pool: Pool) -> Result<Reply, Fault> {
        if let (Request::Open { mount: None, .. }, Some((digest, _))) = (request, feed.spool().sealed())
            && let Some((outcome, trail)) = self.head_start.take(|opened| opened == digest).await
        {
            // Whoever sends the blob has one of its own.
            trail.finish();
            return outcome;
        }
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

    async fn cancel(&self, location: &Location) {
        give_back(&self.client, &self.repository, location, Pool::Chunked).await;
    }
}
