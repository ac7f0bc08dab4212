//! The body of a request as it comes: piece by piece, not waited for without end, and whether it came to its end.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::time::{Instant, timeout};

use super::reply::Refusal;

/// So much is hashed and written at once: handing every frame to another thread as it came cost 40 % more CPU.
const BATCH: usize = 128 << 10;
/// On a line that is worth a batch, the next bytes take less than this to come.
const MOMENT: Duration = Duration::from_millis(2);

/// Fewer bytes than this are no progress: who sends one now and then would hold his place for ever.
const PROGRESS: usize = 4 << 10;

/// A body that is being read.
pub(in crate::server) struct Body<'a> {
    incoming: &'a mut Incoming,
    patience: Duration,
    /// What is left of the patience, and what has come meanwhile.
    left: Duration,
    come: usize,
    end: Option<Result<(), Refusal>>,
}

impl<'a> Body<'a> {
    /// Reads a body that may make no progress for so long.
    pub(in crate::server) const fn new(incoming: &'a mut Incoming, patience: Duration) -> Self {
        Self { incoming, patience, left: patience, come: 0, end: None }
    }

    /// Waits for the next bytes; nothing at the end, whatever that is.
    pub(in crate::server) async fn next(&mut self) -> Option<Bytes> {
        while self.end.is_none() {
            let asked = Instant::now();
            let frame = timeout(self.left, self.incoming.frame()).await;
            // Only what the client takes counts, not what is done with its bytes.
            self.left = self.left.saturating_sub(asked.elapsed());
            match frame {
                Err(_) => self.end = Some(Err(Refusal::too_slow())),
                Ok(frame) => {
                    if let Some(piece) = self.take(frame) {
                        return Some(piece);
                    }
                }
            }
        }
        None
    }

    /// Takes what comes right behind `first`, up to a batch.
    pub(in crate::server) async fn batch(&mut self, first: Bytes) -> Vec<Bytes> {
        let mut size = first.len();
        let mut batch = vec![first];
        while size < BATCH && self.end.is_none() {
            let Ok(frame) = timeout(MOMENT, self.incoming.frame()).await else { break };
            if let Some(piece) = self.take(frame) {
                size += piece.len();
                batch.push(piece);
            }
        }
        batch
    }

    /// Returns whether it came to its end.
    pub(in crate::server) fn finish(self) -> Result<(), Refusal> {
        self.end.unwrap_or(Ok(()))
    }

    fn take(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Option<Bytes> {
        match frame {
            None => self.end = Some(Ok(())),
            Some(Err(_)) => {
                let message = "the connection broke in the middle of the body";
                self.end = Some(Err(Refusal::bad_request("BLOB_UPLOAD_INVALID", message)));
            }
            // What is no data are trailers.
            Some(Ok(frame)) => {
                let piece = frame.into_data().ok()?;
                self.come += piece.len();
                if self.come >= PROGRESS {
                    (self.left, self.come) = (self.patience, 0);
                }
                return Some(piece);
            }
        }
        None
    }
}
