//! skopeo, which copies images out of registries.

use std::process::Command;

use super::tool;

/// Copies `host/repository:tag` (or `@digest`) out of a registry that speaks plain HTTP.
pub(crate) fn copy(reference: &str, to: &str, options: &[&str]) -> Result<(), String> {
    let from = format!("docker://{reference}");
    let arguments = ["copy", "--quiet", "--src-tls-verify=false"];
    skopeo(&[&arguments, options, &[&from, to]].concat()).map(drop)
}

/// Returns the manifest or index that a reference names, byte for byte.
pub(crate) fn raw_manifest(reference: &str) -> Result<Vec<u8>, String> {
    skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
}

fn skopeo(arguments: &[&str]) -> Result<Vec<u8>, String> {
    tool::output(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}
