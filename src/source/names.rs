//! What an image may be called.
//!
//! Its producers meant its names: in full, as Docker abbreviates them (`tiny` is `docker.io/library/tiny:latest`), or by
//! tag alone where a layout says no more. Beside them it has an ID, whose beginning is enough.

use crate::oci::Digest;

/// Returns whether an image with these names is meant by `asked`, although none is spelled so.
pub(super) fn is_called(names: &[String], asked: &str) -> bool {
    let (asked_repository, asked_tag) = full(asked);
    let (full_names, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_full(name));
    if full_names.is_empty() && is_full(asked) {
        return tags.iter().any(|tag| **tag == asked_tag);
    }
    full_names.iter().any(|name| full(name) == (asked_repository.clone(), asked_tag))
}

/// Returns whether `asked` is an image ID, which people abbreviate.
pub(super) fn is_id(id: &Digest, asked: &str) -> bool {
    let asked = asked.strip_prefix("sha256:").unwrap_or(asked);
    asked.len() >= SHORTEST_ID && id.hex().starts_with(asked)
}

/// Fewer digits are likelier a mistake.
const SHORTEST_ID: usize = 4;

/// Returns whether a name is more than a tag.
pub(super) fn is_full(name: &str) -> bool {
    name.contains(['/', ':'])
}

/// Spells a name out, as Docker does: repository with host, and tag.
pub(super) fn full(name: &str) -> (String, &str) {
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let repository = match repository.split_once('/') {
        Some(("index.docker.io", path)) => format!("docker.io/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    };
    (repository, tag)
}
