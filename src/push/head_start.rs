//! A head start for one blob: its upload is opened while the registry is still asked about the others.
//!
//! The largest blob is asked about first, over the connection that there is; the others wait for theirs. So its answer
//! comes a round trip before theirs, and another round trip later it is on its way. It has most to send, and what it
//! waits for after its first chunk is filled by the others, which are that far behind.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio::task::JoinHandle;

use crate::{
    oci::Digest,
    registry::{Fault, Reply},
};

/// The upload that was opened before its turn, if one was.
#[derive(Debug, Default)]
pub(super) struct HeadStart(Mutex<Option<(Digest, JoinHandle<Opened>)>>);

/// What the registry said to it; nothing if it was not asked.
type Opened = Option<Result<Reply, Fault>>;

impl HeadStart {
    /// Lets `opening` go on by itself.
    pub(super) fn begin(&self, digest: &Digest, opening: impl Future<Output = Opened> + Send + 'static) {
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *started = Some((digest.clone(), tokio::spawn(opening)));
    }

    /// Waits for what came of it, if it is the one that is wanted and was not taken before.
    pub(super) async fn take(&self, wanted: impl FnOnce(&Digest) -> bool) -> Opened {
        let started = {
            let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            started.take_if(|(digest, _)| wanted(digest))
        };
        started?.1.await.ok()?
    }
}
