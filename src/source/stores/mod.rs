//! Images where podman, buildah, CRI-O, Docker and containerd keep them on a machine, read without these tools.
//!
//! The files belong to somebody else, who may change them meanwhile, or not let us read them.

pub mod bolt;
pub mod containerd;
pub mod containers_storage;
pub mod docker_root;
pub mod docker_storage;
mod graphroot;
pub mod payload;
mod podman_lock;
pub mod storage_conf;
mod storage_options;
pub mod tar_split;

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

pub use self::storage_options::StorageOptions;
use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::read::open_at,
};

/// Opens a file of `store`; nothing if there is none.
fn open(path: &Path, store: &Path) -> Result<Option<Blob>> {
    open_at(path).map_err(|error| match error.find::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => denied(&format!("`{}`", path.display()), store),
        _ => error,
    })
}

/// Reads a small file of `store`; nothing if there is none.
fn read(path: &Path, limit: u64, store: &Path) -> Result<Option<Vec<u8>>> {
    let opened = open(path, store)?;
    opened.map(|blob| blob.read_all(limit, &format!("`{}`", path.display()))).transpose()
}

/// Returns an error for a folder that may not be looked into: it looks empty.
fn check_readable(dir: &Path) -> Result<()> {
    match fs_err::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(denied(&format!("`{}`", dir.display()), dir))
        }
        _ => Ok(()),
    }
}

/// Says that something in `store` may not be read, and who may.
fn denied(what: &str, store: &Path) -> Error {
    let us = rustix::process::geteuid().as_raw();
    // In a store of one's own, files of the images' other users belong to subordinate users.
    let own = us != 0 && fs_err::metadata(store).is_ok_and(|metadata| metadata.uid() == us);
    Error::local(format!("{what} may not be read: permission denied")).with_hint(if own {
        "read it as the users of your images: `podman unshare longshore push …`"
    } else {
        "read it as the user to whom the storage belongs: `sudo longshore push …`"
    })
}
