//! One session at the registry: its address, and how far it has come.
//!
//! What is acknowledged (`offset`) may be less than what the registry holds, and what it holds less than what it was
//! `sent`; a `Footing` says what the offset stands on. A later process goes on with what is `Held`.

use super::{Location, Reply, Step};
use crate::error::Error;

/// More redirects in a row are a circle.
const MOST_REDIRECTS: u32 = 5;

/// A session that is open at the registry.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) location: Location,
    /// How much to send at once.
    pub(super) chunk: u64,
    /// The next byte to send: all before it are acknowledged.
    pub(super) offset: u64,
    /// The registry may hold bytes up to here; 0 while it can have none.
    pub(super) sent: u64,
    pub(super) footing: Footing,
    /// So many redirects in a row.
    pub(super) redirects: u32,
    /// The size of the chunk that was accepted last.
    pub(super) before: Option<u64>,
}

impl Upload {
    /// Begins at the first byte.
    pub(super) const fn new(location: Location, chunk: u64) -> Self {
        let footing = Footing::Acknowledged;
        Self { location, chunk, offset: 0, sent: 0, footing, redirects: 0, before: None }
    }

    /// Goes on where an earlier process was.
    pub(super) fn taken_up(held: Held) -> Self {
        let Held { location, offset, chunk, .. } = held;
        // The registry may hold a part of the chunk that was on its way.
        Self { offset, sent: offset.saturating_add(chunk), ..Self::new(location, chunk) }
    }

    /// Returns what a later process needs to go on here; nothing while there is nothing to gain.
    pub(super) fn held(&self, equal_parts: bool) -> Option<Held> {
        let Self { location, offset, chunk, .. } = self;
        let (location, offset, chunk) = (location.clone(), *offset, *chunk);
        (offset > 0).then_some(Held { location, offset, chunk, equal_parts })
    }

    /// Goes on at the newest Location; returns whether it is another one.
    pub(super) fn follow(&mut self, reply: &Reply) -> bool {
        let Some(location) = &reply.location else { return false };
        let moved = self.location != *location;
        self.location = location.clone();
        moved
    }

    /// Sends the same body where the registry redirects it. The transport follows for requests without one.
    pub(super) fn redirected(mut self, reply: &Reply, error: Error) -> Step {
        self.redirects += 1;
        if self.redirects > MOST_REDIRECTS || !self.follow(reply) {
            return Step::Ended(Err(error));
        }
        Step::Send(self)
    }
}

/// Why `offset` is believed to be the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// Everything before it was accepted.
    Acknowledged,
    /// A chunk at `refused` was refused, and this is where the registry seems to be.
    Corrected { refused: u64 },
    /// Nobody knows, and the registry tells only by refusing a chunk.
    Probing,
    /// A chunk up to `end` was accepted, but the registry said that it kept less.
    Short { end: u64 },
}

/// A session that an earlier process has left behind, or this one may.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its address.
    pub location: Location,
    /// The registry had acknowledged so many bytes.
    pub offset: u64,
    /// The size of its chunks.
    pub chunk: u64,
    /// All but the last have that size: the registry wants it so, which it may have said only when it was opened.
    pub equal_parts: bool,
}
