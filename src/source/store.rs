//! What podman's storage and Docker's have in common: where they are, and small files that belong to somebody else.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::spec::Location;
use crate::{
    blob::Blob,
    error::{Error, Result},
};

/// Where this machine keeps its images, as its configuration says.
#[derive(Clone, Debug, Default)]
pub struct StorageOptions {
    /// podman's storage.
    pub graphroot: Option<PathBuf>,
    /// What podman forgets at the next boot.
    pub runroot: Option<PathBuf>,
    /// podman's driver; without it, the one that has images.
    pub driver: Option<String>,
    /// A place for podman's images apart from its containers.
    pub image_store: Option<PathBuf>,
    /// Stores whose images and layers podman uses as well, read-only.
    pub additional_stores: Vec<PathBuf>,
    /// Folders that may be Docker's, the likeliest first.
    pub docker_roots: Vec<PathBuf>,
}

impl StorageOptions {
    /// Takes what `location` says for what the configuration does.
    pub(super) fn at(mut self, location: &Location) -> Self {
        let Location::Storage { root, runroot, driver, options } = location else { return self };
        if let Some(root) = root {
            // What the configuration says of its own store says nothing about this one.
            (self.graphroot, self.runroot) = (Some(root.clone()), None);
            (self.driver, self.image_store) = (None, None);
            self.docker_roots = vec![root.clone()];
        }
        self.runroot = runroot.clone().or(self.runroot);
        self.driver = driver.clone().or(self.driver);
        if let Some(options) = options {
            self.additional_stores = additional_stores(options).map(PathBuf::from).collect();
        }
        self
    }
}

/// Returns the stores that options of drivers add: `overlay.imagestore=/path`, between commas.
pub(super) fn additional_stores(options: &str) -> impl Iterator<Item = &str> {
    options.split(',').filter_map(|option| {
        let (key, path) = option.trim().split_once('=')?;
        let key = key.rsplit('.').next()?;
        matches!(key, "imagestore" | "additionalimagestore").then_some(path)
    })
}

/// Opens a file of `store`; nothing if there is none.
pub(super) fn open(path: &Path, store: &Path) -> Result<Option<Blob>> {
    let opened = Blob::open(path);
    match opened.as_ref().err().and_then(|error| error.find::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Ok(None),
        Some(io::ErrorKind::PermissionDenied) => Err(denied(&format!("`{}`", path.display()), store)),
        _ => opened.map(Some),
    }
}

/// Reads a small file of `store`; nothing if there is none.
pub(super) fn read(path: &Path, limit: u64, store: &Path) -> Result<Option<Vec<u8>>> {
    let opened = open(path, store)?;
    opened.map(|blob| blob.read_all(limit, &format!("`{}`", path.display()))).transpose()
}

/// Says that something in `store` may not be read, and who may.
pub(super) fn denied(what: &str, store: &Path) -> Error {
    let us = rustix::process::geteuid().as_raw();
    // In a store of one's own, files of the images' other users belong to subordinate users.
    let own = us != 0 && fs_err::metadata(store).is_ok_and(|metadata| metadata.uid() == us);
    Error::local(format!("{what} may not be read: permission denied")).with_hint(if own {
        "read it as the users of your images: `podman unshare longshore push …`"
    } else {
        "read it as the user to whom the storage belongs: `sudo longshore push …`"
    })
}
