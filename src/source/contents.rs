//! What a source holds of an image, described and checked without pushing it: documents, configs, layers.
//!
//! Describing reads documents and the first bytes of layers. Verifying reads everything, each blob once, and
//! recomputes what manifests and configs say of it; all that differs is told, not only the first. Nothing here
//! fails: what is wrong with an image is part of its description.

use std::{collections::HashMap, io::Read as _, io::copy, ops::ControlFlow};

use super::{Data, Image, ImageContent, Layer, Missing, Source, passed::Passed, resolve, tree::read_config};
use crate::{
    blob::mismatch,
    codec::{
        Compression, Encoded,
        prove::{prove, prove_stream},
    },
    error::{Context as _, Error, ErrorKind, Result},
    oci::{
        Algorithm, Content, Descriptor, Digest, Hasher, ImageConfig, Manifest, Platform,
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
#[derive(Clone, Debug)]
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

/// Looks at the images of one source.
#[derive(Debug)]
pub struct Examiner<'a> {
    source: &'a dyn Source,
    passed: &'a Passed,
    /// What was found by reading blobs, by the names that the source has for them.
    read: HashMap<String, Result<Encoded>>,
}

impl<'a> Examiner<'a> {
    /// Looks at `source`; `passed` is what was learned when it was an archive that can be read once.
    pub fn new(source: &'a dyn Source, passed: &'a Passed) -> Self {
        Self { source, passed, read: HashMap::new() }
    }

    /// Describes an image.
    pub fn describe(&self, image: &Image) -> Contents {
        match &image.content {
            ImageContent::Layers { config, layers, .. } => {
                let layers = layers.iter().map(|layer| self.part(layer.clone())).collect();
                let digest = Digest::of(config);
                let config = Part {
                    layer: Layer { name: digest.to_string(), descriptor: None, diff_id: None },
                    size: Some(config.len() as u64),
                    state: State::Held(Compression::None),
                };
                let document = Document {
                    manifest: None,
                    platform: image.platform.clone(),
                    config: Some(config),
                    layers,
                    problem: None,
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
        }
    }

    /// Reads all blobs of an image and returns what is wrong.
    pub fn verify(&mut self, contents: &Contents) -> Vec<Error> {
        let mut problems = contents.problems();
        for document in &contents.documents {
            let config = document.config.iter().filter(|_| document.manifest.is_some());
            for part in config.chain(&document.layers) {
                if let Err(problem) = self.check(part) {
                    problems.push(problem);
                }
            }
        }
        problems
    }

    fn document(&self, manifest: Manifest) -> Document {
        let mut document =
            Document { manifest: None, platform: None, config: None, layers: Vec::new(), problem: None };
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
            Err(error) if error.find::<Missing>().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn part(&self, layer: Layer) -> Part {
        let stated = layer.descriptor.as_ref().map(|descriptor| descriptor.size);
        let (size, state) = match self.source.open(&layer).and_then(|data| self.look(data)) {
            Ok((size, compression)) => (size.or(stated), State::Held(compression)),
            Err(error) if error.find::<Missing>().is_none() => (stated, State::Broken(error)),
            Err(_) if layer.descriptor.as_ref().is_some_and(|layer| !layer.urls.is_empty()) => {
                (stated, State::Foreign)
            }
            Err(_) => (stated, State::Missing),
        };
        Part { layer, size, state }
    }

    /// Looks at the first bytes.
    fn look(&self, data: Data) -> Result<(Option<u64>, Compression)> {
        let (size, input): (_, Box<dyn std::io::Read>) = match data {
            Data::Absorbed(digest) => {
                let (compression, encoded) = self.passed.blob(&digest)?;
                return Ok((Some(encoded.size), *compression));
            }
            Data::Stored(blob) => (Some(blob.size()), Box::new(blob.reader())),
            Data::Stream(stream) => (None, stream),
        };
        let mut magic = Vec::new();
        input
            .take(Compression::MAGIC_LENGTH as u64)
            .read_to_end(&mut magic)
            .context(ErrorKind::Source, || "reading a blob".into())?;
        Ok((size, Compression::detect(&magic)))
    }

    /// Compares a blob with what is said about it.
    fn check(&mut self, part: &Part) -> Result<()> {
        let layer = &part.layer;
        match &part.state {
            State::Broken(_) | State::Foreign => return Ok(()),
            State::Missing => {
                return Err(
                    Error::source(format!("`{}` is missing", layer.name.escape_debug())).because(Missing)
                );
            }
            State::Held(_) => {}
        }
        if !self.read.contains_key(&layer.name) {
            let read = self.read(layer);
            self.read.insert(layer.name.clone(), read);
        }
        let read = self.read[&layer.name].clone();
        let read =
            read.map_err(|error| error.while_doing(format!("reading `{}`", layer.name.escape_debug())))?;
        if let Some(descriptor) = &layer.descriptor {
            let is_other =
                descriptor.digest.algorithm() == Algorithm::Sha256 && descriptor.digest != read.digest;
            if is_other || descriptor.size != read.size {
                return Err(mismatch(&layer.name, descriptor, read.size, &read.digest));
            }
        }
        match &layer.diff_id {
            Some(diff_id) if *diff_id != read.diff_id => Err(Error::source(format!(
                "diff ID mismatch in layer `{}`: the image config says {diff_id}, the layer is {}",
                layer.name.escape_debug(),
                read.diff_id
            ))),
            _ => Ok(()),
        }
    }

    fn read(&self, layer: &Layer) -> Result<Encoded> {
        if let Some(descriptor) = &layer.descriptor
            && descriptor.digest.algorithm() != Algorithm::Sha256
        {
            self.check_digest(layer, descriptor)?;
        }
        match self.source.open(layer)? {
            Data::Absorbed(digest) => self.passed.blob(&digest).map(|(_, encoded)| encoded.clone()),
            Data::Stored(blob) => prove(&blob, &|_| ControlFlow::Continue(())),
            Data::Stream(stream) => {
                prove_stream(stream, &|_| ControlFlow::Continue(())).map(|(_, encoded)| encoded)
            }
        }
    }

    /// Compares a blob with its digest, where that is none that every pass computes.
    fn check_digest(&self, layer: &Layer, descriptor: &Descriptor) -> Result<()> {
        let mut hasher = Hasher::new(descriptor.digest.algorithm());
        let mut input: Box<dyn std::io::Read> = match self.source.open(layer)? {
            Data::Absorbed(_) => {
                return Err(Error::source("its digest is not sha256 and cannot be checked in passing")
                    .with_hint("unpack the archive first"));
            }
            Data::Stored(blob) => Box::new(blob.reader()),
            Data::Stream(stream) => stream,
        };
        let size = copy(&mut input, &mut hasher).context(ErrorKind::Source, || "reading a blob".into())?;
        let found = hasher.finish();
        if found == descriptor.digest { Ok(()) } else { Err(mismatch(&layer.name, descriptor, size, &found)) }
    }
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
    /// Gives each layer the diff ID that the config says.
    fn take_config(&mut self, config: ImageConfig, manifest: &Digest) {
        self.platform = config.platform;
        // Signatures are kept in manifests that look like images, without diff IDs.
        if config.diff_ids.is_empty() && !self.layers.iter().any(Part::is_file_system) {
            return;
        }
        if config.diff_ids.len() != self.layers.len() {
            self.problem = Some(Error::source(format!(
                "manifest {manifest} has {} layers and {} diff IDs",
                self.layers.len(),
                config.diff_ids.len()
            )));
            return;
        }
        for (part, diff_id) in self.layers.iter_mut().zip(config.diff_ids) {
            part.layer.diff_id = Some(diff_id);
        }
    }
}
