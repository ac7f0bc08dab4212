//! Integration tests, one binary of them all: it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod architecture;
mod bad_images;
mod bundle;
mod caching;
mod companions;
mod configuration;
mod conformance;
mod contract;
mod differential;
mod doctor;
mod documents;
mod dry_run;
mod fault_registry;
mod file_trees;
mod if_exists;
mod index;
mod inspect;
mod list;
mod mirror;
mod ocipkg_images;
mod on_disk;
mod packaging;
mod progress;
mod real_images;
mod real_servers;
mod results;
mod serve;
mod summary;
mod survives;
mod wire;
mod words;
