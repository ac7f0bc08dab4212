//! The memory of a registry in a bucket: parts that are being filled or sent, so many over all uploads and no more.
//!
//! Whoever has none leaves what its client sends in the socket. One that is slow to fill a part gives it back if others
//! wait: what it holds becomes an object of its own, to be read back when there is room again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::error::{Context as _, ErrorKind, Result};

/// Bytes of a part. S3 takes no smaller ones than 5 MiB, and R2 wants all of an object to be equally long.
pub(super) const PART: usize = 8 << 20;
/// So many parts are in memory.
pub(super) const PARTS: usize = 8;
/// So long may a part be filled while others wait for one.
const HOLD: Duration = Duration::from_secs(1);

/// Room for parts.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Buffers that were used: each thread's allocator would keep some.
    spare: Mutex<Vec<BytesMut>>,
}

/// One that is being filled.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: BytesMut,
    room: Room,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new() -> Self {
        let permits = Arc::new(Semaphore::new(PARTS));
        Self(Arc::new(Inner { permits, waiting: AtomicUsize::new(0), spare: Mutex::default() }))
    }

    /// Waits for an empty part.
    pub(super) async fn take(&self) -> Result<Part> {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        let permit = permit.context(ErrorKind::Internal, || "there is no room for parts".into())?;
        let spare = self.0.spare.lock().pop();
        let bytes = spare.unwrap_or_else(|| BytesMut::with_capacity(PART));
        Ok(Part { bytes, room: self.clone(), until: Instant::now() + HOLD, _permit: permit })
    }
}

impl Part {
    /// Returns how many bytes it can still take.
    pub(super) fn space(&self) -> usize {
        PART - self.bytes.len()
    }

    /// Returns when somebody else should have it, if that is a while from now.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Returns whether somebody else should have it.
    pub(super) fn is_overdue(&mut self) -> bool {
        let now = Instant::now();
        if now < self.until {
            return false;
        }
        self.until = now + HOLD;
        self.room.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Has `send` send its bytes, and gives it back.
    pub(super) async fn send<T, F>(mut self, send: impl FnOnce(Bytes) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let bytes = std::mem::take(&mut self.bytes).freeze();
        let sent = send(bytes.clone()).await;
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.clear();
            self.bytes = bytes;
        }
        sent
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // Somebody may still have held on to what was sent.
        if bytes.capacity() >= PART {
            self.room.0.spare.lock().push(bytes);
        }
    }
}
