//! What the images of one push share on their way: who may send at the same time, and which blobs are being sent.
//!
//! Several images go out side by side, so that the line is never idle between one and the next. A blob that two of them
//! have is sent for the first; the other waits for it, and finds it there or mounts it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Error, Result},
    registry::{Lesson, Pool},
};

/// Bytes of small blobs in flight at once, in KiB: a semaphore counts in `u32`. What is larger is no small blob, even
/// where chunks are.
const SMALL_KIB: u32 = 16 << 10;
/// So many blobs are opened at once: each may be a file.
const OPEN: usize = 256;

/// What all uploads of a push share.
#[derive(Clone, Debug)]
pub(in crate::push) struct Traffic {
    chunked: Arc<Semaphore>,
    small_kib: Arc<Semaphore>,
    open: Arc<Semaphore>,
    /// By registry and blob.
    flights: Arc<Mutex<HashMap<(String, String), Flight>>>,
    /// What the uploads so far have taught, by registry.
    lessons: Arc<Mutex<HashMap<String, Lesson>>>,
    /// Taken while the list of what refers to an image is read and written again.
    pub(in crate::push) referrers: Arc<Turn<()>>,
}

/// The repository that was given a blob, if one was.
type Flight = Arc<Turn<Option<String>>>;

/// A seat taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) pool: Pool,
    _permits: OwnedSemaphorePermit,
}

impl Traffic {
    /// Lets `jobs` large blobs go at a time.
    pub(in crate::push) fn new(jobs: usize) -> Self {
        Self {
            chunked: Arc::new(Semaphore::new(jobs.max(1))),
            small_kib: Arc::new(Semaphore::new(SMALL_KIB as usize)),
            open: Arc::new(Semaphore::new(OPEN)),
            flights: Arc::default(),
            lessons: Arc::default(),
            referrers: Arc::default(),
        }
    }

    /// Waits until nobody else sends a blob to a registry. What is returned says which repository has been given it, and
    /// is told so by whoever sends it now.
    pub(in crate::push) async fn board(&self, host: &str, blob: &str) -> OwnedMutexGuard<Option<String>> {
        let flight = Arc::clone(self.flights.lock().entry((host.to_owned(), blob.to_owned())).or_default());
        flight.lock_owned().await
    }

    /// Returns whether nobody has sent a blob to a registry, or asked this before.
    pub(in crate::push) fn is_new(&self, host: &str, blob: &str) -> bool {
        match self.flights.lock().entry((host.to_owned(), blob.to_owned())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(flight) => {
                flight.insert(Flight::default());
                true
            }
        }
    }

    /// Returns what the uploads so far have taught about a registry.
    pub(super) fn lesson(&self, host: &str) -> Lesson {
        self.lessons.lock().get(host).copied().unwrap_or_default()
    }

    /// Takes note of what an upload knows about a registry by now.
    pub(super) fn learn(&self, host: &str, newer: Lesson) {
        let mut lessons = self.lessons.lock();
        let lesson = lessons.entry(host.to_owned()).or_default();
        *lesson = lesson.and(newer);
    }

    /// Forgets what was sent: a registry does not have what it has confirmed.
    pub(in crate::push) fn forget(&self) {
        self.flights.lock().clear();
    }

    /// Waits until one more blob may be opened.
    pub(in crate::push) async fn open(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.open).acquire_owned().await.map_err(closed)
    }

    /// Waits for a seat for a blob whose size is known if it is at most one chunk.
    pub(super) async fn seat(&self, one_chunk: Option<u64>) -> Result<Seat> {
        let small = one_chunk.and_then(|size| u32::try_from(size.div_ceil(1024)).ok());
        let (pool, permits) = match small.filter(|kib| *kib <= SMALL_KIB) {
            Some(kib) => (Pool::Small, Arc::clone(&self.small_kib).acquire_many_owned(kib.max(1)).await),
            None => (Pool::Chunked, Arc::clone(&self.chunked).acquire_owned().await),
        };
        Ok(Seat { pool, _permits: permits.map_err(closed)? })
    }
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::internal("a pool was closed")
}
