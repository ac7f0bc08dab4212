//! containerd's own storage, read without containerd: blobs by digest, and names from its database.
//!
//! The content store holds manifests as registries gave them, so they are pushed as they are. A pull fetches
//! the manifests of one platform out of many, and some clusters drop layers once they are unpacked: children
//! and layers that are missing are normal here. Snapshots are never looked at, for they do not give the bytes
//! of a layer back.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::bolt::{self, Bucket, Database};
use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::{BLOBS, read},
    oci::{Descriptor, Digest, Repository},
    source::{
        Choice, Data, Image, ImageContent, Layer, Missing, Origin, Source, blobs::Blobs, names::is_called,
    },
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
/// A label's key begins so where its value says which repositories of a registry have had a blob; the registry's
/// host follows, without its port.
const ORIGIN: &[u8] = b"containerd.io/distribution.source.";
/// The namespace in which Docker lets containerd keep images, before each name.
const OF_DOCKER: &str = "moby/";
/// So begins what Docker calls an image that has no name any more (gh:moby/moby `danglingImageName`).
const UNNAMED: &str = "moby-dangling@";

/// A containerd root.
#[derive(Debug)]
pub struct Containerd {
    name: String,
    blobs: Blobs,
    images: Vec<Image>,
    origins: Origins,
}

/// The repositories that have had a blob, by its digest.
pub type Origins = HashMap<Digest, Vec<Repository>>;

impl Containerd {
    /// Returns whether a folder is a containerd root or the content store of one.
    pub fn is_root(dir: &Path) -> bool {
        dir.join(CONTENT).is_dir() || (dir.join(BLOBS).is_dir() && dir.join(INGEST).is_dir())
    }

    /// Returns the blobs in the root `dir`, or in the content store that `dir` is.
    pub(super) fn blobs(dir: &Path) -> Blobs {
        let content = dir.join(CONTENT);
        Blobs::by_algorithm(if content.is_dir() { content } else { dir.to_owned() }.join(BLOBS))
    }

    /// Reads the names in the root `dir`. An image of no name is listed if `choice` is its digest.
    pub fn open(dir: &Path, choice: &Choice) -> Result<Self> {
        Self::read(dir, choice, "")
    }

    /// Reads the names of what Docker keeps there.
    pub(super) fn of_docker(dir: &Path, choice: &Choice) -> Result<Self> {
        Self::read(dir, choice, OF_DOCKER)
    }

    fn read(dir: &Path, choice: &Choice, prefix: &str) -> Result<Self> {
        let name = format!("containerd's storage `{}`", dir.display());
        let read = Self::read_as(&name, dir, choice, prefix);
        read.map_err(|error| error.while_doing(format!("reading {name}")))
    }

    fn read_as(name: &str, dir: &Path, choice: &Choice, prefix: &str) -> Result<Self> {
        let blobs = Self::blobs(dir);
        let (mut images, origins) = match read::open_at(&dir.join(DATABASE))? {
            Some(_) => bolt::snapshot(|| Blob::open(&dir.join(DATABASE)), contents)?,
            None => (Vec::new(), Origins::new()),
        };
        images.retain(|image| image.names.iter().any(|name| name.starts_with(prefix)));
        shorten(&mut images, choice);
        let asked = match choice {
            Choice::Digest(digest) => Some(digest.clone()),
            Choice::Name(name) => name.parse().ok(),
            Choice::Index(_) | Choice::Only => None,
        };
        if let Some(digest) = asked
            && !images.iter().any(|image| is_meant(image, &digest))
            && blobs.size(&digest)?.is_some()
        {
            images
                .push(Image::new(vec![digest.to_string()], ImageContent::Manifest(blobs.describe(&digest)?)));
        }
        Ok(Self { name: name.to_owned(), blobs, images, origins })
    }

    /// Returns whether there are any images.
    pub(super) const fn is_empty(&self) -> bool {
        self.images.is_empty()
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
        self.blobs.document(descriptor)
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        self.blobs.open(layer, &self.name).map_err(|error| {
            if !Missing::is_cause_of(&error) {
                return error;
            }
            error.with_hint(
                "containerd may drop layers once they are unpacked (`discard_unpacked_layers`) or never fetch \
                 them (lazy pulls): `ctr content fetch IMAGE` gets them",
            )
        })
    }

    fn origins(&self, blob: &Layer) -> Vec<Origin> {
        let digest = blob.descriptor.iter().map(|descriptor| &descriptor.digest);
        let known = digest.filter_map(|digest| self.origins.get_key_value(digest));
        known
            .map(|(digest, repositories)| Origin {
                digest: digest.clone(),
                repositories: repositories.clone(),
            })
            .collect()
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

/// Lists the images of all namespaces, `v1/<namespace>/images/<name>/target/{digest,mediatype,size}`, and where
/// their blobs came from, `v1/<namespace>/content/blob/<digest>/labels/<key>`.
pub fn contents(database: &Database) -> Result<(Vec<Image>, Origins)> {
    let (mut images, mut origins) = (Vec::new(), Origins::new());
    database.within(database.root(), SCHEMA, &mut |schema| {
        database.buckets(schema, |namespace, bucket| {
            database.buckets(bucket, |kind, bucket| match kind {
                b"images" => named(database, bucket, namespace, &mut images),
                b"content" => {
                    database.within(bucket, b"blob", &mut |blobs| labels(database, blobs, &mut origins))
                }
                _ => Ok(()),
            })
        })
    })?;
    Ok((images, origins))
}

/// Collects where blobs came from. What is no digest or no repository is nobody's hint.
fn labels(database: &Database, blobs: Bucket<'_>, origins: &mut Origins) -> Result<()> {
    database.buckets(blobs, |digest, blob| {
        let Some(digest) = text(digest).ok().and_then(|digest| digest.parse::<Digest>().ok()) else {
            return Ok(());
        };
        database.within(blob, b"labels", &mut |labels| {
            database.values(labels, |key, value| {
                if let Some(host) = key.strip_prefix(ORIGIN)
                    && let (Ok(host), Ok(paths)) = (text(host), text(value))
                {
                    let found = paths.split(',').filter_map(|path| Repository::new(host, path).ok());
                    origins.entry(digest.clone()).or_default().extend(found);
                }
                Ok(())
            })
        })
    })
}

fn named(database: &Database, bucket: Bucket<'_>, namespace: &[u8], images: &mut Vec<Image>) -> Result<()> {
    database.buckets(bucket, |name, bucket| {
        let (namespace, name) = (text(namespace)?, text(name)?);
        database.within(bucket, b"target", &mut |bucket| {
            let target = target(database, bucket)
                .map_err(|error| error.while_doing(format!("reading the image `{}`", name.escape_debug())))?;
            let found = Image::new(
                vec![name.to_owned(), format!("{namespace}/{name}")],
                ImageContent::Manifest(target),
            );
            images.push(Image { companion: name.starts_with(UNNAMED), ..found });
            Ok(())
        })?;
        if images.len() > IMAGE_LIMIT {
            return Err(Error::source(format!("the storage is over the limit of {IMAGE_LIMIT} images")));
        }
        Ok(())
    })
}

fn target(database: &Database, bucket: Bucket<'_>) -> Result<Descriptor> {
    let (mut digest, mut media_type, mut size) = (None, None, None);
    database.values(bucket, |key, value| {
        match key {
            b"digest" => digest = Some(text(value)?.parse::<Digest>()?),
            b"mediatype" => media_type = Some(text(value)?.to_owned()).filter(|text| !text.is_empty()),
            b"size" => size = varint(value),
            _ => {}
        }
        Ok(())
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

/// Leaves out the names with a namespace, unless only they tell two images apart, or one of them is asked for: nobody
/// means a repository by them.
fn shorten(images: &mut [Image], choice: &Choice) {
    let mut of_name: HashMap<String, HashSet<Digest>> = HashMap::new();
    for image in images.iter() {
        of_name.entry(image.names[0].clone()).or_default().insert(image.identity());
    }
    for image in images {
        let full = image.names.split_off(1);
        let is_asked_for = matches!(choice, Choice::Name(asked) if is_called(&full, asked));
        if is_asked_for || of_name.get(&image.names[0]).is_some_and(|images| images.len() > 1) {
            image.names.extend(full);
        }
    }
}

fn is_meant(image: &Image, digest: &Digest) -> bool {
    let ImageContent::Manifest(target) = &image.content else { return false };
    target.digest == *digest || image.names.contains(&digest.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

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
    fn a_namespace_is_named_where_it_is_needed() {
        let listed = |images: &[(&str, &str, &str)], choice: &Choice| -> Vec<String> {
            let mut images: Vec<_> = images
                .iter()
                .map(|(namespace, name, content)| {
                    let target = Descriptor::new("x", Digest::of(content.as_bytes()), 1);
                    Image::new(
                        vec![(*name).to_owned(), format!("{namespace}/{name}")],
                        ImageContent::Manifest(target),
                    )
                })
                .collect();
            shorten(&mut images, choice);
            images.into_iter().map(|image| image.names.join(" ")).collect()
        };
        let same = [("k8s.io", "r/a:1", "one"), ("default", "r/a:1", "one"), ("default", "r/b:1", "two")];
        assert_eq!(listed(&same, &Choice::Only), ["r/a:1", "r/a:1", "r/b:1"]);
        for asked in ["default/r/b:1", "docker.io/default/r/b:1"] {
            assert_eq!(listed(&same[2..], &Choice::Name(asked.into())), ["r/b:1 default/r/b:1"], "{asked}");
        }
        let other = [("k8s.io", "r/a:1", "one"), ("default", "r/a:1", "other")];
        assert_eq!(listed(&other, &Choice::Only), ["r/a:1 k8s.io/r/a:1", "r/a:1 default/r/a:1"]);
    }

    #[test]
    fn what_was_fetched_says_from_where() {
        let packed = include_bytes!("../../../fixtures/stores/containerd16-fetched.meta.db.gz");
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join(CONTENT).join(BLOBS)).unwrap();
        let database = dir.path().join(DATABASE);
        fs_err::create_dir(database.parent().unwrap()).unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        fs_err::write(&database, unpacked).unwrap();
        let root = Containerd::open(dir.path(), &Choice::Only).unwrap();
        let names: Vec<_> = root.images().unwrap().into_iter().map(|image| image.names.join(" ")).collect();
        let manifest = "sha256:0c3dbe6979c0c03af9e9600ce43da43e1ad9cc357241d42ed253f0e9b76e099a";
        assert_eq!(
            names,
            [
                "127.0.0.1:5931/base/image:1",
                "127.0.0.1:5931/own/copy:1",
                "127.0.0.1:5931/base/image:1",
                &format!("moby-dangling@{manifest}"),
            ]
        );
        let layer = "sha256:d2fd77eae45375b4db129e2a81fa56e395c000ef536ddd996b63354448302874";
        for digest in [manifest, layer] {
            let blob = Layer::named(&Descriptor::new("x", digest.parse().unwrap(), 0));
            let [origin] = root.origins(&blob).try_into().unwrap();
            assert_eq!(origin.digest.to_string(), digest);
            let repositories: Vec<_> = origin.repositories.iter().map(Repository::to_string).collect();
            // Both of one namespace, and the one of the other.
            assert_eq!(repositories, ["127.0.0.1/base/image", "127.0.0.1/own/copy", "127.0.0.1/base/image"]);
        }
        assert!(root.origins(&Layer::named(&Descriptor::new("x", Digest::of(b""), 0))).is_empty());
        let docker = Containerd::of_docker(dir.path(), &Choice::Only).unwrap();
        let companions: Vec<bool> = docker.images.iter().map(|image| image.companion).collect();
        assert_eq!(companions, [false, true]);
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
