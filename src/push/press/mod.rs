//! Presses plain layers into the cache, while whoever wants their bytes can follow.

mod shared_cache;
pub(super) mod transcode;

use std::{io::Read, num::NonZero, ops::ControlFlow, sync::Arc};

use parking_lot::Mutex;

use self::shared_cache::SharedCache;
use super::feed::Producer;
use crate::{
    blob::Blob,
    bucket::Bucket,
    cache::{Cache, Writer},
    codec::{self, Encoded, Encoding},
    error::{Result, chain},
    event::{Event, Reporter},
};

/// What encodes layers, one at a time, on all its threads.
#[derive(Clone, Debug)]
pub struct Press {
    /// Where encoded layers are kept.
    pub cache: Arc<Cache>,
    /// Threads that encode.
    pub workers: usize,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
    /// Who is given what was encoded, during a push.
    pub(super) shared: Option<SharedCache>,
    /// Taken while a layer is encoded, whatever image it is of.
    turn: Arc<Mutex<()>>,
}

/// When to stop in the middle of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At its end: the layer is wanted even if nobody follows.
    End,
    /// When nobody follows any more.
    Abandoned,
}

impl Press {
    /// Encodes on all cores into `cache`.
    pub fn new(cache: Cache, reporter: Arc<dyn Reporter>) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { cache: Arc::new(cache), workers, reporter, shared: None, turn: Arc::default() }
    }

    /// Shares a bucket with other machines, if there is one. The future puts there what is encoded, beside the push.
    pub(super) fn use_shared(&mut self, bucket: Option<Bucket>) -> impl Future<Output = ()> + use<> {
        let begin = |bucket| SharedCache::begin(bucket, Arc::clone(&self.reporter));
        let (shared, giving) = bucket.map(begin).unzip();
        self.shared = shared;
        async move {
            if let Some(giving) = giving {
                giving.await;
            }
        }
    }

    /// Encodes all of `plain`; `name` is what the layer is called. The followers of `output` see the bytes as
    /// they are written, and not yet the end: it depends on what the caller finds.
    pub(crate) fn encode(
        &self,
        plain: &mut (dyn Read + Send),
        name: &str,
        encoding: Encoding,
        output: &Producer,
        until: Until,
    ) -> Result<(Encoded, Writer)> {
        let _turn = self.turn.lock();
        let mut writer = self.cache.writer()?;
        output.begin(Blob::from_file(writer.blob_file(), u64::MAX))?;
        let encoded = codec::transcode(plain, encoding, self.workers, &mut writer, &|progress| {
            let (plain, encoded) = (progress.plain, progress.encoded);
            self.reporter.event(Event::Encoded { blob: name.to_owned(), plain, encoded });
            output.announce(&progress);
            if until == Until::Abandoned && output.is_abandoned() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok((encoded, writer))
    }

    /// Keeps an encoded layer. If that fails the push goes on: it only costs the next one.
    pub(crate) fn keep(&self, writer: Writer, encoded: &Encoded, encoding: Encoding) -> Option<Blob> {
        match writer.commit(encoded, encoding) {
            Ok(blob) => Some(blob),
            Err(error) => {
                self.warn(format!("the encoded layer is not kept: {}", chain(&error)));
                None
            }
        }
    }

    /// Tells what the user should know.
    pub(super) fn warn(&self, message: String) {
        self.reporter.event(Event::Warning { message });
    }

    /// Lets other machines have a layer that was encoded here.
    pub(crate) fn share(&self, encoded: &Encoded, encoding: Encoding, blob: Blob) {
        if let Some(shared) = &self.shared {
            shared.give(encoded, encoding, blob);
        }
    }
}
