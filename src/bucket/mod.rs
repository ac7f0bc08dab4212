//! Object storage: a place for objects that many machines can reach, at S3, Google Cloud Storage or Azure.
//!
//! The shared cache of `push` lies in one, and the embedded registry can. How an address becomes a bucket, what lets us
//! in, how long it is waited for and what its failures are called is here and nowhere else. It takes the feature
//! `buckets`: without it nothing can be opened, and whoever tries is told so.

#[cfg_attr(not(feature = "buckets"), path = "absent.rs")]
mod present;

pub use present::Bucket;
#[cfg(all(feature = "buckets", feature = "server"))]
pub(crate) use present::failed;
