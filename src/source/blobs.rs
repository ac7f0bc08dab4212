//! Blobs by digest, wherever a tool puts them in a folder or an archive, and what every holder of blobs checks.
//!
//! A digest has been parsed before it becomes a path. What is opened is a regular file of the size that its
//! descriptor says; a document is compared with its digest too.

use std::{fmt, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    Data, Layer, Missing,
    archive::{EntryData, Index},
    documents::check,
};
use crate::{
    blob::mismatch,
    error::{Error, Result},
    layout::{read, write::blob_name},
    oci::{Descriptor, Digest, manifest::MANIFEST_LIMIT},
};

/// A folder of blobs, or an archive that has them where OCI layouts do.
pub(super) enum Blobs {
    Archive(Arc<Index>),
    Folder {
        dir: PathBuf,
        /// Where below it a blob is.
        place: fn(&Digest) -> PathBuf,
    },
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(_) => f.write_str("Blobs"),
            Self::Folder { dir, .. } => write!(f, "Blobs({})", dir.display()),
        }
    }
}

impl Blobs {
    /// Blobs in `dir`, each at its own `place` below it.
    pub(super) fn new(dir: impl Into<PathBuf>, place: fn(&Digest) -> PathBuf) -> Self {
        Self::Folder { dir: dir.into(), place }
    }

    /// Blobs as OCI layouts and containerd keep them: `<algorithm>/<hex>`.
    pub(super) fn by_algorithm(dir: impl Into<PathBuf>) -> Self {
        Self::new(dir, |digest| digest.path().into())
    }

    /// Describes a blob by its digest alone. A size of 0 is said of what is missing.
    pub(super) fn describe(&self, digest: &Digest) -> Result<Descriptor> {
        let size = self.size(digest)?.unwrap_or(0);
        Ok(Descriptor { media_type: None, ..Descriptor::new("", digest.clone(), size) })
    }

    /// Returns the size of a blob, if it is there.
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.look_up(digest)?.map(|blob| blob.size()))
    }

    /// Finds the bytes that a descriptor names, of the size it says.
    pub(super) fn find(&self, descriptor: &Descriptor) -> Result<EntryData> {
        fitting(self.look_up(&descriptor.digest)?, descriptor)
    }

    /// Opens a blob that a manifest of `source` names.
    pub(super) fn open(&self, layer: &Layer, source: &str) -> Result<Data> {
        let data =
            described(layer).and_then(|descriptor| self.find(descriptor)).and_then(EntryData::into_data);
        data.map_err(|error| error.while_doing(format!("reading {source}")))
    }

    /// Reads a manifest or index, and checks its digest.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let what = format!("manifest {}", descriptor.digest);
        if descriptor.size > MANIFEST_LIMIT {
            return Err(Error::source(format!(
                "{what} is over the limit of 4 MiB that registries have: {} bytes",
                descriptor.size
            )));
        }
        let bytes = self.find(descriptor)?.read(MANIFEST_LIMIT, &what)?;
        check(&bytes, descriptor)?;
        Ok(bytes)
    }

    fn look_up(&self, digest: &Digest) -> Result<Option<EntryData>> {
        match self {
            Self::Archive(index) => match index.find(&blob_name(digest)) {
                Err(error) if Missing::is_cause_of(&error) => Ok(None),
                found => found.cloned().map(Some),
            },
            Self::Folder { dir, place } => {
                Ok(read::open_at(&dir.join(place(digest)))?.map(EntryData::Stored))
            }
        }
    }
}

/// Returns the descriptor of a blob, which it has wherever manifests are kept.
fn described(layer: &Layer) -> Result<&Descriptor> {
    layer
        .descriptor
        .as_ref()
        .ok_or_else(|| Error::internal(format!("a blob has no descriptor: `{}`", layer.name)))
}

/// Returns what was found for a descriptor, if it has the right size, or else what the descriptor embeds.
fn fitting(found: Option<EntryData>, descriptor: &Descriptor) -> Result<EntryData> {
    let digest = &descriptor.digest;
    match (found, &descriptor.data) {
        (Some(data), _) if data.size() == descriptor.size => Ok(data),
        (Some(data), _) => Err(mismatch(&digest.to_string(), descriptor, data.size(), digest)),
        (None, Some(embedded)) => {
            let embedded = Bytes::from(embedded.clone());
            check(&embedded, descriptor)?;
            Ok(EntryData::Kept(embedded))
        }
        (None, None) => Err(Error::source(format!("blob {digest} is missing")).because(Missing)),
    }
}
