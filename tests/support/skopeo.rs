//! skopeo: reads images back, so that somebody else says what arrived.

use std::{io::Read, process::Command};

use longshore::oci::Digest;
use serde_json::Value;
use tempfile::TempDir;

/// An image as skopeo copied it to a folder (`dir:`): with all its children if it is an index.
pub(crate) struct ReadBack {
    dir: TempDir,
    /// The manifest or index, byte for byte.
    pub(crate) manifest: Vec<u8>,
}

impl ReadBack {
    /// Copies `host/repository:tag` (or `@digest`) out of a registry that speaks plain HTTP.
    pub(crate) fn of(reference: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let to = format!("dir:{}", dir.path().join("image").display());
        skopeo(&[
            "copy",
            "--quiet",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{reference}"),
            &to,
        ])?;
        let manifest = fs_err::read(dir.path().join("image/manifest.json")).unwrap();
        Ok(Self { dir, manifest })
    }

    /// Returns the digest of the manifest or index.
    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// Returns the bytes of a child manifest, a config or a layer.
    pub(crate) fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let image = self.dir.path().join("image");
        let child = image.join(format!("{hex}.manifest.json"));
        let path = if child.exists() { child } else { image.join(hex) };
        let bytes = fs_err::read(path).map_err(|error| error.to_string())?;
        if Digest::of(&bytes).hex() == hex { Ok(bytes) } else { Err(format!("{digest} arrived damaged")) }
    }
}

/// Returns the manifest or index that a reference names, byte for byte.
pub(crate) fn raw_manifest(reference: &str) -> Result<Vec<u8>, String> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
}

/// Returns a config digest and the digests of the plain layers of an image manifest that was read back.
pub(crate) fn contents(image: &ReadBack, manifest: &[u8]) -> Result<(String, Vec<String>), String> {
    let manifest: Value = serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
    let config = digest(&manifest["config"]);
    image.blob(&config)?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    let plain =
        layers.iter().map(|layer| plain_digest(&image.blob(&digest(layer))?)).collect::<Result<_, _>>()?;
    Ok((config, plain))
}

/// Returns the digest of bytes after decompression, which is recognised by what they begin with.
fn plain_digest(bytes: &[u8]) -> Result<String, String> {
    let mut plain = Vec::new();
    let read = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::stream::read::Decoder::new(bytes).and_then(|mut d| d.read_to_end(&mut plain))
        }
        mut bytes => bytes.read_to_end(&mut plain),
    };
    read.map_err(|error| error.to_string())?;
    Ok(Digest::of(&plain).to_string())
}

fn skopeo(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .expect("skopeo of the Debian package of that name");
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
