//! The body of a request as it comes: piece by piece, not waited for without end, and whether it came to its end.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::time::timeout;

use super::reply::Refusal;

/// So much is hashed and written at once: handing every frame to another thread as it came cost 40 % more CPU.
const BATCH: usize = 128 << 10;
/// On a line that is worth a batch, the next bytes take less than this to come.
const MOMENT: Duration = Duration::from_millis(2);

/// A body that is being read.
pub(super) struct Body<'a> {
    incoming: &'a mut Incoming,
    patience: Duration,
    end: Option<Result<(), Refusal>>,
}

impl<'a> Body<'a> {
    /// Reads a body that may pause for so long.
    pub(super) const fn new(incoming: &'a mut Incoming, patience: Duration) -> Self {
        Self { incoming, patience, end: None }
    }

    /// Waits for the next bytes; nothing at the end, whatever that is.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        while self.end.is_none() {
            match timeout(self.patience, self.incoming.frame()).await {
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
    pub(super) async fn batch(&mut self, first: Bytes) -> Vec<Bytes> {
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
    pub(super) fn finish(self) -> Result<(), Refusal> {
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
            Some(Ok(frame)) => return frame.into_data().ok(),
        }
        None
    }
}
