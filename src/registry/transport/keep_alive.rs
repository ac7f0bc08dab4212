//! Whether connections are used again.
//!
//! Some registries close a connection behind each answer without saying so (jlsalvador/simple-registry), or at its next
//! request: whatever goes there next is lost. Where that is no accident, connections are said to end with one answer,
//! until it has become rare.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::registry::session::Fault;

/// So many breaks may be an accident.
const ACCIDENTS: u64 = 1;

/// Rare is what happens once in so many answers.
const RARE: u64 = 16;

/// How often requests without a body were answered, and broke: those with one do for reasons of their own.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    answered: AtomicU64,
    broken: AtomicU64,
}

impl KeepAlive {
    /// Notes what has become of a request.
    pub(super) fn note<T>(&self, outcome: &Result<T, Fault>) {
        match outcome {
            Ok(_) => self.answered.fetch_add(1, Ordering::Relaxed),
            Err(Fault::Reset { .. }) => self.broken.fetch_add(1, Ordering::Relaxed),
            Err(_) => return,
        };
    }

    /// Returns whether a connection is likely to live as long as the registry says.
    pub(super) fn is_likely(&self) -> bool {
        let broken = self.broken.load(Ordering::Relaxed);
        broken <= ACCIDENTS || broken * RARE <= self.answered.load(Ordering::Relaxed)
    }
}
