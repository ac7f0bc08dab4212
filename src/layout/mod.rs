//! OCI image layouts: the names of their parts, read from a folder or from an archive, and written.
//!
//! Shared by whoever deals in layouts: the sources read them, the cache and the embedded registry are some.

pub mod archive;
pub mod left_out;
pub mod merge;
pub mod output;
pub mod parts;
pub mod read;
pub mod write;

/// The file that says that a folder is a layout.
pub const OCI_LAYOUT: &str = "oci-layout";
/// The list of what the layout holds.
pub const INDEX: &str = "index.json";
/// The folder of blobs.
pub const BLOBS: &str = "blobs";
/// What [`OCI_LAYOUT`] holds.
pub const OCI_LAYOUT_CONTENT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation that holds a tag or a full name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that holds a full name, where containerd wrote the layout.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
