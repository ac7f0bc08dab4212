//! Archives of Carvel's imgpkg: a tar whose `manifest.json` holds manifests, indexes and configs as text, with the blobs
//! of layers beside it.
//!
//! Its documents and blobs get the names that an OCI layout has for them, and its images a list: then it is one, and
//! whatever is wrong with it is found where layouts are read.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::docker_archive::{MANIFEST, MANIFEST_LIMIT};
use crate::{
    error::Result,
    layout::{CONTAINERD_NAME, INDEX, write::blob_name},
    oci::Digest,
    source::archive::{EntryData, EntryHead, EntryKind, Index},
};

/// What `manifest.json` lists.
pub(in crate::source) struct List(Vec<Item>);

/// One of both.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    image: Option<SavedImage>,
    image_index: Option<SavedIndex>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    #[serde(default)]
    refs: Vec<String>,
    #[serde(default)]
    tag: String,
    config: Document,
    manifest: Document,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedIndex {
    #[serde(default)]
    refs: Vec<String>,
    #[serde(default)]
    tag: String,
    media_type: String,
    digest: Digest,
    raw: String,
    images: Option<Vec<SavedImage>>,
    indexes: Option<Vec<Self>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    raw: String,
}

/// Returns what an archive of imgpkg's lists; nothing for any other.
pub(in crate::source) fn list(index: &Index) -> Option<List> {
    if index.contains(INDEX) || !index.contains(MANIFEST) {
        return None;
    }
    // What cannot be read is an error for whoever reads docker archives.
    let items: Vec<Item> = serde_json::from_slice(&index.read(MANIFEST, MANIFEST_LIMIT).ok()?).ok()?;
    items.iter().any(|item| item.image.is_some() || item.image_index.is_some()).then_some(List(items))
}

impl List {
    /// Makes the archive an OCI layout.
    pub(in crate::source) fn into_layout(self, mut index: Index) -> Result<Index> {
        let named = |name: &str| Some((name.to_owned(), layer_in(name)?));
        for (name, digest) in index.names().filter_map(named).collect::<Vec<_>>() {
            let head = EntryHead { name: blob_name(&digest), kind: EntryKind::Hardlink(name), size: 0 };
            index.add(head, EntryData::Kept(Bytes::new()))?;
        }
        let mut manifests = Vec::new();
        for Item { image, image_index } in self.0 {
            if let Some(SavedImage { refs, tag, config, manifest }) = image {
                manifests.push(listing(&manifest, &refs, &tag));
                add(&mut index, config)?;
                add(&mut index, manifest)?;
            }
            if let Some(saved) = image_index {
                manifests.push(add_index(&mut index, saved)?);
            }
        }
        let list = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        index.put(INDEX.to_owned(), list.into())?;
        Ok(index)
    }
}

/// Adds an index and all that belongs to it, and returns its place in a list.
fn add_index(index: &mut Index, saved: SavedIndex) -> Result<serde_json::Value> {
    let SavedIndex { refs, tag, media_type, digest, raw, images, indexes } = saved;
    for SavedImage { config, manifest, .. } in images.into_iter().flatten() {
        add(index, config)?;
        add(index, manifest)?;
    }
    for inner in indexes.into_iter().flatten() {
        add_index(index, inner)?;
    }
    let document = Document { media_type, digest, raw };
    let listing = listing(&document, &refs, &tag);
    add(index, document)?;
    Ok(listing)
}

/// Describes an image in the list of a layout. It is known by the digest it came from, and by a tag if it was asked for by
/// one.
fn listing(document: &Document, refs: &[String], tag: &str) -> serde_json::Value {
    let named = |name: &String| match name.split_once('@') {
        Some((repository, _)) if !tag.is_empty() => format!("{repository}:{tag}"),
        _ => name.clone(),
    };
    let annotations = refs.first().map(|name| json!({ CONTAINERD_NAME: named(name) }));
    json!({
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": document.raw.len(),
        "annotations": annotations,
    })
}

fn add(index: &mut Index, document: Document) -> Result<()> {
    index.put(blob_name(&document.digest), document.raw.into())
}

/// Reads the digest that a layer's entry is named by, however it is packed.
fn layer_in(name: &str) -> Option<Digest> {
    name.strip_suffix(".tar.gz")?.replacen('-', ":", 1).parse().ok()
}
