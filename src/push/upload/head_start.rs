//! A head start for one blob: its upload is opened while the registry is still asked about the others.
//!
//! It is the largest: it has most to send, and what it waits for after its first chunk is filled by the others, which
//! are a round trip behind. It may be opened before it is known that the registry lacks the blob. If it does not, the
//! upload is for the next one.

use std::future::Future;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::{
    oci::Digest,
    push::resume::Trail,
    registry::{Fault, Reply},
};

/// The upload that was opened before its turn, if one was, and the blob it is for.
#[derive(Debug, Default)]
pub(super) struct HeadStart(Mutex<Option<(Digest, JoinHandle<Opened>)>>);

/// What the registry said to it, and the trail that it leaves until it is used; nothing if it was not asked.
type Opened = Option<(Result<Reply, Fault>, Trail)>;

impl HeadStart {
    /// Lets `opening` go on by itself, unless an earlier one comes to something.
    pub(super) fn begin(&self, digest: &Digest, opening: impl Future<Output = Opened> + Send + 'static) {
        let mut started = self.0.lock();
        if started.as_ref().is_some_and(|(earlier, _)| earlier.algorithm() != digest.algorithm()) {
            return;
        }
        let earlier = started.take();
        let opening = tokio::spawn(async move {
            if let Some((_, earlier)) = earlier
                && let Ok(Some(opened)) = earlier.await
            {
                return Some(opened);
            }
            opening.await
        });
        *started = Some((digest.clone(), opening));
    }

    /// Returns whether it is for this blob.
    pub(super) fn is_for(&self, digest: &Digest) -> bool {
        self.0.lock().as_ref().is_some_and(|(blob, _)| blob == digest)
    }

    /// Waits for what came of it, if it is the one that is wanted and was not taken before.
    pub(super) async fn take(&self, wanted: impl FnOnce(&Digest) -> bool) -> Opened {
        let started = self.0.lock().take_if(|(digest, _)| wanted(digest));
        started?.1.await.ok()?
    }
}
