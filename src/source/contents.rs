//! What a source holds of an image, described and checked without pushing it: documents, configs, layers.
//!
//! Describing reads documents and the first bytes of layers. Verifying reads everything, each blob once, and
//! recomputes what manifests and configs say of it; all that differs is told, not only the first. Nothing here
//! fails: what is wrong with an image is part of its description.

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, copy},
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{Data, Image, ImageContent, Layer, Missing, Source, passed::Passed, resolve, tree::read_config};
use crate::{
    blob::mismatch,
    codec::{
        Compression, Encoded,
        prove::{prove, prove_stream},
    },
    error::{Context as _, Error, ErrorKind, Result, counted},
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
    fn blobs(&mut self) -> impl Iterator<Item = &mut Part> {
        let config = self.config.iter_mut().filter(|_| self.manifest.is_some());
        config.chain(&mut self.layers)
    }

    /// Gives each layer the diff ID that the config says.
    fn take_config(&mut self, config: ImageConfig, manifest: &Digest) {
        self.platform = config.platform;
        // Signatures are kept in manifests that look like images, without diff IDs.
        if config.diff_ids.is_empty() && !self.layers.iter().any(Part::is_file_system) {
            return;
        }
        if config.diff_ids.len() != self.layers.len() {
            self.problem = Some(Error::source(format!(
                "manifest {manifest} has {} and {}",
                counted(self.layers.len(), "layer"),
                counted(config.diff_ids.len(), "diff ID")
            )));
            return;
        }
        for (part, diff_id) in self.layers.iter_mut().zip(config.diff_ids) {
            part.layer.diff_id = Some(diff_id);
        }
    }
}

/// Reads all blobs of some images, `workers` at a time, and returns what is wrong, in the order of the images.
pub fn verify(
    source: &dyn Source,
    passed: &Passed,
    images: &mut [&mut Contents],
    workers: usize,
) -> Vec<Error> {
    let read = read_all(source, passed, images, workers);
    let mut problems = Vec::new();
    for contents in images {
        problems.extend(contents.problems());
        for part in contents.documents.iter_mut().flat_map(Document::blobs) {
            match check(part, &read) {
                Ok(Some(read)) => {
                    part.size.get_or_insert(read.size);
                    part.digest.get_or_insert(read.digest);
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }
    problems
}

/// What was found by reading blobs, by the names that the source has for them.
type Found = HashMap<String, Result<Encoded>>;

/// Reads each blob once, the largest first.
fn read_all(source: &dyn Source, passed: &Passed, images: &mut [&mut Contents], workers: usize) -> Found {
    let mut parts: Vec<Part> = Vec::new();
    let mut known = HashSet::new();
    for part in images.iter_mut().flat_map(|contents| &mut contents.documents).flat_map(Document::blobs) {
        if matches!(part.state, State::Held(_)) && known.insert(part.layer.name.clone()) {
            parts.push(part.clone());
        }
    }
    parts.sort_by_key(|part| part.size);
    let (left, found) = (Mutex::new(parts), Mutex::new(Found::new()));
    // The lock is let go before the reading.
    let next = || lock(&left).pop();
    thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                while let Some(Part { layer, .. }) = next() {
                    let result = read(source, passed, &layer);
                    lock(&found).insert(layer.name, result);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(source: &dyn Source, passed: &Passed, layer: &Layer) -> Result<Encoded> {
    if let Some(descriptor) = &layer.descriptor
        && descriptor.digest.algorithm() != Algorithm::Sha256
    {
        check_digest(source, layer, descriptor)?;
    }
    match source.open(layer)? {
        Data::Absorbed(digest) => passed.blob(&digest).map(|(_, encoded)| encoded.clone()),
        Data::Stored(blob) => prove(&blob, &|_| ControlFlow::Continue(())),
        Data::Stream(stream) => {
            prove_stream(stream, &|_| ControlFlow::Continue(())).map(|(_, encoded)| encoded)
        }
    }
}

/// Compares a blob with its digest, where that is none that every pass computes.
fn check_digest(source: &dyn Source, layer: &Layer, descriptor: &Descriptor) -> Result<()> {
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    let mut input: Box<dyn std::io::Read> = match source.open(layer)? {
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

/// Compares a blob that has been read with what is said about it; returns what it is, if it could be read.
fn check(part: &Part, found: &Found) -> Result<Option<Encoded>> {
    let layer = &part.layer;
    let named = layer.name.escape_debug();
    match &part.state {
        State::Broken(_) | State::Foreign => return Ok(None),
        State::Missing => return Err(Error::source(format!("`{named}` is missing")).because(Missing)),
        State::Held(_) => {}
    }
    let read = found.get(&layer.name).cloned();
    let read = read.unwrap_or_else(|| Err(Error::internal("nobody has read it")));
    let read = read.map_err(|error| error.while_doing(format!("reading `{named}`")))?;
    if let Some(descriptor) = &layer.descriptor {
        let is_other = descriptor.digest.algorithm() == Algorithm::Sha256 && descriptor.digest != read.digest;
        if is_other || descriptor.size != read.size {
            return Err(mismatch(&layer.name, descriptor, read.size, &read.digest));
        }
    }
    match &layer.diff_id {
        Some(diff_id) if *diff_id != read.diff_id => {
            Err(diff_id.mismatch(&read.diff_id).while_doing(format!("layer `{named}`")))
        }
        _ => Ok(Some(read)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Cursor,
        sync::{Condvar, atomic::AtomicUsize, atomic::Ordering},
        time::Duration,
    };

    use bytes::Bytes;

    use super::*;
    use crate::oci::DiffId;

    /// Layers called by their content, the first of which can be read when somebody reads another one too.
    #[derive(Default)]
    struct Together {
        reading: Mutex<usize>,
        changed: Condvar,
        opened: AtomicUsize,
    }

    impl Source for Together {
        fn name(&self) -> String {
            "it".into()
        }

        fn images(&self) -> Result<Vec<Image>> {
            Ok(Vec::new())
        }

        fn open(&self, layer: &Layer) -> Result<Data> {
            // The first look is not the reading.
            if self.opened.fetch_add(1, Ordering::SeqCst) >= 4 {
                *lock(&self.reading) += 1;
                self.changed.notify_all();
                let alone = |reading: &mut usize| *reading < 2;
                let patience = Duration::from_secs(60);
                let waited = self.changed.wait_timeout_while(lock(&self.reading), patience, alone);
                assert!(!waited.unwrap().1.timed_out(), "nobody else is reading");
            }
            Ok(Data::Stream(Box::new(Cursor::new(layer.name.clone().into_bytes()))))
        }

        fn plain_size(&self, layer: &Layer) -> Option<u64> {
            (layer.name == "a").then_some(1)
        }
    }

    #[test]
    fn blobs_are_read_side_by_side_and_told_in_order() {
        let layer = |name: &str, is: &str| Layer {
            name: name.into(),
            descriptor: None,
            diff_id: Some(DiffId(Digest::of(is.as_bytes()))),
        };
        let layers = vec![layer("a", "a"), layer("bb", "c"), layer("ccc", "ccc"), layer("dddd", "e")];
        let image = Image {
            names: Vec::new(),
            platform: None,
            content: ImageContent::Layers { config: Bytes::from_static(b"{}"), layers, original: None },
            companion: false,
        };
        let (source, passed) = (Together::default(), Passed::default());
        let mut contents = Describer::new(&source, &passed).describe(&image);
        let sizes = |contents: &Contents| -> Vec<Option<u64>> {
            contents.documents[0].layers.iter().map(|layer| layer.size).collect()
        };
        assert_eq!(sizes(&contents), [Some(1), None, None, None]);
        let mut again = contents.clone();
        let problems = verify(&source, &passed, &mut [&mut contents, &mut again], 2);
        let problems: Vec<_> = problems.iter().map(|problem| problem.message().split('`').nth(1)).collect();
        assert_eq!(problems, [Some("bb"), Some("dddd"), Some("bb"), Some("dddd")]);
        assert_eq!(sizes(&contents), [Some(1), None, Some(3), None]);
        assert_eq!(contents.documents[0].layers[2].digest, Some(Digest::of(b"ccc")));
        assert_eq!(source.opened.into_inner(), 8);
    }
}
