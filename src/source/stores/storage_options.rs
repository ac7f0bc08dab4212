//! Where podman and Docker keep their images, as the configuration of this machine says or whoever typed SOURCE.
//!
//! What was typed counts for more, and a folder that was named has nothing to do with what is said of this machine's own.
//! Nothing is looked at here.

use std::path::PathBuf;

use crate::source::spec::Location;

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
    /// Takes a folder for the storage. What the configuration says of its own says nothing about this one.
    pub(in crate::source) fn in_folder(self, root: PathBuf) -> Self {
        Self {
            docker_roots: vec![root.clone()],
            graphroot: Some(root),
            runroot: None,
            driver: None,
            image_store: None,
            ..self
        }
    }

    /// Takes what `location` says for what the configuration does.
    pub(in crate::source) fn at(mut self, location: &Location) -> Self {
        let Location::Storage { root, runroot, driver, options } = location else { return self };
        if let Some(root) = root {
            self = self.in_folder(root.clone());
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
