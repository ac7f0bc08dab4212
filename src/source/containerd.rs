//! containerd's own storage, read without containerd: blobs by digest, and names from its database.
//!
//! The content store holds manifests as registries gave them, so they are pushed as they are. A pull fetches
//! the manifests of one platform out of many, and some clusters drop layers once they are unpacked: children
//! and layers that are missing are normal here. Snapshots are never looked at, for they do not give the bytes
//! of a layer back.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    Choice, Data, Image, ImageContent, Layer, Missing, Source,
    blobs::{self, Blobs},
    bolt::{self, Bucket, Database, Item},
};
use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::{BLOBS, read},
    oci::{Descriptor, Digest},
};

/// Where a root keeps blobs.
const CONTENT: &str = "io.containerd.content.v1.content";
/// Where a root keeps names.
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
/// Where downloads lie until they are whole.
const INGEST: &str = "ingest";
/// The version of the database's schema: the bucket that holds all others.
const SCHEMA: &[u8] = b"v1";
/// A node has hundreds.
const IMAGE_LIMIT: usize = 1_000_000;

/// A containerd root.
#[derive(Debug)]
pub struct Containerd {
    name: String,
    blobs: Blobs,
    images: Vec<Image>,
}

impl Containerd {
    /// Returns whether a folder is a containerd root or the content store of one.
    pub fn is_root(dir: &Path) -> bool {
        dir.join(CONTENT).is_dir() || (dir.join(BLOBS).is_dir() && dir.join(INGEST).is_dir())
    }

    /// Reads the names in the root `dir`. An image of no name is listed if `choice` is its digest.
    pub fn open(dir: &Path, choice: &Choice) -> Result<Self> {
        let name = format!("containerd's storage `{}`", dir.display());
        Self::read(dir, choice, &name).map_err(|error| error.while_doing(format!("reading {name}")))
    }

    fn read(dir: &Path, choice: &Choice, name: &str) -> Result<Self> {
        let content = dir.join(CONTENT);
        let content = if content.is_dir() { content } else { dir.to_owned() };
        let blobs = Blobs::by_algorithm(&content.join(BLOBS));
        let mut images = match read::open_at(&dir.join(DATABASE))? {
            Some(_) => bolt::snapshot(|| Blob::open(&dir.join(DATABASE)), images)?,
            None => Vec::new(),
        };
        let asked = match choice {
            Choice::Digest(digest) => Some(digest.clone()),
            Choice::Name(name) => name.parse().ok(),
            Choice::Index(_) | Choice::Only => None,
        };
        if let Some(digest) = asked
            && !images.iter().any(|image| is_meant(image, &digest))
            && blobs.size(&digest)?.is_some()
        {
            images.push(image(vec![digest.to_string()], blobs.describe(&digest)?));
        }
        Ok(Self { name: name.to_owned(), blobs, images })
    }
}

impl Source for Containerd {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        if self.images.is_empty() {
            return Err(Error::source(format!("{} has no names of images", self.name))
                .with_hint("choose by digest: `@sha256:…`"));
        }
        Ok(self.images.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        blobs::document(descriptor, |descriptor| self.blobs.find(descriptor))
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        self.blobs.open(layer, &self.name).map_err(|error| {
            if error.find::<Missing>().is_none() {
                return error;
            }
            error.with_hint(
                "containerd may drop layers once they are unpacked (`discard_unpacked_layers`) or never fetch \
                 them (lazy pulls): `ctr content fetch IMAGE` gets them",
            )
        })
    }
}

/// Returns the folders in which containerd keeps its storage where it was installed for the whole machine: by
/// itself, by k3s, by MicroK8s, and by Docker.
pub fn system_roots() -> Vec<PathBuf> {
    [
        "/var/lib/containerd",
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/snap/microk8s/common/var/lib/containerd",
        "/var/lib/docker/containerd/daemon",
    ]
    .map(PathBuf::from)
    .into()
}

/// Lists the images of all namespaces: `v1/<namespace>/images/<name>/target/{digest,mediatype,size}`.
pub fn images(database: &Database) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    database.within(database.root(), SCHEMA, &mut |schema| {
        database.visit(schema, &mut |namespace, item| {
            if let Item::Bucket(bucket) = item {
                database.within(bucket, b"images", &mut |bucket| {
                    named(database, bucket, namespace, &mut images)
                })?;
            }
            Ok(ControlFlow::Continue(()))
        })
    })?;
    Ok(images)
}

fn named(database: &Database, bucket: Bucket<'_>, namespace: &[u8], images: &mut Vec<Image>) -> Result<()> {
    database.visit(bucket, &mut |name, item| {
        let Item::Bucket(bucket) = item else { return Ok(ControlFlow::Continue(())) };
        let (namespace, name) = (text(namespace)?, text(name)?);
        database.within(bucket, b"target", &mut |bucket| {
            let target = target(database, bucket)
                .map_err(|error| error.while_doing(format!("reading the image `{}`", name.escape_debug())))?;
            images.push(image(vec![name.to_owned(), format!("{namespace}/{name}")], target));
            Ok(())
        })?;
        if images.len() > IMAGE_LIMIT {
            return Err(Error::source(format!("the storage is over the limit of {IMAGE_LIMIT} images")));
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn target(database: &Database, bucket: Bucket<'_>) -> Result<Descriptor> {
    let (mut digest, mut media_type, mut size) = (None, None, None);
    database.visit(bucket, &mut |key, item| {
        if let Item::Value(value) = item {
            match key {
                b"digest" => digest = Some(text(value)?.parse::<Digest>()?),
                b"mediatype" => media_type = Some(text(value)?.to_owned()).filter(|text| !text.is_empty()),
                b"size" => size = varint(value),
                _ => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let (Some(digest), Some(size)) = (digest, size) else {
        return Err(Error::source("it has no digest or no size"));
    };
    Ok(Descriptor { media_type, ..Descriptor::new("", digest, size) })
}

/// Reads a number as Go's encoding/binary writes it: seven bits a byte, low ones first, its sign in the lowest.
fn varint(bytes: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (number & 1 == 0).then_some(number >> 1);
        }
    }
    None
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::source("the database holds a name that is no text").because(error))
}

fn is_meant(image: &Image, digest: &Digest) -> bool {
    let ImageContent::Manifest(target) = &image.content else { return false };
    target.digest == *digest || image.names.contains(&digest.to_string())
}

fn image(names: Vec<String>, target: Descriptor) -> Image {
    Image { names, platform: None, content: ImageContent::Manifest(target), companion: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_go_writes_them() {
        for (bytes, number) in [
            (&[0][..], Some(0)),
            (&[2], Some(1)),
            (&[0xb6, 0x07], Some(475)),
            (&[0x80, 0xa8, 0x12], Some(150_016)),
            (&[1], None),
            (&[0x80], None),
            (&[0xff; 12], None),
            (&[], None),
        ] {
            assert_eq!(varint(bytes), number, "{bytes:?}");
        }
    }

    #[test]
    fn a_root_is_told_by_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Containerd::is_root(dir.path()));
        fs_err::create_dir(dir.path().join(BLOBS)).unwrap();
        assert!(!Containerd::is_root(dir.path()));
        fs_err::create_dir(dir.path().join(INGEST)).unwrap();
        assert!(Containerd::is_root(dir.path()));
        let empty = Containerd::open(dir.path(), &Choice::Only).unwrap();
        assert!(empty.images().unwrap_err().hints()[0].contains("digest"));
        let layer = Layer::named(&Descriptor::new("x", Digest::of(b""), 0));
        let error = empty.open(&layer).unwrap_err();
        assert!(error.hints()[0].contains("discard_unpacked_layers"), "{error:?}");
    }
}
