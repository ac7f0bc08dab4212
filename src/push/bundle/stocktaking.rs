//! Takes stock: which blobs a registry's repositories have, or the images of a place on disk.
//!
//! Of every manifest only digests and sizes are kept. What cannot be read as a manifest holds no blobs that we know of:
//! an inventory may name too little, and never too much.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::{StreamExt as _, stream};

use super::inventory::Holdings;
use crate::{
    error::{Error, ErrorKind, Result, chain},
    oci::{Content, Descriptor, Digest, Manifest},
    push::Mirror,
    registry::Client,
    source::{self, ImageContent, Layer, Missing, Source},
};

/// So many manifests are read at once: each may have 4 MiB.
const AT_ONCE: usize = 8;

/// Returns the repositories of a registry whose names begin with the path `prefix`; `warn` is told where it has to be
/// taken for a repository.
pub async fn repositories(
    client: &Client,
    prefix: Option<&str>,
    warn: impl Fn(String),
) -> Result<Vec<String>> {
    let host = client.host();
    let hint = format!("name the repositories: `{host}/NAME`");
    let refusal = match client.repositories().await {
        Ok(Some(names)) => {
            let below = |name: &str| {
                prefix.is_none_or(|prefix| {
                    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            let names: Vec<_> = names.into_iter().filter(|name| below(name)).collect();
            if !names.is_empty() || prefix.is_none() {
                return Ok(names);
            }
            Error::new(ErrorKind::Refused, format!("`{host}` lists nothing of that name"))
        }
        Ok(None) => Error::new(ErrorKind::Refused, format!("`{host}` does not list its repositories")),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Refused) => error,
        Err(error) => return Err(error),
    };
    let Some(prefix) = prefix else { return Err(refusal.with_hint(hint)) };
    if client.tags(prefix).await?.is_none() {
        return Err(refusal.while_doing(format!("looking for `{host}/{prefix}`")).with_hint(hint));
    }
    warn(format!("`{host}/{prefix}` is taken for one repository: {}", chain(&refusal)));
    Ok(vec![prefix.to_owned()])
}

/// Returns what a repository of a registry has; nothing if there is none.
pub async fn of_repository(client: &Client, repository: &str) -> Result<Option<Holdings>> {
    let Some(tags) = client.tags(repository).await? else { return Ok(None) };
    let mut holdings = Holdings { name: Some(repository.to_owned()), ..Holdings::default() };
    let mut asked: HashSet<String> = HashSet::new();
    let mut wave = tags;
    while !wave.is_empty() {
        let mut children = Vec::new();
        let answers = stream::iter(wave).map(|reference| async {
            let manifest = client.get_manifest(repository, &reference).await;
            (reference, manifest)
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
        while let Some((reference, manifest)) = answers.next().await {
            let Some((media_type, bytes)) = manifest? else { continue };
            let digest = reference.parse().unwrap_or_else(|_| Digest::of(&bytes));
            if !reference.contains(':') {
                holdings.tags.insert(reference, digest.clone());
            }
            if holdings.manifests.insert(digest.clone(), bytes.len() as u64).is_none() {
                match Manifest::parse(bytes, digest, Some(&media_type)) {
                    Ok(manifest) => children.extend(holdings.take(&manifest, |_| true)),
                    Err(error) => tracing::warn!("{}; its blobs are not listed", chain(&error)),
                }
            }
        }
        wave = children.into_iter().map(|child| child.digest.to_string()).collect();
        wave.retain(|child| asked.insert(child.clone()));
    }
    Ok(Some(holdings))
}

/// Returns what the images of a source hold, by the repositories that their names tell of.
pub fn of_source(source: &dyn Source) -> Result<Vec<Holdings>> {
    let nowhere = Mirror { host: String::new(), path: None, rules: Vec::new() };
    let mut known: HashMap<Digest, bool> = HashMap::new();
    let mut by_name: BTreeMap<Option<String>, Holdings> = BTreeMap::new();
    for image in source.images()? {
        let ImageContent::Manifest(root) = &image.content else {
            return Err(Error::usage(format!(
                "{} has no manifests, and so no digests of blobs",
                source.name()
            ))
            .with_hint("list what was made of it: `longshore bundle`, or the registry that has it"));
        };
        let tree = source::resolve(source, root, None)?;
        let named = image.names.iter().filter_map(|name| nowhere.destination(name).ok().flatten());
        let mut places: Vec<_> = named.map(|place| (Some(place.repository.path), place.tag)).collect();
        if places.is_empty() {
            places.push((None, None));
        }
        for (name, tag) in places {
            let holdings = by_name.entry(name.clone()).or_default();
            holdings.name = name;
            holdings.tags.extend(tag.map(|tag| (tag, root.digest.clone())));
            for manifest in &tree.manifests {
                holdings.manifests.insert(manifest.digest.clone(), manifest.bytes.len() as u64);
                holdings.take(manifest, |blob| {
                    let is_held = || holds(source, blob);
                    *known.entry(blob.digest.clone()).or_insert_with(is_held)
                });
            }
        }
    }
    Ok(by_name.into_values().collect())
}

impl Holdings {
    /// Adds the blobs that a manifest names, as far as they are had; returns the manifests that it names.
    fn take(&mut self, manifest: &Manifest, mut is_had: impl FnMut(&Descriptor) -> bool) -> Vec<Descriptor> {
        match &manifest.content {
            Content::Image { config, layers } => {
                for blob in config.iter().chain(layers).filter(|blob| !blob.is_foreign()) {
                    if is_had(blob) {
                        self.blobs.insert(blob.digest.clone(), blob.size);
                    }
                }
                Vec::new()
            }
            Content::Index { manifests } => manifests.clone(),
        }
    }
}

/// Returns whether a source has a blob, or leaves it out because who has the source has it.
fn holds(source: &dyn Source, blob: &Descriptor) -> bool {
    if source.left_out().is_some_and(|left_out| left_out.find(&blob.digest).is_some()) {
        return true;
    }
    match source.open(&Layer::named(blob)) {
        Ok(_) => true,
        Err(error) => {
            if !Missing::is_cause_of(&error) {
                tracing::warn!("{}; it is not listed", chain(&error));
            }
            false
        }
    }
}
