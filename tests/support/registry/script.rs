//! What goes wrong, and when: plain data, so that scripts can be printed, cloned and generated.
//!
//! [`Manners`] are how the registry is all the time; a [`Fault`] happens at the n-th call of a [`Route`].

use std::time::Duration;

use super::{auth::Auth, http::Answer};

/// Manners and faults of one registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) manners: Manners,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    route: Route,
    /// The call it happens at, from 1; every one if absent.
    nth: Option<usize>,
    fault: Fault,
}

impl Script {
    /// No faults.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How the registry is all the time.
    pub(crate) fn manners(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self
    }

    /// Adds a fault at the `nth` call (from 1) of `route`.
    pub(crate) fn on(mut self, route: Route, nth: usize, fault: Fault) -> Self {
        self.rules.push(Rule { route, nth: Some(nth), fault });
        self
    }

    /// Adds a fault at every call of `route` that has none of its own.
    pub(crate) fn always(mut self, route: Route, fault: Fault) -> Self {
        self.rules.push(Rule { route, nth: None, fault });
        self
    }

    pub(super) fn fault(&self, route: Route, nth: usize) -> Option<&Fault> {
        let rules = || self.rules.iter().filter(|rule| rule.route == route);
        let rule =
            rules().find(|rule| rule.nth == Some(nth)).or_else(|| rules().find(|rule| rule.nth.is_none()));
        rule.map(|rule| &rule.fault)
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// `/v2/`.
    Base,
    BlobGet,
    BlobHead,
    /// `DELETE` of a session.
    Cancel,
    /// `/v2/_catalog`.
    Catalog,
    /// `PUT` of a session.
    Commit,
    ManifestGet,
    ManifestHead,
    ManifestPut,
    /// `POST …?mount=…`.
    Mount,
    /// `POST` of a session.
    Open,
    Other,
    Patch,
    Referrers,
    /// `GET` of a session.
    Status,
    Tags,
    Token,
}

/// How a registry is all the time. The default is what the specification asks for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one habit of one registry, in any combination")]
pub(crate) struct Manners {
    /// Who is let in.
    pub(crate) auth: Auth,
    /// Bodies over this are refused with 413 and HTML before they are read, as Cloudflare and nginx do.
    pub(crate) body_limit: Option<u64>,
    /// `OCI-Chunk-Min-Length`, advertised and enforced: what follows a shorter chunk is refused.
    pub(crate) chunk_min: Option<u64>,
    /// `OCI-Chunk-Max-Length`, advertised and enforced by 413.
    pub(crate) chunk_max: Option<u64>,
    /// All chunks of a session have the size of the first but the last, which may be smaller; else 416.
    pub(crate) equal_parts: bool,
    /// Refusals are HTML, as if a proxy had made them.
    pub(crate) html: bool,
    /// The body of a closing PUT after a PATCH counts (else it is dropped in silence: serverless-registry).
    pub(crate) keeps_closing_body: bool,
    /// The bytes of a PATCH that broke stay in the session.
    pub(crate) keeps_partial: bool,
    /// How far away it is: so long after a request has come, its answer leaves.
    pub(crate) latency: Duration,
    /// Where a blob was mounted lies a note, which is what a HEAD of the blob describes (serverless-registry).
    pub(crate) notes_mounts: bool,
    /// What a PATCH is answered when it went well (ECR: 201, gh:openai/tart#273).
    pub(crate) patch_status: u16,
    /// A lie about `Range` in every answer to a PATCH.
    pub(crate) range: Option<Lie>,
    /// What a closing PUT with a body is answered, where that is refused (`container-registry` of crates.io: 500).
    pub(crate) refuses_whole: Option<u16>,
    /// Bodies over this are cut off after so many bytes, without a word.
    pub(crate) reset_over: Option<usize>,
    /// Every repository shows the blobs of all, and takes manifests of its own only; it says so of one at a time (Trow).
    pub(crate) shows_all_blobs: bool,
    /// `GET` of a session works (ECR: always 404, gh:dotnet/sdk#33019; its 416 tells the offset instead).
    pub(crate) status: bool,
    /// `OCI-Subject` is answered, and referrers are served.
    pub(crate) subject: bool,
    /// TLS with a certificate of its own.
    pub(crate) tls: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            auth: Auth::Anonymous,
            body_limit: None,
            chunk_min: None,
            chunk_max: None,
            equal_parts: false,
            html: false,
            keeps_closing_body: true,
            keeps_partial: true,
            latency: Duration::ZERO,
            notes_mounts: false,
            patch_status: 202,
            range: None,
            refuses_whole: None,
            reset_over: None,
            shows_all_blobs: false,
            status: true,
            subject: true,
            tls: false,
        }
    }
}

/// One thing that goes wrong once.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Only so many bytes of the body are kept; the answer says so.
    AcceptOnly(usize),
    /// The body is read, the work is not done, and this is answered; `{path}` and `{port}` in its headers stand
    /// for the request's path and query, and for the registry's port.
    Answer(Answer),
    /// The work is done, and this status says that it was not.
    Belie(u16),
    /// The body is read; the work is done when `route` was called `calls` times, or the test has called
    /// [`Registry::release`](super::Registry::release).
    Await { route: Route, calls: usize },
    /// After so many bytes of the body the connection is reset.
    Cut { after: usize },
    /// 400 DIGEST_INVALID though the bytes were right; the session is gone.
    DigestMismatch,
    /// After so many bytes of the body (or all of it) this is answered and nothing more is read. Then the
    /// connection is reset at once, or kept until the client has closed its side.
    Early { after: usize, answer: Answer, reset: bool },
    /// This status, and a body that never ends.
    Endless(u16),
    /// A head that never ends.
    EndlessHead,
    /// All tokens given out so far stop working; then the request is handled.
    ExpireTokens,
    /// The work is done; the answer has this header too.
    Header(&'static str, &'static str),
    /// The work is done, then the connection is reset without an answer.
    LoseAnswer,
    /// The session is forgotten; then the request is handled.
    LoseSession,
    /// The work is done; `Location` is this, with `{path}` for the right path and query and `{port}` for the
    /// registry's port; absent if `None`.
    Location(Option<String>),
    /// The work is done; `Range` is a lie.
    Range(Lie),
    /// The body is read, the work is not done; what was asked is shown with this status, as debugging proxies do.
    Reflect(u16),
    /// After so many bytes of the body nothing more is read, and nothing ever answered.
    Stall { after: usize },
    /// 401 with the challenge of [`Manners::auth`], whoever asks.
    Unauthorized,
}

impl Fault {
    /// Answers `status` instead of doing anything.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(Answer::new(status))
    }

    /// Adds a header to an answer made by [`Fault::status`] or [`Fault::early`].
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.answer_mut().headers.push((name.into(), value.into()));
        self
    }

    /// Gives an answer its body.
    pub(crate) fn body(mut self, content_type: &str, body: &str) -> Self {
        self.answer_mut().body = body.into();
        self.header("Content-Type", content_type)
    }

    /// Answers after so many bytes of the body, and resets the connection: the answer may be lost.
    pub(crate) fn early(status: u16, after: usize) -> Self {
        Self::Early { after, answer: Answer::new(status), reset: true }
    }

    /// Answers after so many bytes of the body, and closes once the client did: the answer arrives.
    pub(crate) fn early_and_linger(status: u16, after: usize) -> Self {
        Self::Early { after, answer: Answer::new(status), reset: false }
    }

    /// Resets the connection instead of answering.
    pub(crate) fn reset() -> Self {
        Self::Cut { after: 0 }
    }

    fn answer_mut(&mut self) -> &mut Answer {
        match self {
            Self::Answer(answer) | Self::Early { answer, .. } => answer,
            other => panic!("{other:?} has no answer of its own"),
        }
    }
}

/// What a `Range` header says instead of the truth.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    Absent,
    /// `bytes=0-N`, as Quay writes it.
    BytesUnit,
    /// The same, whatever was stored (ECR: gh:aws/containers-roadmap#2831).
    Constant(&'static str),
    /// The last request's bytes only (Alibaba: gh:regclient/regclient#627).
    LastChunkOnly,
    /// The count instead of the last byte, one too many (Quay).
    OffByOne,
}

impl Lie {
    /// Returns the header for a session of `size` bytes, the last `chunk` of which came just now.
    pub(super) fn tell(&self, size: usize, chunk: usize) -> Option<String> {
        let last = size.saturating_sub(1);
        match self {
            Self::Absent => None,
            Self::BytesUnit => Some(format!("bytes=0-{last}")),
            Self::Constant(text) => Some((*text).to_owned()),
            Self::LastChunkOnly => Some(format!("{}-{last}", size - chunk)),
            Self::OffByOne => Some(format!("0-{size}")),
        }
    }
}
