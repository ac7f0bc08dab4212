//! How often it may still be tried: without progress, in another session, with another token.

use std::{mem, time::Duration};

use super::{
    Settings,
    retry::{Backoff, Budget},
};

/// A registry that loses uploads again and again will not keep the next one either.
pub(super) const MOST_LOSSES: u32 = 5;

/// What may still go wrong.
#[derive(Debug)]
pub(super) struct Attempts {
    budget: Budget,
    backoff: Backoff,
    /// Sessions lost so far.
    losses: u32,
    /// A token was fetched anew, and nothing has been accepted since.
    reauthenticated: bool,
}

impl Attempts {
    pub(super) const fn new(settings: &Settings) -> Self {
        let (budget, backoff) = (Budget::new(settings.retries), Backoff::new(settings.pace));
        Self { budget, backoff, losses: 0, reauthenticated: false }
    }

    /// Takes an attempt, if one is left, and returns how long to pause before it: what was `asked` for, or else longer
    /// each time.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.budget.spend().then(|| self.backoff.pause(asked))
    }

    /// Takes note that the registry has come so far.
    pub(super) fn get_on(&mut self, offset: u64, chunk: u64, size: Option<u64>) {
        if self.budget.acknowledge(offset, chunk, size) {
            self.backoff.reset();
        }
    }

    /// Returns whether no session may be lost any more.
    pub(super) const fn is_last_session(&self) -> bool {
        self.losses >= MOST_LOSSES
    }

    /// Takes note that a session is lost.
    pub(super) const fn lose_session(&mut self) {
        self.losses += 1;
    }

    /// Takes another token, unless the newest one was good for nothing.
    #[must_use]
    pub(super) const fn take_token(&mut self) -> bool {
        !mem::replace(&mut self.reauthenticated, true)
    }

    /// Takes note that the token is good.
    pub(super) const fn let_in(&mut self) {
        self.reauthenticated = false;
    }
}
