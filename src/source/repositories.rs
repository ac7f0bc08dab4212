//! A folder of OCI layouts, one a repository, as zot and the embedded registry keep them.
//!
//! An image is called `repository:tag`. Blobs are found by digest in whichever layout has them: registries share
//! them by hard links.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use walkdir::WalkDir;

use super::{Data, Image, Layer, Missing, Source, oci_layout::OciLayout};
use crate::{
    error::{Error, Result},
    layout::{BLOBS, INDEX, OCI_LAYOUT},
    oci::Descriptor,
};

/// So many folders are looked at: enough for a registry, and quick for whoever names his home by mistake.
const FOLDER_LIMIT: usize = 20_000;
/// Repository names rarely have more than three parts.
const DEPTH_LIMIT: usize = 8;

/// A folder of layouts.
#[derive(Debug)]
pub struct Repositories {
    name: String,
    layouts: Vec<OciLayout>,
    images: Vec<Image>,
}

impl Repositories {
    /// Finds the layouts below `dir`; none if there are none.
    pub fn open(dir: &Path) -> Result<Option<Self>> {
        let mut repositories = Self {
            name: format!("folder of OCI layouts `{}`", dir.display()),
            layouts: Vec::new(),
            images: Vec::new(),
        };
        for path in layouts(dir) {
            let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
            let layout = OciLayout::folder(&path, None)?;
            repositories.images.extend(layout.images()?.into_iter().map(|image| named(name, image)));
            repositories.layouts.push(layout);
        }
        Ok(Some(repositories).filter(|found| !found.layouts.is_empty()))
    }

    /// Returns what the first layout that has it makes of something.
    fn first<T>(&self, what: impl Fn(&OciLayout) -> Result<T>) -> Result<T> {
        let mut missing = Error::source("there are no layouts");
        for layout in &self.layouts {
            match what(layout) {
                Err(error) if error.find::<Missing>().is_some() => missing = error,
                found => return found,
            }
        }
        Err(missing)
    }
}

impl Source for Repositories {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        Ok(self.images.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.first(|layout| layout.document(descriptor))
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        self.first(|layout| layout.open(layer))
    }
}

/// Finds the layouts below a folder, in the order of their names.
fn layouts(dir: &Path) -> Vec<PathBuf> {
    // What cannot be read is no repository.
    let folders = WalkDir::new(dir).min_depth(1).max_depth(DEPTH_LIMIT).sort_by_file_name().into_iter();
    let folders = folders
        .filter_entry(|entry| entry.file_type().is_dir() && entry.file_name() != BLOBS)
        .filter_map(Result::ok)
        .take(FOLDER_LIMIT);
    let is_layout = |path: &PathBuf| {
        path.join(OCI_LAYOUT).is_file() && path.join(INDEX).is_file() && path.join(BLOBS).is_dir()
    };
    folders.map(walkdir::DirEntry::into_path).filter(is_layout).collect()
}

/// Puts the repository before an image's tags; full names stay.
fn named(repository: &str, mut image: Image) -> Image {
    for name in &mut image.names {
        if !name.contains(['/', ':']) {
            *name = format!("{repository}:{name}");
        }
    }
    image
}
