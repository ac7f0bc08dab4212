//! Stands in where Longshore is built without the feature `buckets`: there is no bucket, and whoever asks for one is told
//! so.

use std::convert::Infallible;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    blob::Blob,
    error::{Error, Result},
    registry::Secret,
};

/// A place for objects that many machines can reach: none in this build.
#[derive(Clone, Debug)]
pub struct Bucket(Infallible);

impl Bucket {
    /// Says that it cannot be done.
    pub fn open(_: &str, _: &[(String, Secret)]) -> Result<Self> {
        Err(Error::usage("this longshore was built without object storage")
            .with_hint("build it with `--features buckets`"))
    }

    /// Sets how long a question may take, and how long a transfer may stand still.
    #[must_use]
    pub fn with_patience(self, _: std::time::Duration) -> Self {
        match self.0 {}
    }

    /// Stands for anything that would be done with one.
    #[cfg(feature = "server")]
    pub(crate) const fn never<T>(&self) -> T {
        match self.0 {}
    }

    pub(crate) fn name(&self) -> &str {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as in present.rs")]
    pub(crate) async fn in_time<T>(&self, _: impl Future<Output = Result<T>>) -> Result<T> {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as in present.rs")]
    pub(crate) async fn read(&self, _: &str, _: u64) -> Result<Option<Bytes>> {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as in present.rs")]
    pub(crate) async fn download(&self, _: &str, _: u64, _: mpsc::Sender<Result<Bytes>>) {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as in present.rs")]
    pub(crate) async fn put(&self, _: &str, _: Bytes) -> Result<()> {
        match self.0 {}
    }

    #[expect(clippy::unused_async, reason = "as in present.rs")]
    pub(crate) async fn put_blob(&self, _: &str, _: &Blob) -> Result<()> {
        match self.0 {}
    }
}
