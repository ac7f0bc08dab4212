//! What a source holds of an image, described without pushing it: documents, configs, layers.
//!
//! Documents are read, and the first bytes of layers; who reads the rest is [`verify`](super::verify). Nothing here
//! fails: what is wrong with an image is part of its description.

use std::{collections::HashMap, io::Read as _};

use super::{
    Data, Image, ImageContent, Layer, Missing, Source, documents::read_config, passed::Passed, resolve,
};
use crate::{
    codec::{Compression, Encoded},
    error::{Context as _, Error, ErrorKind, Result},
    oci::{
        Content, Descriptor, Digest, ImageConfig, Manifest, Platform,
        media_type::{is_file_system, is_image_config},
    },
};

/// What a source holds of an image.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The root first, then all that it leads to.
    pub documents: Vec<Document>,
    /// The manifests that an index names and the source does not hold.
    pub missing: Vec<Descriptor>,
    /// What is wrong with it as a whole.
    pub problem: Option<Error>,
}

/// A manifest or index with what it names; or an image for which the source has no manifest.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The manifest or index.
    pub manifest: Option<Manifest>,
    /// The machine that the config names.
    pub platform: Option<Platform>,
    /// The config, where there is one.
    pub config: Option<Part>,
    /// The layers, base first.
    pub layers: Vec<Part>,
    /// What is wrong with how these fit together.
    pub problem: Option<Error>,
}

/// A config or layer.
#[derive(Clone, Debug)]
pub struct Part {
    /// How the source calls it, and what is said about it.
    pub layer: Layer,
    /// The number of its bytes as they lie there, where it is known.
    pub size: Option<u64>,
    /// Their digest: what a manifest says, or what reading them has told.
    pub digest: Option<Digest>,
    /// How it is held.
    pub state: State,
}

/// How a blob is held.
#[derive(Clone, Debug)]
pub enum State {
    /// Not as it should be.
    Broken(Error),
    /// Elsewhere by the will of its maker (`urls`).
    Foreign,
    /// In this encoding.
    Held(Compression),
    /// Not at all.
    Missing,
}

/// Describes the images of one source.
#[derive(Debug)]
pub struct Describer<'a> {
    source: &'a dyn Source,
    passed: &'a Passed,
    /// What is on record of layers that would have to be produced, by their names.
    plain_sizes: HashMap<String, Option<u64>>,
}

impl<'a> Describer<'a> {
    /// Describes what is in `source`; `passed` is what was learned when it was an archive that can be read once.
    pub fn new(source: &'a dyn Source, passed: &'a Passed) -> Self {
        Self { source, passed, plain_sizes: HashMap::new() }
    }

    /// Describes an image.
    pub fn describe(&mut self, image: &Image) -> Contents {
        match &image.content {
            ImageContent::Broken { error, .. } => {
                Contents { problem: Some(error.clone()), ..Contents::default() }
            }
            ImageContent::Layers { config, layers, .. } => {
                let digest = Digest::of(config);
                let config = Part {
                    layer: Layer { name: digest.to_string(), descriptor: None, diff_id: None },
                    size: Some(config.len() as u64),
                    digest: Some(digest),
                    state: State::Held(Compression::None),
                };
                let document = Document {
                    platform: image.platform.clone(),
                    config: Some(config),
                    layers: layers.iter().map(|layer| self.part(layer.clone())).collect(),
                    ..Document::default()
                };
                Contents { documents: vec![document], ..Contents::default() }
            }
            ImageContent::Manifest(root) => match resolve(self.source, root, None) {
                Ok(tree) => {
                    let mut manifests = tree.manifests;
                    manifests.rotate_right(1);
                    let documents = manifests.into_iter().map(|manifest| self.document(manifest)).collect();
                    Contents { documents, missing: tree.missing, problem: None }
                }
                Err(error) => Contents { problem: Some(error), ..Contents::default() },
            },
            ImageContent::Index { manifest, images, absent, .. } => {
                let mut contents = Contents { missing: absent.clone(), ..Contents::default() };
                contents.documents.push(self.document(manifest.clone()));
                for Contents { documents, missing, problem } in
                    images.iter().map(|image| self.describe(image))
                {
                    contents.documents.extend(documents);
                    contents.missing.extend(missing);
                    contents.problem = contents.problem.or(problem);
                }
                contents
            }
        }
    }

    fn document(&mut self, manifest: Manifest) -> Document {
        let mut document = Document::default();
        if let Content::Image { config, layers } = &manifest.content {
            document.config = config.as_ref().map(|config| self.part(Layer::named(config)));
            document.layers = layers.iter().map(Layer::named).map(|layer| self.part(layer)).collect();
            if let Some(config) = config {
                match self.image_config(config) {
                    Ok(Some(config)) => document.take_config(config, &manifest.digest),
                    Ok(None) => {}
                    Err(error) => document.problem = Some(error),
                }
            }
        }
        document.manifest = Some(manifest);
        document
    }

    /// Reads the config of an image; artifacts have none. What is missing is told where it is looked for.
    fn image_config(&self, descriptor: &Descriptor) -> Result<Option<ImageConfig>> {
        match read_config(self.source, descriptor) {
            Ok(bytes) => match ImageConfig::parse(&bytes, &descriptor.digest.to_string()) {
                Err(_) if !descriptor.media_type.as_deref().is_some_and(is_image_config) => Ok(None),
                config => config.map(Some),
            },
            Err(error) if Missing::is_cause_of(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn part(&mut self, layer: Layer) -> Part {
        let stated = layer.descriptor.as_ref().map(|descriptor| descriptor.size);
        let mut digest = layer.descriptor.as_ref().map(|descriptor| descriptor.digest.clone());
        let (size, state) = match self.source.open(&layer).and_then(|data| self.look(data)) {
            Ok(Looked { size, digest: found, compression }) => {
                digest = digest.or(found);
                (size.or(stated).or_else(|| self.plain_size(&layer)), State::Held(compression))
            }
            Err(error) if !Missing::is_cause_of(&error) => (stated, State::Broken(error)),
            Err(_) if layer.descriptor.as_ref().is_some_and(|layer| !layer.urls.is_empty()) => {
                (stated, State::Foreign)
            }
            Err(_) => (stated, State::Missing),
        };
        Part { layer, size, digest, state }
    }

    /// Returns the size on record. Images share layers, and finding it out may take a moment.
    fn plain_size(&mut self, layer: &Layer) -> Option<u64> {
        let size = || self.source.plain_size(layer);
        *self.plain_sizes.entry(layer.name.clone()).or_insert_with(size)
    }

    /// Looks at the first bytes.
    fn look(&self, data: Data) -> Result<Looked> {
        let (size, input): (_, Box<dyn std::io::Read>) = match data {
            Data::Absorbed(digest) => {
                let (compression, Encoded { digest, size, .. }) = self.passed.blob(&digest)?;
                let (size, digest) = (Some(*size), Some(digest.clone()));
                return Ok(Looked { size, digest, compression: *compression });
            }
            Data::Stored(blob) => (Some(blob.size()), Box::new(blob.reader())),
            Data::Stream(stream) => (None, stream),
        };
        let mut magic = Vec::new();
        input
            .take(Compression::MAGIC_LENGTH as u64)
            .read_to_end(&mut magic)
            .context(ErrorKind::Source, || "reading a blob".into())?;
        Ok(Looked { size, digest: None, compression: Compression::detect(&magic) })
    }
}

/// What is seen of a blob without reading it.
struct Looked {
    size: Option<u64>,
    digest: Option<Digest>,
    compression: Compression,
}

impl Contents {
    /// Returns what was found to be wrong already by describing it.
    pub fn problems(&self) -> Vec<Error> {
        let of_document = |document: &Document| -> Vec<Error> {
            let broken =
                document.config.iter().chain(&document.layers).filter_map(|part| match &part.state {
                    State::Broken(error) => Some(error.clone()),
                    _ => None,
                });
            broken.chain(document.problem.clone()).collect()
        };
        self.problem.clone().into_iter().chain(self.documents.iter().flat_map(of_document)).collect()
    }
}

impl Part {
    fn is_file_system(&self) -> bool {
        let media_type = self.layer.descriptor.as_ref().and_then(|layer| layer.media_type.as_deref());
        media_type.is_none_or(is_file_system)
    }
}

impl Document {
    /// Returns what is a blob of its own: the layers, and the config unless it is at hand anyway.
    pub(super) fn blobs(&mut self) -> impl Iterator<Item = &mut Part> {
        let config = self.config.iter_mut().filter(|_| self.manifest.is_some());
        config.chain(&mut self.layers)
    }

    /// Gives each layer the diff ID that the config says.
    fn take_config(&mut self, config: ImageConfig, manifest: &Digest) {
        let checked = config.check_layers(self.layers.len(), &format!("manifest {manifest}"));
        self.platform = config.platform;
        // Signatures are kept in manifests that look like images, without diff IDs.
        if config.diff_ids.is_empty() && !self.layers.iter().any(Part::is_file_system) {
            return;
        }
        match checked {
            Ok(()) => {
                for (part, diff_id) in self.layers.iter_mut().zip(config.diff_ids) {
                    part.layer.diff_id = Some(diff_id);
                }
            }
            Err(problem) => self.problem = Some(problem),
        }
    }
}
