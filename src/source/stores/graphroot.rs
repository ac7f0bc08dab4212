//! One store of podman's, buildah's and CRI-O's images (containers/storage): its records, the documents it keeps
//! for an image, and its layers, rebuilt.
//!
//! The records are read under podman's locks, layers before images, and the locks are let go at once: what podman
//! writes later it writes to other files.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    check_readable, open,
    payload::{Objects, Payloads},
    podman_lock::lock,
    read,
    tar_split::TarSplit,
};
use crate::{
    error::{Error, Result, printable},
    oci::Digest,
};

/// A store.
#[derive(Debug)]
pub(super) struct Graphroot {
    dir: PathBuf,
    driver: Driver,
    /// The images, as the store lists them.
    pub(super) images: Vec<ImageRecord>,
    layers: HashMap<String, LayerRecord>,
}

/// What unpacked the layers, and so where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Btrfs,
    Overlay,
    Vfs,
    Zfs,
}

/// What a store says of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ImageRecord {
    /// The digest of the config, for images.
    pub(super) id: String,
    /// What it is called, in full.
    pub(super) names: Option<Vec<String>>,
    /// The topmost layer.
    pub(super) layer: Option<String>,
    /// The keys of its documents.
    big_data_names: Option<Vec<String>>,
    /// What containers/image notes of it, as JSON.
    metadata: Option<String>,
}

/// How large the signatures of an image are, by the manifest that they are of; in older stores of the only one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ImageMetadata {
    signatures_sizes: HashMap<String, Vec<u64>>,
    signature_sizes: Vec<u64>,
}

impl ImageRecord {
    /// Returns its ID as a digest, or what may stand for one.
    pub(super) fn digest(&self) -> Digest {
        format!("sha256:{}", self.id).parse().unwrap_or_else(|_| Digest::of(self.id.as_bytes()))
    }

    /// Returns the key of a manifest of the image, if it has this one: pulled twice, an image may have several.
    pub(super) fn manifest_key(&self, digest: &Digest) -> Option<&str> {
        let key = format!("manifest-{digest}");
        self.big_data_names.iter().flatten().find(|name| **name == key).map(String::as_str)
    }

    /// Returns how many signatures of simple signing the store keeps of it.
    pub(super) fn signatures(&self) -> usize {
        let metadata = self.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let ImageMetadata { signatures_sizes, signature_sizes } = metadata.unwrap_or_default();
        // The newer list repeats the older one.
        signatures_sizes.values().map(Vec::len).sum::<usize>().max(signature_sizes.len())
    }
}

/// What a store says of a layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LayerRecord {
    /// What it is called.
    pub(super) id: String,
    /// The layer beneath.
    pub(super) parent: Option<String>,
    /// The digest of the plain tar.
    pub(super) diff_digest: Option<String>,
    /// Its size; not positive where that is not known.
    diff_size: Option<i64>,
    /// The digest of what was pulled.
    compressed_diff_digest: Option<String>,
    toc_digest: Option<String>,
    flags: Option<Flags>,
}

#[derive(Clone, Debug, Deserialize)]
struct Flags {
    incomplete: Option<bool>,
}

impl LayerRecord {
    /// Returns the size of the plain tar.
    pub(super) fn plain_size(&self) -> Option<u64> {
        self.diff_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)
    }

    /// Returns the digest of the encoded layer that this one was unpacked from. Where only parts of that were
    /// pulled, nobody has computed it.
    pub(super) fn pulled(&self) -> Option<Digest> {
        let was_partial = self.toc_digest.as_ref().is_some_and(|digest| !digest.is_empty());
        let pulled =
            self.compressed_diff_digest.as_ref().filter(|digest| Some(*digest) != self.diff_digest.as_ref());
        pulled.filter(|_| !was_partial)?.parse().ok()
    }
}

impl Graphroot {
    /// Returns whether a folder is a store.
    pub(super) fn is_at(dir: &Path) -> bool {
        Driver::ALL.iter().any(|driver| driver.is_at(dir))
    }

    /// Reads the records of the store in `dir`, if there is one: of `driver`, or of whichever has images.
    pub(super) fn read(dir: &Path, runroot: Option<&Path>, driver: Option<&str>) -> Result<Option<Self>> {
        let asked = driver.map(Driver::parse).transpose()?;
        let Some(&driver) = asked.iter().chain(&Driver::ALL).find(|driver| driver.is_at(dir)) else {
            return check_readable(dir).map(|()| None);
        };
        let store = Self { dir: dir.to_owned(), driver, images: Vec::new(), layers: HashMap::new() };
        store.filled(runroot).map(Some)
    }

    /// Returns what the store says of a layer.
    pub(super) fn layer(&self, id: &str) -> Option<&LayerRecord> {
        self.layers.get(id)
    }

    /// Reads a document that the store keeps for an image under `key`.
    pub(super) fn image_data(&self, image: &ImageRecord, key: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        read(&self.records("images").join(&image.id).join(file_of(key)), limit, &self.dir)
    }

    /// Rebuilds a layer's tar.
    pub(super) fn rebuild(&self, layer: &LayerRecord) -> Result<TarSplit> {
        let id = &layer.id;
        if layer.flags.as_ref().is_some_and(|flags| flags.incomplete == Some(true)) {
            return Err(Error::source(format!("layer {id} is incomplete: its pull was broken off"))
                .with_hint("pull the image again"));
        }
        let packed = self.records("layers").join(format!("{id}.tar-split.gz"));
        let packed = open(&packed, &self.dir)?.ok_or_else(|| {
            let error = format!("layer {id} cannot be reproduced: `{}` is missing", packed.display());
            Error::source(error).with_hint(match layer.toc_digest.as_deref() {
                None | Some("") => "it was not pulled but written by a container, or the store is damaged",
                Some(_) => "pull the image again with `enable_partial_images=false` in storage.conf",
            })
        })?;
        Ok(TarSplit::open(&packed, self.payloads(layer)?))
    }

    /// Opens the folder that a layer is unpacked in.
    fn payloads(&self, layer: &LayerRecord) -> Result<Payloads> {
        let id = &layer.id;
        match self.driver {
            Driver::Btrfs => Payloads::open(&self.dir.join("btrfs/subvolumes"), id),
            Driver::Vfs => Payloads::open(&self.dir.join("vfs/dir"), id),
            Driver::Zfs => Err(Error::source("layers on ZFS cannot be read")
                .with_hint("write an archive first: `podman save --format oci-archive -o image.tar NAME`")),
            Driver::Overlay => {
                let payloads = Payloads::open(&self.dir.join("overlay"), &format!("{id}/diff"))?;
                if !self.dir.join("overlay").join(id).join("composefs-data/composefs.blob").exists() {
                    return Ok(payloads);
                }
                let table = self.records("layers").join(id).join(file_of("zstd-chunked-manifest"));
                let table = read(&table, TABLE_LIMIT, &self.dir)?.ok_or_else(|| {
                    Error::source(format!("layer {id} has no table of contents: `{}`", table.display()))
                })?;
                Ok(payloads.by_content(Objects::parse(&table)?))
            }
        }
    }

    /// Reads the records.
    fn filled(mut self, runroot: Option<&Path>) -> Result<Self> {
        let (images, layers) = (self.records("images"), self.records("layers"));
        let _layers_lock = lock(&layers.join("layers.lock"))?;
        let _images_lock = lock(&images.join("images.lock"))?;
        self.images = self.list(&images.join("images.json"))?;
        let volatile = "volatile-layers.json";
        let transient = runroot.map(|dir| dir.join(format!("{}-layers", self.driver.name())).join(volatile));
        let lists = [layers.join("layers.json"), layers.join(volatile)];
        for list in lists.into_iter().chain(transient) {
            let records: Vec<LayerRecord> = self.list(&list)?;
            self.layers.extend(records.into_iter().map(|record| (record.id.clone(), record)));
        }
        let ids = self.images.iter().map(|image| &image.id).chain(self.layers.keys());
        for id in ids {
            // They become part of paths.
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(Error::source(format!("not an ID: `{}`", printable(id))));
            }
        }
        Ok(self)
    }

    fn list<T: DeserializeOwned>(&self, path: &Path) -> Result<Vec<T>> {
        let Some(json) = read(path, RECORDS_LIMIT, &self.dir)? else { return Ok(Vec::new()) };
        let records: Option<Vec<T>> = serde_json::from_slice(&json)
            .map_err(|error| Error::source(format!("`{}` is not valid", path.display())).because(error))?;
        Ok(records.unwrap_or_default())
    }

    fn records(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("{}-{kind}", self.driver.name()))
    }
}

impl Driver {
    /// In the order in which podman prefers them.
    const ALL: [Self; 4] = [Self::Overlay, Self::Btrfs, Self::Zfs, Self::Vfs];

    fn parse(name: &str) -> Result<Self> {
        match name {
            "overlay2" => Ok(Self::Overlay),
            name => Self::ALL.into_iter().find(|driver| driver.name() == name).ok_or_else(|| {
                Error::usage(format!("unknown storage driver: `{}`", printable(name)))
                    .with_hint("`overlay`, `vfs` and `btrfs` can be read")
            }),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Overlay => "overlay",
            Self::Vfs => "vfs",
            Self::Zfs => "zfs",
        }
    }

    fn is_at(self, dir: &Path) -> bool {
        dir.join(format!("{}-images/images.json", self.name())).exists()
            || dir.join(format!("{}-layers/layers.json", self.name())).exists()
    }
}

/// Returns the file's name for a key (gh:containers/storage `makeBigDataBaseName`).
fn file_of(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'.';
    if key.bytes().all(is_plain) { key.to_owned() } else { format!("={}", BASE64.encode(key)) }
}

/// A machine with ten thousand layers, each with a thousand user IDs, needs less.
const RECORDS_LIMIT: u64 = 256 << 20;

/// As podman limits it: a million files need less.
const TABLE_LIMIT: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_forgets_at_the_next_boot_is_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let [graphroot, runroot] = ["graphroot", "runroot"].map(|name| dir.path().join(name));
        for (folder, file, ids) in [
            (graphroot.join("overlay-images"), "images.json", "[]"),
            (graphroot.join("overlay-layers"), "layers.json", r#"[{"id":"a1"}]"#),
            (graphroot.join("overlay-layers"), "volatile-layers.json", r#"[{"id":"b2","parent":"a1"}]"#),
            (runroot.join("overlay-layers"), "volatile-layers.json", r#"[{"id":"c3","parent":"b2"}]"#),
        ] {
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::write(folder.join(file), ids).unwrap();
        }
        let store = Graphroot::read(&graphroot, Some(&runroot), None).unwrap().unwrap();
        let beneath = |id| store.layer(id).map(|layer| layer.parent.as_deref().unwrap_or_default());
        assert_eq!(["a1", "b2", "c3"].map(beneath), [Some(""), Some("a1"), Some("b2")]);
        let store = Graphroot::read(&graphroot, None, None).unwrap().unwrap();
        assert!(store.layer("c3").is_none());
    }

    #[test]
    fn documents_are_found_by_their_keys() {
        assert_eq!(file_of("manifest"), "manifest");
        assert_eq!(file_of("zstd-chunked-layer-data"), "=enN0ZC1jaHVua2VkLWxheWVyLWRhdGE=");
        assert_eq!(file_of("sha256:0"), "=c2hhMjU2OjA=");
    }

    #[test]
    fn a_driver_that_is_not_there_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Graphroot::read(dir.path(), None, Some("vfs")).unwrap().is_none());
        fs_err::create_dir(dir.path().join("overlay-images")).unwrap();
        fs_err::write(dir.path().join("overlay-images/images.json"), "[]").unwrap();
        for driver in [None, Some("vfs"), Some("overlay2")] {
            let store = Graphroot::read(dir.path(), None, driver).unwrap().unwrap();
            assert_eq!(store.driver, Driver::Overlay);
        }
        assert_eq!(
            Graphroot::read(dir.path(), None, Some("aufs")).unwrap_err().kind(),
            crate::ErrorKind::Usage
        );
    }
}
