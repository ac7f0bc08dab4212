//! `dir:` folders, which podman calls docker-dir: one image's manifest and its blobs, each a file by its digest.
//!
//! The manifest lies there byte for byte and is pushed so, with one exception: where it names plain layers, as
//! `podman save` writes it, no registry ever saw it, and its layers are encoded. Nothing says what
//! the manifest's digest should be. Signatures are for a lookaside store and not for a registry.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::docker_archive::MANIFEST;
use crate::{
    blob::Blob,
    error::{Error, Result},
    layout::read,
    oci::{
        Algorithm, Content, Descriptor, Digest, ImageConfig, Manifest, Platform, manifest::MANIFEST_LIMIT,
    },
    source::{
        Data, Image, ImageContent, Layer, Source, blobs::Blobs, documents::read_config, signatures_stay,
    },
};

/// The file that says in which version of the format the folder is.
pub(in crate::source) const VERSION: &str = "version";
/// What stands before the number in it.
const VERSION_LABEL: &str = "Directory Transport Version: ";
/// It holds one short line.
const VERSION_LIMIT: u64 = 4 << 10;

/// A `dir:` folder.
#[derive(Debug)]
pub struct DockerDir {
    name: String,
    root: Manifest,
    blobs: Blobs,
    manifests: Blobs,
    content: ImageContent,
    platform: Option<Platform>,
    signatures: usize,
}

impl DockerDir {
    /// Returns whether a folder says that it is one.
    pub(in crate::source) fn is_at(dir: &Path) -> bool {
        let version = read::open_at(&dir.join(VERSION)).ok().flatten();
        let version = version.and_then(|version| version.read_all(VERSION_LIMIT, VERSION).ok());
        dir.join(MANIFEST).is_file()
            && version.is_some_and(|version| version.starts_with(VERSION_LABEL.as_bytes()))
    }

    /// Reads the manifest in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        let name = format!("`dir:` folder `{}`", dir.display());
        Self::read(dir, &name).map_err(|error| error.while_doing(format!("reading {name}")))
    }

    fn read(dir: &Path, name: &str) -> Result<Self> {
        if let Some(version) = read::open_at(&dir.join(VERSION))? {
            check_version(&version.read_all(VERSION_LIMIT, &format!("`{VERSION}`"))?)?;
        }
        let bytes = Blob::open(&dir.join(MANIFEST))?.read_all(MANIFEST_LIMIT, &format!("`{MANIFEST}`"))?;
        let digest = Digest::of(&bytes);
        let root = Manifest::parse(bytes.into(), digest, None)?;
        let mut folder = Self {
            name: name.to_owned(),
            content: ImageContent::Manifest(root.descriptor()),
            root,
            blobs: Blobs::new(dir, |digest| file_name(digest).into()),
            manifests: Blobs::new(dir, |digest| PathBuf::from(file_name(digest) + ".manifest.json")),
            platform: None,
            signatures: signatures(dir),
        };
        folder.take_apart();
        Ok(folder)
    }

    /// Makes config and layers of a manifest that names plain layers: those whose digest is their diff ID.
    fn take_apart(&mut self) {
        let Content::Image { config: Some(config), layers } = &self.root.content else { return };
        // What cannot be read is an error for whoever pushes this manifest.
        let Ok(bytes) = read_config(self, config) else { return };
        let Ok(ImageConfig { diff_ids, platform }) = ImageConfig::parse(&bytes, "") else { return };
        let is_plain = layers.iter().zip(&diff_ids).any(|(layer, diff_id)| layer.digest == diff_id.0);
        if !is_plain || layers.len() != diff_ids.len() {
            return;
        }
        let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
            name: layer.digest.to_string(),
            descriptor: Some(layer.clone()).filter(|layer| !layer.urls.is_empty()),
            diff_id: Some(diff_id),
        });
        let (layers, original) = (layers.collect(), Some(self.root.clone()));
        self.content = ImageContent::Layers { config: bytes, layers, original };
        self.platform = platform;
    }

    fn descriptor(&self, layer: &Layer) -> Result<&Descriptor> {
        let unknown = || Error::internal(format!("the manifest has no layer `{}`", layer.name));
        let Content::Image { layers, .. } = &self.root.content else { return Err(unknown()) };
        layers.iter().find(|known| known.digest.to_string() == layer.name).ok_or_else(unknown)
    }
}

impl Source for DockerDir {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn images(&self) -> Result<Vec<Image>> {
        let image = Image::new(Vec::new(), self.content.clone());
        Ok(vec![Image { platform: self.platform.clone(), ..image }])
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        if descriptor.digest == self.root.digest {
            return Ok(self.root.bytes.clone());
        }
        self.manifests.document(descriptor)
    }

    fn open(&self, layer: &Layer) -> Result<Data> {
        if layer.descriptor.is_some() {
            return self.blobs.open(layer, &self.name);
        }
        self.blobs.open(&Layer::named(self.descriptor(layer)?), &self.name)
    }

    fn warnings(&self) -> Vec<String> {
        signatures_stay(&self.name, self.signatures).into_iter().collect()
    }
}

/// Returns what a blob's file is called.
fn file_name(digest: &Digest) -> String {
    match digest.algorithm() {
        Algorithm::Sha256 => digest.hex().to_owned(),
        other => format!("{}-{}", other.name(), digest.hex()),
    }
}

/// Checks what [`VERSION`] says: nothing after the first major version is known.
fn check_version(bytes: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(bytes);
    match text.trim_end().strip_prefix(VERSION_LABEL) {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => {
            Err(Error::source(format!("unsupported version of the format: `{}`", version.escape_debug())))
        }
        None => Err(Error::source(format!("`{VERSION}` is not valid: it lacks `{}`", VERSION_LABEL.trim()))),
    }
}

/// Counts `signature-N` of the image and `<hex>.signature-N` of the manifests in an index.
fn signatures(dir: &Path) -> usize {
    let is_signature = |name: &str| {
        let number = name.rsplit('.').next().and_then(|name| name.strip_prefix("signature-"));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let entries = fs_err::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_signature)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Hasher;

    #[test]
    fn only_the_first_version_is_known() {
        for version in ["1.0", "1.1", "1.2\n"] {
            check_version(format!("{VERSION_LABEL}{version}").as_bytes()).unwrap();
        }
        let error = check_version(b"Directory Transport Version: 9.0\n").unwrap_err();
        assert!(error.message().contains("version") && error.message().contains("`9.0`"), "{error}");
        for text in [&b""[..], b"1.1", b"\xff"] {
            assert!(check_version(text).is_err());
        }
    }

    #[test]
    fn files_are_named_by_digest() {
        assert_eq!(file_name(&Digest::of(b"")).len(), 64);
        assert!(file_name(&Hasher::new(Algorithm::Sha512).finish()).starts_with("sha512-cf83e1"));
    }

    #[test]
    fn plain_layers_among_encoded_ones_are_enough_to_make_a_manifest() {
        let (plain, encoded) = (Digest::of(b"plain"), Digest::of(b"encoded"));
        let config = |second: &Digest| {
            format!(
                r#"{{"os":"linux","architecture":"arm64","rootfs":{{"diff_ids":["{plain}","{second}"]}}}}"#
            )
        };
        let blob =
            |text: &str| format!(r#"{{"digest":"{}","size":{}}}"#, Digest::of(text.as_bytes()), text.len());
        let open = |config: &str| {
            let dir = tempfile::tempdir().unwrap();
            let layers = [blob("plain"), blob("encoded")].join(",");
            let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, blob(config));
            fs_err::write(dir.path().join(MANIFEST), manifest).unwrap();
            for text in ["plain", "encoded", config] {
                fs_err::write(dir.path().join(Digest::of(text.as_bytes()).hex()), text).unwrap();
            }
            let folder = DockerDir::open(dir.path()).unwrap();
            (dir, folder)
        };
        let (dir, folder) = open(&config(&Digest::of(b"other")));
        let ImageContent::Layers { layers, .. } = &folder.content else { panic!("{folder:?}") };
        assert!(layers.iter().all(|layer| layer.descriptor.is_none()));
        let Data::Stored(blob) = folder.open(&layers[1]).unwrap() else { panic!("not stored") };
        assert_eq!(blob.read_all(10, "it").unwrap(), b"encoded");
        // The size is still what the manifest says.
        fs_err::write(dir.path().join(encoded.hex()), "longer than that").unwrap();
        assert!(crate::error::chain(&folder.open(&layers[1]).unwrap_err()).contains("size mismatch"));
        // A config that does not say what the layers are changes nothing.
        let (_dir, folder) = open(r#"{"rootfs":{"diff_ids":[]}}"#);
        assert!(matches!(folder.content, ImageContent::Manifest(_)));
    }
}
