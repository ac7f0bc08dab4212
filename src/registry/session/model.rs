//! A registry in memory, honest or not, in which one request after the other may go wrong.
//!
//! Bytes are numbers here: an upload is right when each piece begins where the one before ended.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use http::HeaderMap;

use super::{script::place, *};
use crate::registry::RegistryError;

/// How the registry is all the time.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "habits of one registry, in any combination")]
pub(super) struct Manners {
    pub(super) minimum: Option<u64>,
    pub(super) maximum: Option<u64>,
    /// Larger bodies get a 413.
    pub(super) body_limit: Option<u64>,
    /// All chunks but the last have one size, and no chunk is one byte (serverless-registry).
    pub(super) equal_parts: bool,
    /// What came of a body that broke stays.
    pub(super) keeps_partial: bool,
    /// A chunk at the wrong place is refused, not appended.
    pub(super) checks_offset: bool,
    /// Only the newest Location takes chunks (serverless-registry).
    pub(super) checks_location: bool,
    pub(super) answers_status: bool,
    pub(super) ranges: Ranges,
    /// A closing PUT with a body of more than a byte gets a 500.
    pub(super) refuses_whole: bool,
    /// What a `POST` with a mount is answered.
    pub(super) mount: u16,
}

/// How it writes `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    Absent,
    /// `0-9`, and `0-0` for nothing.
    Plain,
    /// `bytes=` and one too many in a status, one too many in a 416.
    Quay,
    /// None, but a 416 says which byte it waits for.
    Words,
    // These lie.
    Garbage,
    LastChunk,
    Stuck,
}

impl Manners {
    fn may_keep_less(&self) -> bool {
        !self.equal_parts && self.ranges.header(9, 9, true).is_some()
    }
}

impl Ranges {
    pub(super) const HONEST: [Self; 4] = [Self::Absent, Self::Plain, Self::Quay, Self::Words];
    pub(super) const LYING: [Self; 3] = [Self::Garbage, Self::LastChunk, Self::Stuck];

    fn header(self, held: u64, last_chunk: u64, after_patch: bool) -> Option<String> {
        let plain = |count: u64| format!("0-{}", count.saturating_sub(1));
        match self {
            Self::Absent | Self::Words => None,
            Self::Garbage => Some("bytes of all kinds".to_owned()),
            Self::LastChunk => Some(plain(last_chunk)),
            Self::Quay if !after_patch => Some(format!("bytes=0-{held}")),
            Self::Plain | Self::Quay => Some(plain(held)),
            Self::Stuck => Some(plain(7)),
        }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    /// So much of the body is taken, and more of it arrives after the next look.
    Cut {
        share: f64,
        late: f64,
    },
    /// Nothing is done, and this answered.
    Answer(u16),
    LoseAnswer,
    LoseSessions,
    /// A wrong `Range` is answered.
    Lie(u64),
    None,
    /// So much of a chunk is kept, and the answer says so.
    Short {
        share: f64,
    },
    Unreachable,
}

#[derive(Debug, Default)]
struct Held {
    count: u64,
    intact: bool,
    late: u64,
    part: Option<u64>,
    complete: bool,
    last_chunk: u64,
    moves: u32,
}

impl Held {
    fn append(&mut self, range: &Range<u64>) {
        self.intact &= range.start == self.count;
        self.last_chunk = range.end - range.start;
        self.count += self.last_chunk;
    }
}

/// The registry: uploads by number, and whether it has the blob.
#[derive(Debug)]
pub(super) struct Registry {
    size: u64,
    manners: Manners,
    uploads: BTreeMap<u32, Held>,
    pub(super) opened: u32,
    pub(super) has_blob: bool,
    pub(super) misassembled: u32,
    /// It never tells an untruth, so no byte may be doubled.
    pub(super) honest: bool,
}

impl Registry {
    pub(super) fn new(size: u64, manners: Manners, honest: bool) -> Self {
        let uploads = BTreeMap::new();
        Self { size, manners, uploads, opened: 0, has_blob: false, misassembled: 0, honest }
    }

    pub(super) fn handle(&mut self, request: &Request, trouble: &Trouble) -> Result<Reply, Fault> {
        let length = match request {
            Request::Patch { range, .. } => range.end - range.start,
            Request::Commit { body, .. } => body.unwrap_or(0),
            _ => 0,
        };
        let broken = |sent| Fault::Reset { sent, elapsed: Duration::ZERO, why: "reset".to_owned() };
        match *trouble {
            Trouble::Answer(status) => Ok(reply(status)),
            Trouble::Cut { share, late } => {
                let sent = part(length, share);
                self.keep_partial(request, sent, part(length - sent, late));
                // What arrives late has left this machine.
                Err(broken(if late > 0.0 { length } else { sent }))
            }
            Trouble::LoseAnswer => {
                self.answer(request);
                Err(broken(length))
            }
            Trouble::LoseSessions => {
                self.uploads.clear();
                Ok(self.answer(request))
            }
            Trouble::Lie(last) => {
                let mut reply = self.answer(request);
                reply.headers.insert(http::header::RANGE, format!("0-{last}").parse().unwrap());
                Ok(reply)
            }
            Trouble::None => Ok(self.answer(request)),
            Trouble::Short { share } => match request {
                // `0-0` says nothing, and who has no `Range` cannot say it at all.
                Request::Patch { location, range } if self.manners.may_keep_less() => {
                    let end = range.start + part(length, share).max(2).min(length);
                    Ok(self.answer(&Request::Patch { location: location.clone(), range: range.start..end }))
                }
                request => Ok(self.answer(request)),
            },
            Trouble::Unreachable => Err(Fault::Connect { why: "no route".to_owned() }),
        }
    }

    fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Cancel { .. } => reply(204),
            Request::Commit { body: Some(2..), .. } if self.manners.refuses_whole => reply(500),
            Request::Commit { location, body, .. } => self.commit(location, *body),
            Request::Exists { .. } if self.has_blob => {
                with(reply(200), "content-length", &self.size.to_string())
            }
            Request::Exists { .. } => reply(404),
            Request::Open { mount: Some(_), .. } if self.manners.mount != 202 => {
                self.has_blob |= self.manners.mount == 201;
                reply(self.manners.mount)
            }
            Request::Open { .. } => self.open(),
            Request::Patch { location, range } => self.patch(location, range),
            Request::Status { location } => self.status(location),
        }
    }

    fn open(&mut self) -> Reply {
        self.opened += 1;
        self.uploads.insert(self.opened, Held { intact: true, ..Held::default() });
        let mut reply = reply(202);
        for (name, limit) in
            [("oci-chunk-min-length", self.manners.minimum), ("oci-chunk-max-length", self.manners.maximum)]
        {
            if let Some(limit) = limit {
                reply = with(reply, name, &limit.to_string());
            }
        }
        self.located(reply, self.opened)
    }

    fn patch(&mut self, location: &Location, range: &Range<u64>) -> Reply {
        let length = range.end - range.start;
        let (manners, honest) = (self.manners.clone(), self.honest);
        let Some((number, held, newest)) = self.find(location) else { return reply(404) };
        if manners.body_limit.is_some_and(|limit| length > limit) {
            return reply(413);
        }
        held.count += mem::take(&mut held.late);
        let unequal = manners.equal_parts
            && (held.complete || length == 1 || held.part.is_some_and(|part| length > part));
        let misplaced = range.start != held.count || (manners.checks_location && !newest) || unequal;
        if misplaced && manners.checks_offset {
            let (count, last_chunk) = (held.count, held.last_chunk);
            return self.located(refused(&manners, range.start, count, last_chunk), number);
        }
        held.complete = held.part.is_some_and(|part| length < part);
        held.part = held.part.or(Some(length));
        held.append(range);
        held.moves += 1;
        assert!(!honest || held.intact, "bytes were doubled or left out at {range:?}");
        let held = &self.uploads[&number];
        let header = manners.ranges.header(held.count, held.last_chunk, true);
        self.located(ranged(reply(202), header), number)
    }

    fn status(&mut self, location: &Location) -> Reply {
        let ranges = self.manners.ranges;
        if !self.manners.answers_status {
            return reply(404);
        }
        let Some((number, held, _)) = self.find(location) else { return reply(404) };
        let header = ranges.header(held.count, held.last_chunk, false);
        held.count += mem::take(&mut held.late);
        self.located(ranged(reply(204), header), number)
    }

    fn commit(&mut self, location: &Location, body: Option<u64>) -> Reply {
        let size = self.size;
        let limit = self.manners.body_limit;
        let honest = self.honest;
        let Some((number, held, _)) = self.find(location) else { return reply(404) };
        if let Some(length) = body {
            if limit.is_some_and(|limit| length > limit) {
                return reply(413);
            }
            assert!(!honest || held.count == 0, "a whole blob was sent behind {} bytes", held.count);
            held.append(&(0..length));
        }
        let right = held.intact && held.count == size && held.late == 0;
        self.uploads.remove(&number);
        if right {
            self.has_blob = true;
            return reply(201);
        }
        self.misassembled += 1;
        let mut reply = reply(400);
        if let Some(error) = &mut reply.error {
            error.code = Some("DIGEST_INVALID".to_owned());
        }
        reply
    }

    /// A body broke off.
    fn keep_partial(&mut self, request: &Request, kept: u64, late: u64) {
        let (location, start) = match request {
            Request::Patch { location, range } => (location, range.start),
            Request::Commit { location, body: Some(_), .. } => (location, 0),
            _ => return,
        };
        let keeps = self.manners.keeps_partial;
        if let Some((_, held, _)) = self.find(location)
            && keeps
            && kept > 0
            && start == held.count
        {
            held.append(&(start..start + kept));
            held.late = late;
        }
    }

    fn find(&mut self, location: &Location) -> Option<(u32, &mut Held, bool)> {
        let name = location.0.path().rsplit('/').next()?;
        let (number, moves) = name.split_once('-')?;
        let number = number.parse().ok()?;
        let held = self.uploads.get_mut(&number)?;
        let newest = moves.parse() == Ok(held.moves);
        Some((number, held, newest))
    }

    fn located(&self, mut reply: Reply, number: u32) -> Reply {
        reply.location = Some(place(&format!("{number}-{}", self.uploads[&number].moves)));
        reply
    }
}

fn refused(manners: &Manners, start: u64, count: u64, last_chunk: u64) -> Reply {
    let mut reply = reply(416);
    match (manners.ranges, &mut reply.error) {
        (Ranges::Words, Some(error)) => {
            error.message = Some(format!("First byte of the layer part is {start} instead of {count}"));
            reply
        }
        (Ranges::Quay, _) => with(reply, "range", &format!("0-{count}")),
        (ranges, _) => ranged(reply, ranges.header(count, last_chunk, false)),
    }
}

fn reply(status: u16) -> Reply {
    let error = (status >= 300).then(|| RegistryError {
        method: "ANY".to_owned(),
        url: "https://registry.example".to_owned(),
        status,
        code: None,
        message: None,
        answered_by: None,
        retry_after: None,
        page: false,
    });
    Reply { status, headers: HeaderMap::new(), location: None, error, elapsed: Duration::ZERO }
}

fn with(mut reply: Reply, name: &'static str, value: &str) -> Reply {
    reply.headers.insert(name, value.parse().unwrap());
    reply
}

fn ranged(reply: Reply, header: Option<String>) -> Reply {
    match header {
        Some(value) => with(reply, "range", &value),
        None => reply,
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "any share will do")]
fn part(length: u64, share: f64) -> u64 {
    (length as f64 * share) as u64
}
