//! What arrived, read back: out of a registry by skopeo, so that somebody else says what is there, or out of
//! the folder of the embedded registry, for what skopeo or docker-registry does not take.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use longshore::oci::{Algorithm, Digest, Hasher};
use serde_json::Value;
use tempfile::TempDir;

use super::skopeo;

/// An image that arrived, with all its children if it is an index.
pub(crate) struct ReadBack {
    place: Place,
    /// The manifest or index, byte for byte.
    pub(crate) manifest: Vec<u8>,
}

/// Where its blobs are.
enum Place {
    /// A `dir:` folder, written by skopeo.
    Dir(TempDir),
    Layout(PathBuf),
}

/// What an image manifest names.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The config's digest.
    pub(crate) config: String,
    /// The layers; nothing of one that did not arrive.
    pub(crate) layers: Vec<Option<Layer>>,
}

/// A layer that arrived.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) digest: String,
    /// The digest of its plain bytes.
    pub(crate) plain: String,
}

impl ReadBack {
    /// Copies `host/repository:tag` (or `@digest`) out of a registry that speaks plain HTTP.
    pub(crate) fn of(reference: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        skopeo::copy(reference, &format!("dir:{}", dir.path().display()), &["--all"])?;
        let manifest = fs_err::read(dir.path().join("manifest.json")).unwrap();
        Ok(Self { place: Place::Dir(dir), manifest })
    }

    /// Finds the image with a tag in a layout.
    pub(crate) fn of_layout(layout: PathBuf, tag: &str) -> Result<Self, String> {
        let index = fs_err::read(layout.join("index.json")).map_err(|error| error.to_string())?;
        let index: Value = serde_json::from_slice(&index).map_err(|error| error.to_string())?;
        let mut roots = index["manifests"].as_array().into_iter().flatten();
        let root = roots.find(|root| root["annotations"]["org.opencontainers.image.ref.name"] == tag);
        let root = digest_in(root.ok_or_else(|| format!("nothing is tagged: {index}"))?);
        let arrived = Self { place: Place::Layout(layout), manifest: Vec::new() };
        Ok(Self { manifest: arrived.blob(&root)?, ..arrived })
    }

    /// Returns the digest of the manifest or index.
    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// Returns the bytes of a child manifest, a config or a layer.
    pub(crate) fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        let found = self.find(digest)?;
        found.ok_or_else(|| format!("{digest} did not arrive"))
    }

    /// Returns the config and the layers of an image manifest.
    pub(crate) fn contents(&self, manifest: &[u8]) -> Result<Contents, String> {
        let manifest: Value = serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
        let config = digest_in(&manifest["config"]);
        self.blob(&config)?;
        let layer = |descriptor: &Value| {
            let digest = digest_in(descriptor);
            let Some(bytes) = self.find(&digest)? else { return Ok(None) };
            Ok(Some(Layer { digest, plain: plain_digest(&bytes)? }))
        };
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        let layers = layers.iter().map(layer).collect::<Result<_, String>>()?;
        Ok(Contents { config, layers })
    }

    fn find(&self, digest: &str) -> Result<Option<Vec<u8>>, String> {
        let parsed: Digest = digest.parse().map_err(|_| format!("no digest: `{digest}`"))?;
        let hex = parsed.hex();
        let paths = match &self.place {
            Place::Dir(dir) => {
                vec![dir.path().join(format!("{hex}.manifest.json")), dir.path().join(hex)]
            }
            Place::Layout(layout) => vec![layout.join("blobs").join(digest.replace(':', "/"))],
        };
        let Some(path) = paths.into_iter().find(|path| path.exists()) else { return Ok(None) };
        let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
        let mut hasher = Hasher::new(parsed.algorithm());
        hasher.update(&bytes);
        if hasher.finish() == parsed { Ok(Some(bytes)) } else { Err(format!("{digest} arrived damaged")) }
    }
}

fn digest_in(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap_or_default().to_owned()
}

/// Returns the digest of bytes after decompression, which is recognised by what they begin with.
fn plain_digest(bytes: &[u8]) -> Result<String, String> {
    let mut plain: Box<dyn Read + '_> = match bytes {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::stream::read::Decoder::new(bytes).map_err(|error| error.to_string())?)
        }
        bytes => Box::new(bytes),
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    io::copy(&mut plain, &mut hasher).map_err(|error| error.to_string())?;
    Ok(hasher.finish().to_string())
}
