//! Bundles: all images of some sources in one archive, for places that no line leads to.
//!
//! Images become what a push would make of them. Documents wait in memory until all is known; layers go into the
//! archive straight from where they lie, and from the cache where they had to be encoded: nothing is copied before.
//! Every blob is there once. What a site has already, by its inventory, is left out and listed instead.

pub mod inventory;
mod pack;
mod packed;
pub mod stocktaking;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use self::{inventory::Base, pack::Packer, packed::Packed};
use super::{Cargo, Intent, Opened, Options, Press, delivery::send::DamagedEntry, runtime::blocking};
use crate::{
    error::{Context as _, Error, ErrorKind, Result},
    event::{Event, Reporter},
    layout::{
        CONTAINERD_NAME, INDEX, OCI_LAYOUT, OCI_LAYOUT_CONTENT, REF_NAME,
        archive::{ArchiveWriter, archive_size},
        left_out::{Absent, LEFT_OUT, LeftOut},
        output::Output,
        read::INDEX_LIMIT,
        write::blob_name,
    },
    oci::{Descriptor, Digest, Manifest, media_type, reference},
    source::{Image, ImageContent},
};

/// Images on their way into one archive.
#[derive(Debug)]
#[must_use = "a bundle does nothing until it is written"]
pub struct Bundle {
    /// Where the images lie: all of each place, or the one that is meant.
    pub sources: Vec<Opened>,
    /// The file to be written.
    pub file: PathBuf,
    /// The size of its parts, if it is to have some.
    pub split: Option<u64>,
    /// What is left out, because it is there.
    pub base: Base,
    /// What encodes layers, and where they are kept.
    pub press: Press,
    /// How; what concerns registries does not matter.
    pub options: Options,
}

/// A bundle that has been written.
#[derive(Clone, Debug)]
pub struct Bundled {
    /// What is to be read: the file, or the list of its parts.
    pub file: PathBuf,
    /// The size of the archive.
    pub size: u64,
    /// How many blobs are in it, documents too.
    pub blobs: usize,
    /// The images, as its index lists them.
    pub images: Vec<BundledImage>,
    /// What it leaves out.
    pub left_out: Vec<Absent>,
}

/// An image in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledImage {
    /// What it can be asked for by.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub root: Descriptor,
}

impl Bundle {
    /// Writes the archive, whole or not at all. The same sources in the same order make the same bytes.
    pub async fn write(mut self) -> Result<Bundled> {
        let giving = self.press.use_shared(self.options.shared_cache.take());
        tokio::join!(self.make(), giving).0
    }

    async fn make(self) -> Result<Bundled> {
        let Self { sources, file, split, base, press, options } = self;
        let mut contents = Contents { base, ..Contents::default() };
        for Opened { input, spec } in sources {
            let cargo = Cargo::load(input, &spec, None, press.clone(), options.clone(), Intent::Ask).await?;
            let name = cargo.source.name();
            let packed = Packer { cargo: Arc::new(cargo) }.pack(&spec.choice, &mut contents).await;
            packed.map_err(|error| error.while_doing(format!("bundling {name}")))?;
        }
        let contents = Arc::new(contents);
        let reporter = &press.reporter;
        let (file, size) = match contents.put(&file, split, reporter).await {
            Err(error) if error.find::<DamagedEntry>().is_some() => {
                // Damage is seldom alone.
                press.warn(format!("{}; looking at all that were encoded", error.message()));
                contents.mend().await?;
                contents.put(&file, split, reporter).await
            }
            written => written,
        }?;
        let Contents { images, blobs, left_out, .. } = &*contents;
        Ok(Bundled {
            file,
            size,
            blobs: blobs.len(),
            images: images.iter().map(|(image, _)| image.clone()).collect(),
            left_out: left_out.values().cloned().collect(),
        })
    }
}

/// What a bundle will hold.
#[derive(Debug, Default)]
struct Contents {
    base: Base,
    blobs: BTreeMap<Digest, Packed>,
    /// Each with its entries in the index.
    images: Vec<(BundledImage, Vec<Value>)>,
    /// Which image has a name already.
    named: HashMap<String, Digest>,
    left_out: BTreeMap<Digest, Absent>,
}

impl Contents {
    /// Adds a blob, unless the site has it.
    fn add(&mut self, digest: Digest, blob: Packed) {
        if let Some(repositories) = self.base.repositories(&digest) {
            let absent = Absent { digest: digest.clone(), size: blob.size, repositories };
            self.left_out.insert(digest, absent);
        } else {
            self.blobs.entry(digest).or_insert(blob);
        }
    }

    /// Lists an image under its names.
    fn list(&mut self, image: &Image, root: &Manifest) -> Result<()> {
        let mut names = Vec::new();
        for name in names_of(image) {
            match self.named.insert(name.clone(), root.digest.clone()) {
                None => names.push(name),
                Some(same) if same == root.digest => {}
                Some(other) => {
                    let words = format!("two images are called `{name}`: {other} and {}", root.digest);
                    return Err(Error::usage(words).with_hint(
                        "bundle them one by one: `SOURCE:NAME`, `SOURCE@DIGEST` and `--platform` choose",
                    ));
                }
            }
        }
        let listed = self.images.iter_mut().find(|(listed, _)| listed.root.digest == root.digest);
        let entries = if names.is_empty() && listed.is_none() {
            vec![entry(image, root, None)]
        } else {
            names.iter().map(|name| entry(image, root, Some(name))).collect()
        };
        match listed {
            Some((listed, known)) => {
                listed.names.extend(names);
                known.extend(entries);
            }
            None => self.images.push((BundledImage { names, root: root.descriptor() }, entries)),
        }
        Ok(())
    }

    /// Returns what stands before the blobs.
    fn documents(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let entries: Vec<&Value> = self.images.iter().flat_map(|(_, entries)| entries).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::Family::Oci.index(),
            "manifests": entries,
        });
        let index =
            serde_json::to_vec(&index).context(ErrorKind::Internal, || format!("writing `{INDEX}`"))?;
        if index.len() as u64 > INDEX_LIMIT {
            return Err(Error::usage(format!("{} images are too many for one bundle", entries.len()))
                .with_hint("make several of them"));
        }
        let mut documents = vec![(OCI_LAYOUT, OCI_LAYOUT_CONTENT.as_bytes().to_vec()), (INDEX, index)];
        if !self.left_out.is_empty() {
            let left_out = LeftOut::new(self.left_out.values().cloned().collect());
            documents.push((LEFT_OUT, left_out.to_bytes()?));
        }
        Ok(documents)
    }

    /// Writes the archive, and returns what is to be read and its size.
    async fn put(
        self: &Arc<Self>,
        file: &Path,
        split: Option<u64>,
        reporter: &Arc<dyn Reporter>,
    ) -> Result<(PathBuf, u64)> {
        let documents = self.documents()?;
        let first = documents.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.len() as u64));
        let blobs = self.blobs.iter().map(|(digest, blob)| (blob_name(digest), blob.size));
        let size = archive_size(first.chain(blobs));
        let output = Output::create(file, size, split)?;
        // Whoever drops this future drops what is unfinished too.
        let _stage = output.stage();
        let (contents, name) = (Arc::clone(self), file.display().to_string());
        let output = Metered { output, reporter: Arc::clone(reporter), name, size, written: 0, said: 0 };
        blocking(move || Ok((contents.write(&documents, output)?.finish()?, size))).await
    }

    /// Encodes again what is damaged of all that lies encoded in the cache.
    async fn mend(&self) -> Result<()> {
        for blob in self.blobs.values() {
            blob.bytes.mend().await?;
        }
        Ok(())
    }

    fn write(&self, documents: &[(&str, Vec<u8>)], output: Metered) -> Result<Output> {
        let mut archive = ArchiveWriter::new(output);
        for (name, bytes) in documents {
            archive.append(name, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        for (digest, blob) in &self.blobs {
            let expected = Descriptor::new("", digest.clone(), blob.size);
            let (mut bytes, name) = blob.open(digest)?;
            let written = archive.append_blob(&expected, &mut bytes, &name);
            written.map_err(|error| blob.bytes.blame(error))?;
        }
        Ok(archive.finish()?.output)
    }
}

/// An output that tells how much of it is written.
struct Metered {
    output: Output,
    reporter: Arc<dyn Reporter>,
    name: String,
    size: u64,
    written: u64,
    said: u64,
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.written += written as u64;
        if self.written - self.said >= NEWS || self.written == self.size {
            self.said = self.written;
            let (file, bytes, size) = (self.name.clone(), self.written, self.size);
            self.reporter.event(Event::Written { file, bytes, size });
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// So many bytes more are worth telling.
const NEWS: u64 = 8 << 20;

/// Returns what an image will be asked for by: its full names, or where it has none its tags.
fn names_of(image: &Image) -> Vec<String> {
    let (tags, full): (Vec<_>, Vec<_>) =
        image.names.iter().cloned().partition(|name| !name.contains(['/', ':', '@']));
    if full.is_empty() { tags } else { full }
}

/// Returns a line of the index. The containers tools look for a name in one annotation, and containerd in the other.
fn entry(image: &Image, root: &Manifest, name: Option<&str>) -> Value {
    let held = match &image.content {
        ImageContent::Manifest(held) => Some(held),
        ImageContent::Broken { .. } | ImageContent::Layers { .. } | ImageContent::Index { .. } => None,
    };
    let mut annotations = held.map(|held| held.annotations.clone()).unwrap_or_default();
    annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
    if let Some(name) = name {
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
        if name.split_once('/').is_some_and(|(host, _)| reference::is_host(host)) {
            annotations.insert(CONTAINERD_NAME.to_owned(), name.to_owned());
        }
    }
    let mut entry = json!({
        "mediaType": root.media_type,
        "digest": root.digest,
        "size": root.bytes.len(),
    });
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    if let Some(kind) = held.and_then(|held| held.artifact_type.as_ref()) {
        entry["artifactType"] = json!(kind);
    }
    // One platform of several is another document.
    let same = image.digest().is_none_or(|digest| *digest == root.digest);
    if let Some(platform) = image.platform.as_ref().filter(|_| same) {
        entry["platform"] = json!(platform);
    }
    entry
}
