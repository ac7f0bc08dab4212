//! Who is bringing what to the upstream. A client that lost patience and asks again waits for what its first request
//! has begun, and finds it done.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::oci::Digest;

/// One at a time for each digest in each repository.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Key, Weak<Lock>>>);

/// A digest in a repository.
type Key = (String, Digest);
type Lock = AsyncMutex<()>;

/// Lasts until it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits until nobody else is at it.
    pub(super) async fn take(&self, repository: &str, digest: &Digest) -> Turn {
        self.lock(repository, digest).lock_owned().await
    }

    /// Takes a turn, unless somebody is at it.
    pub(super) fn try_take(&self, repository: &str, digest: &Digest) -> Option<Turn> {
        self.lock(repository, digest).try_lock_owned().ok()
    }

    fn lock(&self, repository: &str, digest: &Digest) -> Arc<Lock> {
        let key = (repository.to_owned(), digest.clone());
        let mut turns = self.0.lock();
        if let Some(lock) = turns.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        turns.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        turns.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_each_digest_in_each_repository() {
        let (turns, one, other) = (Turns::default(), Digest::of(b"1"), Digest::of(b"2"));
        let turn = turns.take("a", &one).await;
        assert!(turns.try_take("a", &one).is_none());
        let beside = turns.try_take("a", &other).unwrap();
        assert!(turns.try_take("b", &one).is_some());
        drop(turn);
        assert!(turns.try_take("a", &one).is_some());
        drop(beside);
        drop(turns.take("c", &one).await);
        assert_eq!(turns.0.lock().len(), 1, "what is over is forgotten");
    }
}
