//! What images look like in the archives and folders that people hand around, one format a file.

mod cosign;
pub mod distribution_storage;
pub mod docker_archive;
pub mod docker_dir;
pub mod hybrid;
pub(super) mod imgpkg;
pub mod nix2container;
pub mod oci_layout;
