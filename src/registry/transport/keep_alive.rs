//! Whether connections are used again.
//!
//! Some registries close a connection behind each answer without saying so (jlsalvador/simple-registry), or at its next
//! request: whatever goes there next is lost. Where that is no accident, connections are said to end with one answer,
//! until it has become rare.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::registry::session::Fault;

/// A break is made up for by so many answers; a single one may be an accident.
const RARE: u64 = 16;

/// What happened long ago says nothing.
const MOST: u64 = 8 * RARE;

/// How many answers it takes to trust connections as before. Bodies that stream are not counted: they break for reasons of
/// their own.
#[derive(Debug, Default)]
pub(super) struct KeepAlive(AtomicU64);

impl KeepAlive {
    /// Notes what has become of a request.
    pub(super) fn note<T>(&self, outcome: &Result<T, Fault>) {
        let change: fn(u64) -> u64 = match outcome {
            Ok(_) => |distrust| distrust.saturating_sub(1),
            Err(Fault::Reset { .. }) => |distrust| (distrust + RARE).min(MOST),
            Err(_) => return,
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |distrust| Some(change(distrust))).ok();
    }

    /// Returns whether a connection is likely to live as long as the registry says.
    pub(super) fn is_likely(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= RARE
    }
}
