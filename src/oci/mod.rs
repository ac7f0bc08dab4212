//! Pure data: what the OCI specifications and Docker's older ones call things. No I/O.

pub mod config;
pub mod descriptor;
pub mod digest;
mod go_json;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod rewrite;

pub use config::ImageConfig;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, DiffId, Digest, Hasher};
pub use manifest::{Content, Manifest};
pub use platform::Platform;
pub use reference::{Reference, Repository};
