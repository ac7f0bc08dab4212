//! Reads container images from disk and pushes them to any OCI registry.
//!
//! The modules, left to right, each using only what stands left of it:
//!
//! `error ← lock ← oci ← event ← blob ← codec ← layout ← {source, cache, registry} ← {plan, bucket} ← push ← {server, cli}`
//!
//! * [`oci`]: pure data (digests, descriptors, manifests, references, platforms);
//! * [`blob`]: bytes by offset; [`codec`]: bytes to bytes; [`layout`]: OCI layouts, folder or archive;
//! * [`source`]: places on disk that hold images; [`cache`]: encoded blobs by diff ID; [`registry`]: the wire;
//! * [`plan`]: what has to be done, decided before anything is; [`bucket`]: object storage; [`push`]: does it;
//! * `server`: the embedded registry.
//!
//! A push, here into the embedded registry:
//!
//! ```
//! # #[cfg(feature = "server")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use longshore::{
//!     cache::Cache,
//!     event::{Event, Reporter},
//!     push::{Options, Press, Push, Target, runtime::{Ending, block_on}},
//!     registry::{Client, ClientOptions},
//!     server::{self, Server},
//!     source::detect,
//! };
//!
//! /// Prints what the user should know.
//! struct Warnings;
//!
//! impl Reporter for Warnings {
//!     fn event(&self, event: Event) {
//!         if let Event::Warning { message } = event {
//!             eprintln!("{message}");
//!         }
//!     }
//! }
//!
//! let dir = tempfile::tempdir()?;
//! let ending = block_on(async {
//!     let server = Server::start(server::Options::new(dir.path())).await?;
//!     let host = server.address().to_string();
//!     let spec = "fixtures/docker-archive/podman-save.tar".parse()?;
//!     let push = Push {
//!         input: detect::open(&spec, &detect::SourceOptions::default())?,
//!         spec,
//!         targets: vec![Target {
//!             destination: format!("{host}/demo:1").parse()?,
//!             tags: vec!["latest".to_owned()],
//!             client: Client::new(&host, ClientOptions::default())?,
//!         }],
//!         press: Press::new(Cache::scratch(dir.path()), Arc::new(Warnings)),
//!         options: Options::default(),
//!     };
//!     // Dropping the future stops the push; nothing has been tagged then.
//!     push.run().await
//! })?;
//! let Ending::Finished(pushed) = ending else { return Ok(()) };
//! for pushed in pushed? {
//!     println!("{}", pushed?.digest);
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "server"))]
//! # fn main() {}
//! ```
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod blob;
pub mod bucket;
pub mod cache;
pub mod codec;
pub mod error;
pub mod event;
pub mod layout;
mod lock;
pub mod oci;
pub mod plan;
#[cfg(test)]
#[path = "../tests/support/program.rs"]
mod program;
pub mod push;
pub mod registry;
#[cfg(feature = "server")]
pub mod server;
pub mod source;

pub use error::{Error, ErrorKind, Result};
