//! The storage folder of a distribution registry (Docker's `registry:2` and `registry:3`): tags that link to
//! blobs by digest.
//!
//! Read as it lies there, without the registry; an image is called `repository:tag`. What was uploaded and
//! never tagged is found by its digest alone.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use walkdir::WalkDir;

use crate::{
    blob::Blob,
    error::{Context as _, Error, ErrorKind, Result},
    layout::BLOBS,
    oci::{Descriptor, Digest},
    source::{Choice, Data, Image, ImageContent, Layer, Source, blobs::Blobs},
};

/// What a storage folder holds, and nothing else does.
pub const MARK: &str = "docker/registry/v2";
const REPOSITORIES: &str = "repositories";
/// Below a repository, where its tags are; folders with other names that begin so hold no repositories either.
const TAGS: &str = "_manifests/tags";
/// Below a tag, the file that holds its digest.
const CURRENT: &str = "current/link";
/// A digest has 71 or 135 characters.
const LINK_LIMIT: u64 = 4 << 10;
/// As many as an archive may have entries.
const TAG_LIMIT: usize = 1_000_000;

/// A registry's storage.
#[derive(Debug)]
pub struct DistributionStorage {
    name: String,
    blobs: Blobs,
    images: Vec<Image>,
}

impl DistributionStorage {
    /// Lists the tags in the storage folder `dir`. An image of no tag is listed if `choice` is its digest.
    pub fn open(dir: &Path, choice: &Choice) -> Result<Self> {
        let name = format!("registry storage `{}`", dir.display());
        Self::read(&dir.join(MARK), choice, &name)
            .map_err(|error| error.while_doing(format!("reading {name}")))
    }

    fn read(dir: &Path, choice: &Choice, name: &str) -> Result<Self> {
        let blobs = Blobs::new(dir.join(BLOBS), place);
        let mut images = Vec::new();
        for (repository, path) in repositories(&dir.join(REPOSITORIES))? {
            for tag in folders(&path.join(TAGS))? {
                let Some(digest) = link(&path.join(TAGS).join(&tag).join(CURRENT))? else { continue };
                images.push(Image::new(
                    vec![format!("{repository}:{tag}")],
                    ImageContent::Manifest(blobs.describe(&digest)?),
                ));
                if images.len() > TAG_LIMIT {
                    return Err(Error::source(format!("it is over the limit of {TAG_LIMIT} tags")));
                }
            }
        }
        if let Choice::Digest(digest) = choice
            && blobs.size(digest)?.is_some()
        {
            images
                .push(Image::new(vec![digest.to_string()], ImageContent::Manifest(blobs.describe(digest)?)));
        }
        Ok(Self { name: name.to_owned(), blobs, images })
    }
}

impl Source for DistributionStorage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.blobs.document(descriptor)
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        self.blobs.open(layer, &self.name)
    }
}

/// Returns where a blob lies: `sha256/<its first two digits>/<hex>/data`.
fn place(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    [digest.algorithm().name(), &hex[..2], hex, "data"].iter().collect()
}

/// Finds the repositories below a folder, which may lie within each other, in the order of their names.
fn repositories(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let of_registry = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"_");
    let walk = WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| entry.file_type().is_dir() && !of_registry(entry.file_name())) {
        let entry = entry.context(ErrorKind::Source, || "looking for repositories".into())?;
        let name = entry.path().strip_prefix(dir).ok().and_then(Path::to_str);
        if let Some(name) = name
            && entry.path().join(TAGS).is_dir()
        {
            found.push((name.to_owned(), entry.into_path()));
        }
    }
    Ok(found)
}

/// Returns the names of the folders in a folder.
fn folders(dir: &Path) -> Result<Vec<String>> {
    let entries = fs_err::read_dir(dir).context(ErrorKind::Source, || "looking for tags".into())?;
    let entries: Vec<_> =
        entries.collect::<io::Result<_>>().context(ErrorKind::Source, || "looking for tags".into())?;
    let mut names: Vec<String> =
        entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Reads the digest that a link holds. A tag that is being deleted has none.
fn link(path: &Path) -> Result<Option<Digest>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = Blob::open(path)?.read_all(LINK_LIMIT, &format!("`{}`", path.display()))?;
    let digest = String::from_utf8_lossy(&text).trim_end().parse();
    digest.map(Some).map_err(|error: Error| error.while_doing(format!("reading `{}`", path.display())))
}
