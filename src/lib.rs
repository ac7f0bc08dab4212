//! Reads container images from disk and pushes them to any OCI registry.
//!
//! The modules, left to right, each using only what stands left of it:
//!
//! `error ← oci ← event ← blob ← codec ← layout ← {source, cache, registry} ← plan ← push ← {server, cli}`
//!
//! * [`oci`]: pure data (digests, descriptors, manifests, references, platforms);
//! * [`blob`]: bytes by offset; [`codec`]: bytes to bytes; [`layout`]: OCI layouts, folder or archive;
//! * [`source`]: places on disk that hold images; [`cache`]: encoded blobs by diff ID; [`registry`]: the wire;
//! * [`plan`]: what has to be done, decided before anything is; [`push`]: does it;
//! * `server`: the embedded registry.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod blob;
pub mod cache;
pub mod codec;
pub mod error;
pub mod event;
pub mod layout;
pub mod oci;
pub mod plan;
pub mod push;
pub mod registry;
#[cfg(feature = "server")]
pub mod server;
pub mod source;

pub use error::{Error, ErrorKind, Result};
