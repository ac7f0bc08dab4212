//! Docker's images, wherever Docker keeps them: in its own storage, in the containerd that it starts for itself
//! beneath its root, or in the machine's.
//!
//! Docker uses one of them at a time, and nothing on disk says which: whoever changed from one to the other finds
//! the images of both here. A name that means two images is then ambiguous, as it is anywhere else.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{check_readable, containerd::Containerd, docker_storage::DockerStorage};
use crate::{
    error::{Error, Result},
    oci::Descriptor,
    source::{Choice, Data, Image, Layer, Origin, Source},
};

/// Where beneath its root Docker's own containerd keeps its storage.
const DAEMON: &str = "containerd/daemon";

/// A root with images in both places.
#[derive(Debug)]
pub struct DockerRoot {
    own: DockerStorage,
    containerd: Containerd,
}

impl DockerRoot {
    /// Returns whether a folder is a root with images.
    pub fn is_at(dir: &Path) -> bool {
        DockerStorage::find(dir).is_some() || Containerd::is_root(&dir.join(DAEMON))
    }

    /// Reads the first of Docker's `roots` that is one, and the first place of containerd's that has images of
    /// Docker's: beneath these roots, or among `elsewhere`.
    pub fn open(roots: &[PathBuf], elsewhere: &[PathBuf], choice: &Choice) -> Result<Box<dyn Source>> {
        let daemons = roots.iter().map(|dir| dir.join(DAEMON)).chain(elsewhere.iter().cloned());
        let daemons: Vec<PathBuf> = daemons.filter(|dir| Containerd::is_root(dir)).collect();
        let own = roots.iter().find_map(|dir| DockerStorage::find(dir));
        let own = own.map(|root| DockerStorage::open(root, &daemons)).transpose()?;
        let own = own.filter(|own| !own.is_empty());
        // What has no name there may be anything that Docker keeps for an image of its own.
        let choice = if own.is_some() { &Choice::Only } else { choice };
        let has_images = |read: &Result<Containerd>| read.as_ref().map_or(true, |read| !read.is_empty());
        let mut read = daemons.iter().map(|dir| Containerd::of_docker(dir, choice));
        let containerd = read.find(has_images).transpose()?;
        match (own, containerd) {
            (Some(own), Some(containerd)) => Ok(Box::new(Self { own, containerd })),
            (Some(own), None) => Ok(Box::new(own)),
            (None, Some(containerd)) => Ok(Box::new(containerd)),
            (None, None) => Err(not_found(roots)),
        }
    }

    /// What has a descriptor is named by a manifest, which only containerd keeps.
    fn holder(&self, blob: &Layer) -> &dyn Source {
        if blob.descriptor.is_some() { &self.containerd } else { &self.own }
    }
}

impl Source for DockerRoot {
    fn name(&self) -> String {
        self.own.name()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok([self.containerd.images()?, self.own.images()?].concat())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.containerd.document(descriptor)
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        self.holder(layer).open(layer)
    }

    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        self.holder(blob).origins(blob)
    }

    fn plain_size(&self, layer: &Layer) -> Option<u64> {
        self.holder(layer).plain_size(layer)
    }
}

fn not_found(roots: &[PathBuf]) -> Error {
    let there: Vec<&PathBuf> = roots.iter().filter(|root| root.try_exists().unwrap_or(true)).collect();
    let Some(first) = there.first() else {
        return Error::usage("this machine has no storage of Docker's where it usually is")
            .with_hint("name the folder: `docker-storage:[/var/lib/docker]NAME`");
    };
    there.iter().find_map(|root| check_readable(root).err()).unwrap_or_else(|| {
        Error::source(format!("Docker's storage `{}` holds no images", first.display())).with_hint(
            "where Docker keeps them in the machine's containerd, read that: `containerd:moby/NAME`",
        )
    })
}
