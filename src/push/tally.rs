//! What one image takes at the registry, counted by listening to what is told of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Press, Pushed};
use crate::event::{Event, How, Reporter};

/// Hears what is told of one image, and passes it on.
pub(super) struct Tally {
    to: Arc<dyn Reporter>,
    bytes_sent: AtomicU64,
    has_mounted: AtomicBool,
    has_manifest: AtomicBool,
}

impl Tally {
    /// Listens to what is done with a press from now on.
    pub(super) fn listen(press: &mut Press) -> Arc<Self> {
        let tally = Arc::new(Self {
            to: Arc::clone(&press.reporter),
            bytes_sent: AtomicU64::new(0),
            has_mounted: AtomicBool::new(false),
            has_manifest: AtomicBool::new(false),
        });
        press.reporter = Arc::<Self>::clone(&tally);
        tally
    }

    /// Returns the bytes of all blobs that were sent.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Says what an image took.
    pub(super) fn note(&self, pushed: Pushed) -> Pushed {
        let bytes_sent = self.bytes_sent();
        let how = match (self.has_manifest.load(Ordering::Relaxed), self.has_mounted.load(Ordering::Relaxed))
        {
            (false, _) => How::Present,
            (true, true) if bytes_sent == 0 => How::Mounted,
            (true, _) => How::Uploaded,
        };
        Pushed { how, bytes_sent, ..pushed }
    }
}

impl Reporter for Tally {
    fn event(&self, event: Event) {
        match event {
            Event::Confirmed { how: How::Uploaded, size, .. } => {
                self.bytes_sent.fetch_add(size, Ordering::Relaxed);
            }
            Event::Confirmed { how: How::Mounted, .. } => self.has_mounted.store(true, Ordering::Relaxed),
            Event::Manifest { .. } => self.has_manifest.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.to.event(event);
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}
