//! What tests lean on: a registry that misbehaves on demand, a real one, skopeo, podman, the samples, the binary.

pub(crate) mod capability;
pub(crate) mod cases;
pub(crate) mod docker_registry;
pub(crate) mod log;
pub(crate) mod longshore;
pub(crate) mod nginx;
pub(crate) mod podman;
pub(crate) mod port;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod read_back;
pub(crate) mod registry;
pub(crate) mod relay;
#[cfg(feature = "buckets")]
pub(crate) mod s3;
pub(crate) mod same;
pub(crate) mod samples;
pub(crate) mod scripts;
pub(crate) mod serve;
pub(crate) mod skopeo;
pub(crate) mod small_disk;
pub(crate) mod tmux;
pub(crate) mod token_server;
pub(crate) mod tool;
pub(crate) mod tree;
pub(crate) mod until;
