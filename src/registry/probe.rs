//! What a registry does, found out by trying it, before anything is pushed.
//!
//! A [`Probe`] opens an upload in a repository, sends zeros in chunks that double, and
//! gives the upload back: neither a blob nor a tag comes of it. What it finds is a [`Verdict`] each, and the
//! [`Lesson`] that the next push begins with.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;

pub use super::client::Contact;
use super::{
    Lesson, Location, RegistryError,
    body::UploadBody,
    client::{Client, MANIFEST_LIMIT},
    retry::is_transient,
    session::{Fault, Limits, Mount, Reply, Request, Settings, Stored, is_lost_behind},
    transport::Pool,
};
use crate::{
    error::{Error, ErrorKind, Result, chain, counted},
    oci::{Algorithm, Digest, reference::check_tag},
};

const MIB: u64 = 1 << 20;

/// 128 MiB in all. The second shows whether there may be several, the third whether they may differ.
const CHUNKS: [u64; 8] = [MIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB];

/// After a chunk that took so long no larger one is sent: a push would not send it either.
const SLOW: Duration = Duration::from_secs(15);

/// Zeros are sent by so many.
const FRAME: u64 = 64 << 10;

/// What came of trying something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does not work, and this is how it showed.
    No(String),
    /// It was not tried, or nothing can be said.
    Unknown(String),
    /// It works.
    Yes,
}

/// What an upload in a repository has shown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trial {
    /// A blob may come in several chunks.
    pub chunks: Verdict,
    /// They may have different sizes.
    pub unequal: Verdict,
    /// The least and the most that a chunk may have, as the registry advertises it.
    pub advertised: (Option<u64>, Option<u64>),
    /// The largest chunk that was taken.
    pub largest: u64,
    /// The size of the chunk that was not taken, and what was said.
    pub stopped: Option<(u64, String)>,
    /// The `Range` of an answer to a chunk is true.
    pub range: Verdict,
    /// An upload can be asked how far it is.
    pub status: Verdict,
    /// A blob of another repository can be mounted; tried with one of the same.
    pub mount: Verdict,
    /// The registry keeps the list of what refers to an image.
    pub referrers: Verdict,
    /// A manifest can be given several tags by one request (`OCI-Tag`).
    pub many_tags: Verdict,
    /// The uploads that were opened are gone.
    pub cleaned_up: Verdict,
    /// How much a push would send at once.
    pub chunk: u64,
    /// Whether all its chunks would have that size.
    pub equal_parts: bool,
    /// What was learned, with what was known before.
    pub lesson: Lesson,
}

/// Tries things in a repository.
#[derive(Debug)]
pub struct Probe {
    client: Client,
    repository: String,
    /// The upload that has to be given back.
    open: Mutex<Option<Location>>,
}

/// What the chunks have shown so far.
struct Chunks {
    count: usize,
    total: u64,
    largest: u64,
    range: Verdict,
    status: Verdict,
    end: Option<End>,
}

/// Why no larger chunk was sent.
struct End {
    size: u64,
    words: String,
    cause: Cause,
}

/// What a chunk was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Whatever it was, it may be otherwise the next time.
    Chance,
    /// Being a further one, or of another size than those before.
    Shape,
    Size,
}

impl Probe {
    /// Prepares to try a repository.
    pub fn new(client: Client, repository: &str) -> Self {
        Self { client, repository: repository.to_owned(), open: Mutex::default() }
    }

    /// Tries what a push that begins with these settings would do. An error means that it would not be let do it.
    pub async fn run(&self, settings: &Settings) -> Result<Trial> {
        let mut settings = settings.clone();
        let before = settings.lesson;
        // Proxies are mended: what they once refused is tried again.
        if !Limits::new(&settings).equal_parts() {
            (settings.lesson.body_limit, settings.lesson.seeming_limit) = (None, None);
        }
        let mut limits = Limits::new(&settings);
        let tried = self.upload(&mut limits).await;
        let given_back = self.give_back().await;
        let tried = match (tried, &given_back) {
            (Err(error), Verdict::No(why)) => {
                return Err(error.with_hint(format!("the upload was not given back: {why}")));
            }
            (tried, _) => tried?,
        };
        limits.recall(before)?;
        let image = self.image().await;
        let (mount, mount_given_back) = self.mount(&image).await;
        let subject = image.ok().flatten().map_or_else(|| Digest::of(b""), |(manifest, _)| manifest);
        Ok(Trial {
            chunks: tried.several(),
            unequal: tried.unequal(&limits),
            advertised: limits.advertised(),
            largest: tried.largest,
            range: tried.range,
            status: tried.status,
            stopped: tried.end.map(|end| (end.size, end.words)),
            mount,
            referrers: self.referrers(&subject).await,
            many_tags: Verdict::Unknown("shows only when a tag is written".to_owned()),
            cleaned_up: if given_back == Verdict::Yes { mount_given_back } else { given_back },
            chunk: limits.choose(None),
            equal_parts: limits.equal_parts(),
            lesson: limits.lesson(),
        })
    }

    /// Gives the upload back that is open, if one is.
    pub async fn give_back(&self) -> Verdict {
        let open = self.open.lock().take();
        let Some(location) = open else { return Verdict::Yes };
        match self.exchange(&Request::Cancel { location }, None).await {
            Ok(reply) if reply.error.is_none() => Verdict::Yes,
            Ok(reply) => Verdict::No(said(&reply)),
            Err(fault) => Verdict::No(broke(&fault)),
        }
    }

    async fn upload(&self, limits: &mut Limits) -> Result<Chunks> {
        let open = Request::Open { mount: None, algorithm: Algorithm::Sha256 };
        let reply = self.exchange(&open, None).await.map_err(|fault| fault.failure(open.doing()))?;
        if reply.error.is_some() {
            return Err(self.client.explain(&self.repository, reply.refusal(open.doing())));
        }
        let Some(mut location) = reply.location.clone() else {
            let words = "the registry opened an upload without a `Location` to send it to";
            return Err(Error::new(ErrorKind::Refused, words));
        };
        self.hold(&location);
        limits.answered(reply.elapsed);
        limits.read(&reply.headers, &mut Vec::new())?;
        let untold = || Verdict::Unknown("no chunk went through".to_owned());
        let mut chunks =
            Chunks { count: 0, total: 0, largest: 0, range: untold(), status: untold(), end: None };
        for size in sizes(limits) {
            let range = chunks.total..chunks.total + size;
            let patch = Request::Patch { location: location.clone(), range };
            let reply = match self.exchange(&patch, Some(zeros(size))).await {
                Ok(reply) => reply,
                // Where nobody can be reached no push succeeds.
                Err(fault @ (Fault::Connect { .. } | Fault::Fatal(_))) if chunks.count == 0 => {
                    return Err(fault.failure(patch.doing()));
                }
                Err(fault) => {
                    chunks.end = Some(End { size, words: broke(&fault), cause: Cause::Chance });
                    break;
                }
            };
            if let Some(newest) = &reply.location {
                location = newest.clone();
                self.hold(&location);
            }
            if reply.error.is_some() {
                let cause = Cause::of(&reply);
                match cause {
                    Cause::Size => limits.shrink(size, reply.body_limit())?,
                    // As an upload would suspect it, if it happened again.
                    Cause::Chance
                        if chunks.count > 0
                            && is_lost_behind(reply.status)
                            && let Some(most) = limits.smaller(size) =>
                    {
                        limits.bear(most, false);
                    }
                    Cause::Chance | Cause::Shape => {}
                }
                chunks.end = Some(End { size, words: said(&reply), cause });
                break;
            }
            chunks.take(size, &reply);
            limits.took(size, reply.elapsed);
            if chunks.count == 1 {
                chunks.status = self.status(&mut location, size).await;
            }
            if reply.elapsed > SLOW {
                break;
            }
        }
        if chunks.differed() {
            // As an upload would understand it.
            limits.insist_on_equal_parts();
        }
        Ok(chunks)
    }

    /// Asks how far the upload is, which has this many bytes.
    async fn status(&self, location: &mut Location, total: u64) -> Verdict {
        let reply = match self.exchange(&Request::Status { location: location.clone() }, None).await {
            Ok(reply) if reply.error.is_none() => reply,
            Ok(reply) => return Verdict::No(said(&reply)),
            Err(fault) => return Verdict::No(broke(&fault)),
        };
        if let Some(newest) = &reply.location {
            *location = newest.clone();
            self.hold(location);
        }
        judge(&reply, Stored::in_status, total)
    }

    /// Returns the digests of an image in the repository and of its config, if there is one.
    async fn image(&self) -> Result<Option<(Digest, Digest)>> {
        let mut call = self.client.call(Method::GET, &self.repository, "tags/list");
        call.request.url.set_query(Some("n=1"));
        // Not everybody stops after one.
        call.request.limit = MANIFEST_LIMIT;
        let answer = self.client.insist(call, || "listing tags".to_owned()).await?;
        if !answer.whole {
            return Err(Error::new(ErrorKind::Refused, "the list of tags is too long"));
        }
        let tags: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tag = tags["tags"][0].as_str().filter(|tag| check_tag(tag).is_ok());
        let Some(tag) = tag else { return Ok(None) };
        let mut reference = tag.to_owned();
        // An index has images, which have no further ones.
        for _ in 0..2 {
            let found = self.client.get_manifest(&self.repository, &reference).await?;
            let Some((_, bytes)) = found else { return Ok(None) };
            let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let digest =
                |value: &Value| value["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
            if let Some(config) = digest(&manifest["config"]) {
                return Ok(Some((Digest::of(&bytes), config)));
            }
            let Some(child) = digest(&manifest["manifests"][0]) else { return Ok(None) };
            reference = child.to_string();
        }
        Ok(None)
    }

    /// Mounts a blob from the repository into itself, where it is already.
    async fn mount(&self, image: &Result<Option<(Digest, Digest)>>) -> (Verdict, Verdict) {
        let blob = match image {
            Ok(Some((_, config))) => config.clone(),
            Ok(None) => {
                return (Verdict::Unknown("the repository holds no image yet".to_owned()), Verdict::Yes);
            }
            Err(error) => {
                let why = error.find().map_or_else(|| chain(error), refused);
                return (Verdict::Unknown(why), Verdict::Yes);
            }
        };
        let algorithm = blob.algorithm();
        let mount = Some(Mount { digest: blob, from: self.repository.clone() });
        match self.exchange(&Request::Open { mount, algorithm }, None).await {
            Ok(reply) if reply.status == 201 => (Verdict::Yes, Verdict::Yes),
            Ok(reply) => {
                reply.location.iter().for_each(|location| self.hold(location));
                (Verdict::No(said(&reply)), self.give_back().await)
            }
            Err(fault) => (Verdict::No(broke(&fault)), Verdict::Yes),
        }
    }

    async fn referrers(&self, subject: &Digest) -> Verdict {
        match self.client.ask_referrers(&self.repository, subject).await {
            Ok(()) => Verdict::Yes,
            Err(error) => match error.find::<RegistryError>() {
                Some(refusal) => Verdict::No(refused(refusal)),
                None => Verdict::Unknown(chain(&error)),
            },
        }
    }

    async fn exchange(&self, request: &Request, body: Option<UploadBody>) -> Result<Reply, Fault> {
        self.client.exchange(&self.repository, request, body, Pool::Chunked).await
    }

    fn hold(&self, location: &Location) {
        *self.open.lock() = Some(location.clone());
    }
}

impl Chunks {
    /// Takes note of a chunk that was taken.
    fn take(&mut self, size: u64, reply: &Reply) {
        (self.count, self.total, self.largest) = (self.count + 1, self.total + size, size.max(self.largest));
        let verdict = judge(reply, |stored| stored.count, self.total);
        if !matches!(self.range, Verdict::No(_)) {
            self.range = verdict;
        }
    }

    fn several(&self) -> Verdict {
        match (self.count, &self.end) {
            (2.., _) => Verdict::Yes,
            (1, Some(End { words, cause: Cause::Shape, .. })) => {
                Verdict::No(format!("the second was {words}"))
            }
            (_, Some(End { words, cause: Cause::Shape, .. })) => Verdict::No(words.clone()),
            _ => Verdict::Unknown("too few went through".to_owned()),
        }
    }

    fn unequal(&self, limits: &Limits) -> Verdict {
        match (self.count, &self.end) {
            (2, Some(End { words, cause: Cause::Shape, .. })) => {
                Verdict::No(format!("a larger one was {words}"))
            }
            _ if limits.equal_parts() => Verdict::No("known, or advertised".to_owned()),
            (3.., _) => Verdict::Yes,
            _ => Verdict::Unknown("too few went through".to_owned()),
        }
    }

    /// Returns whether a chunk was refused that was larger than the one before, and for no other reason.
    fn differed(&self) -> bool {
        self.count == 2 && self.end.as_ref().is_some_and(|end| end.cause == Cause::Shape)
    }
}

impl Cause {
    fn of(reply: &Reply) -> Self {
        match reply.status {
            _ if reply.is_too_large() => Self::Size,
            401 | 403 | 404 => Self::Chance,
            400..=499 if !is_transient(reply.status) => Self::Shape,
            _ => Self::Chance,
        }
    }
}

/// Returns the sizes of chunks to try.
fn sizes(limits: &Limits) -> Vec<u64> {
    let [.., most] = CHUNKS;
    match limits.choose(None) {
        chunk if !limits.equal_parts() || chunk > most => CHUNKS.to_vec(),
        chunk => vec![chunk; 2],
    }
}

fn zeros(size: u64) -> UploadBody {
    let zeros = Bytes::from(vec![0; FRAME as usize]);
    let frames = stream::iter((0..size.div_ceil(FRAME)).map(move |nth| {
        let left = (size - nth * FRAME).min(FRAME);
        Ok(zeros.slice(..left as usize))
    }));
    UploadBody { size, frames: Box::pin(frames) }
}

/// Compares what an answer says is stored with what is.
fn judge(reply: &Reply, count: impl Fn(Stored) -> u64, total: u64) -> Verdict {
    match Stored::of(&reply.headers).map(count) {
        Some(count) if count == total => Verdict::Yes,
        Some(count) => Verdict::No(format!("says {count} of {}", counted(total, "byte"))),
        None => Verdict::No("says nothing".to_owned()),
    }
}

/// Says how an answer refuses, in few words.
fn said(reply: &Reply) -> String {
    reply.error.as_ref().map_or_else(|| format!("answered {}", reply.status), refused)
}

fn refused(error: &RegistryError) -> String {
    let RegistryError { status, code, message, answered_by, .. } = error;
    let mut said = format!("answered {status}");
    if let Some(words) = code.as_ref().or(message.as_ref()) {
        // `413 Request Entity Too Large` is nginx's own title.
        let words = words.strip_prefix(&status.to_string()).unwrap_or(words).trim();
        said = format!("{said} {words}");
    }
    match answered_by {
        Some(who) => format!("{said} (by {who})"),
        None => said,
    }
}

fn broke(fault: &Fault) -> String {
    let error = fault.failure(String::new());
    std::error::Error::source(&error).map_or_else(|| chain(&error), chain)
}
