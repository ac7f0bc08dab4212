//! skopeo, which copies images out of registries and from one packaging into another, and umoci, which unpacks
//! what skopeo copied.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::tool;

/// Copies `host/repository:tag` (or `@digest`) out of a registry that speaks plain HTTP.
pub(crate) fn copy(reference: &str, to: &str, options: &[&str]) -> Result<(), String> {
    let from = format!("docker://{reference}");
    let arguments = ["copy", "--quiet", "--src-tls-verify=false"];
    skopeo(&[&arguments, options, &[&from, to]].concat()).map(drop)
}

/// Copies an image into a registry that speaks plain HTTP, as `host/repository:tag`.
pub(crate) fn push(from: &str, reference: &str) -> Result<(), String> {
    push_with(from, reference, &[])
}

/// Does the same with more options.
pub(crate) fn push_with(from: &str, reference: &str, options: &[&str]) -> Result<(), String> {
    let to = format!("docker://{reference}");
    let arguments = ["copy", "--quiet", "--dest-tls-verify=false"];
    skopeo(&[&arguments, options, &[from, &to]].concat()).map(drop)
}

/// Writes an image of one packaging in another.
pub(crate) fn repackage(from: &str, to: &str) -> Result<(), String> {
    skopeo(&["copy", "--quiet", from, to]).map(drop)
}

/// Returns the manifest or index that a reference names, byte for byte.
pub(crate) fn raw_manifest(reference: &str) -> Result<Vec<u8>, String> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
}

/// Unpacks an image of a registry below `dir`; returns where its file tree is. Takes root.
pub(crate) fn unpack(reference: &str, dir: &Path) -> Result<PathBuf, String> {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    // umoci 0.4 knows no zstd.
    let gzip = ["--dest-compress", "--dest-compress-format=gzip"];
    copy(reference, &format!("oci:{}:it", layout.display()), &gzip)?;
    let image = format!("{}:it", layout.display());
    tool::output(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle))?;
    Ok(bundle.join("rootfs"))
}

fn skopeo(arguments: &[&str]) -> Result<Vec<u8>, String> {
    tool::output(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}
